"""Commands run in this process, as `main` runs them: same errors, same exit codes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from k2.cli import main


@dataclass(frozen=True)
class Ended:
    code: int
    raw: bytes
    talk: str

    @property
    def out(self) -> str:
        return self.raw.decode()


K2 = Callable[..., Ended]


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with 4,000 simulated records in its tables and 500 more in its log; only read."""
    home = tmp_path_factory.mktemp("market")
    url = "simulator:?symbols=3&rate=max&seed=7&nominal=100&count="
    for arguments in (
        ["feed", f"{url}4000"],
        ["ingest", "--until-caught-up"],
        ["feed", f"{url}4500"],
    ):
        assert main.run(["--home", str(home), *arguments]) == 0
    return home


@pytest.fixture
def k2(
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> K2:
    """Runs `k2 ARGUMENTS…` in an empty folder; its home is `home` below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K2_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> Ended:
        capsysbinary.readouterr()
        code = main.run(arguments)
        out, talk = capsysbinary.readouterr()
        return Ended(code, out, talk.decode())

    return run
