"""A real schema registry (Apicurio) that speaks Confluent's protocol, kept in a file of its own."""

import json
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from servers.install import place, versions

from tests.servers.process import Server, class_archive, free_port, java_command


class Registry(Server):
    """One registry server; the schemas outlive `kill`."""

    def __init__(self, folder: Path, properties: Mapping[str, str] | None = None) -> None:
        super().__init__("registry", folder)
        self.port = free_port()
        self._properties = dict(properties or {})
        self._archive: Path | None = None

    @property
    def url(self) -> str:
        """Where Confluent's interface begins."""
        return f"http://127.0.0.1:{self.port}/apis/ccompat/v7"

    def start(self) -> None:
        """Start it (again), on what it kept; returns once it answers."""
        if self._archive is None:
            self._archive = class_archive(place("registry"), _train)
        self._spawn(self._command(self._archive))
        self._wait(self._answers)

    def train(self, archive: Path) -> None:
        """Run once from start to end, so that Java writes the archive of its classes."""
        self._spawn(self._command(archive, write=True))
        self._wait(self._answers)
        schema = json.dumps({"type": "record", "name": "R", "fields": []})
        request = urllib.request.Request(
            f"{self.url}/subjects/r-value/versions",
            json.dumps({"schema": schema}).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).close()
        self.stop()

    def _command(self, archive: Path, *, write: bool = False) -> list[str]:
        properties = {
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": str(self.port),
            "quarkus.log.level": "WARN",
            # Without WRITE_DELAY=0 a killed registry loses its last second.
            "apicurio.datasource.url": f"jdbc:h2:file:{self.folder / 'h2'};WRITE_DELAY=0",
            **self._properties,
        }
        return [
            *java_command("256m", archive, write=write),
            *(f"-D{name}={value}" for name, value in properties.items()),
            *("-jar", f"{place('registry')}/apicurio-registry-app-{_version()}-runner.jar"),
        ]

    def _answers(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/subjects", timeout=5) as answer:
            return bool(answer.status == 200)


def _version() -> str:
    return versions()["registry"]


def _train(archive: Path) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Registry(Path(folder)).train(archive)
