"""`make servers`: what is there stays, what cannot be had is told by name, nothing is left half."""

import os
import subprocess
import sys
from pathlib import Path

from servers.install import INSTALLERS, versions

SCRIPT = Path(__file__).parents[2] / "servers" / "install.py"


def install(cache: Path, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "K2_SERVERS": str(cache), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_its_tools_nothing_is_installed_and_each_is_told(tmp_path: Path) -> None:
    done = install(tmp_path / "cache", str(tmp_path))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [line.split()[0] for line in lines] == list(INSTALLERS)
    assert "no java and no mvn" in lines[0]
    assert [each.name for each in (tmp_path / "cache").iterdir()] == [".lock"]


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    for name in INSTALLERS:
        (tmp_path / f"{name}-{versions()[name]}").mkdir()
    done = install(tmp_path, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_failed_download_leaves_nothing(tmp_path: Path) -> None:
    """Nor does one that was killed: the next run clears its folder away."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("java", "mvn", "go"):
        (tools / tool).write_text("#!/bin/sh\nexit 7\n")
        (tools / tool).chmod(0o755)
    cache = tmp_path / "cache"
    (cache / ".staging-killed").mkdir(parents=True)
    (cache / ".staging-killed" / "half.jar").write_text("half")
    done = install(cache, f"{tools}:/usr/bin:/bin")
    assert done.returncode == 1
    assert done.stderr.count("is not installed: ") == len(INSTALLERS)
    assert [each.name for each in cache.iterdir()] == [".lock"]
