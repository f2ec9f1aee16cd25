"""Requests by the thousand, made from the API's own description, find nothing wrong with it."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.slow
def test_nothing_is_found(client: httpx.Client, tmp_path: Path) -> None:
    found = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
            *("run", str(client.base_url.join("/openapi.json"))),
            *("--max-examples", "40", "--seed", "1", "--no-color", "--generation-database", "none"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-20_000:]
    assert "Tested: 40" in found.stdout
