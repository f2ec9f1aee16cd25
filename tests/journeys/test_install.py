"""`pip install .` in an empty environment, without what developers have, gives a K2 that works."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest

from tests.cli.running import get
from tests.conftest import missing

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with K2 and nothing else."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        missing("uv beside this Python")
    folder = tmp_path_factory.mktemp("environment") / "venv"
    python = folder / "bin" / "python"
    for words in (
        ["venv", "-q", "--python", sys.executable, str(folder)],
        ["pip", "install", "-q", "--python", str(python), str(ROOT)],
    ):
        done = subprocess.run([str(uv), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


def files_of(package: Path) -> set[str]:
    found = (path.relative_to(package) for path in package.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


@pytest.mark.slow
def test_every_file_is_installed_and_no_tool_of_developers(installed: Path) -> None:
    (packages,) = installed.glob("lib/python*/site-packages")
    assert files_of(packages / "k2") == files_of(ROOT / "src" / "k2")
    for tool in ("pytest", "mypy", "hypothesis", "playwright", "schemathesis"):
        assert not (packages / tool).exists()


@pytest.mark.slow
def test_its_demo_runs_and_ends_cleanly(installed: Path, tmp_path: Path) -> None:
    words = ["demo", "--no-browser", "--home", str(tmp_path / "home")]
    with subprocess.Popen(
        [str(installed / "bin" / "k2"), *words],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=tmp_path,
    ) as demo:
        try:
            look_at(demo)
            demo.send_signal(signal.SIGINT)
            _, talk = demo.communicate(timeout=60)
            assert demo.returncode == 0, talk
        finally:
            demo.kill()
    done = subprocess.run(
        [str(installed / "bin" / "k2"), "--home", str(tmp_path / "home"), "audit", "--json"],
        capture_output=True,
        check=True,
        env=environment(),
        cwd=tmp_path,
    )
    assert json.loads(done.stdout)["ok"] is True


def look_at(demo: "subprocess.Popen[str]") -> None:
    """The demo says where it is; its page and its bars are there."""
    assert demo.stderr is not None
    lines = iter(demo.stderr.readline, "")
    url = next(found[1] for line in lines if (found := re.search(r"(http://\S+)", line)))
    assert json.loads(get(f"{url}/health/ready"))["success"] is True
    deadline = time.monotonic() + 60
    while not (symbols := rows(f"{url}/v1/symbols")):
        assert time.monotonic() < deadline
    while not rows(f"{url}/v1/bars/1s?symbol={symbols[0]['symbol']}"):
        assert time.monotonic() < deadline
    for page in ("/", "/docs"):
        html = get(url + page).decode()
        assets = re.findall(r'(?:src|href)="([^"#:]+)"', html)
        assert assets
        for asset in assets:
            assert get(urllib.parse.urljoin(url + page, asset))


def rows(url: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(get(url))["data"]
    return found


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
