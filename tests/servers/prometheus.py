"""A real Prometheus, which scrapes what it is told to."""

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # it ships no types

from tests.servers.process import Server, free_port


class Prometheus(Server):
    """The server, started with a configuration of the test's own."""

    def __init__(self, folder: Path, program: str) -> None:
        super().__init__("prometheus", folder)
        self._program = program
        port = free_port()
        self._address = f"127.0.0.1:{port}"
        self.url = f"http://{self._address}"

    def start(self, config: Mapping[str, Any]) -> None:
        """Start it; it scrapes from here on."""
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(dict(config)))
        self._spawn(
            [
                self._program,
                f"--config.file={path}",
                f"--web.listen-address={self._address}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                "--log.level=warn",
            ]
        )
        self._wait(self._is_ready)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now: `metric` and `value` of each."""
        asked = urllib.parse.urlencode({"query": expression})
        found: list[dict[str, Any]] = self._ask(f"query?{asked}")["result"]
        return found

    def names(self) -> set[str]:
        """Names of all series that it has seen."""
        return set(self._ask("label/__name__/values"))

    def alerts(self) -> list[dict[str, Any]]:
        """What is pending or firing: `labels`, `annotations` and `state` of each."""
        found: list[dict[str, Any]] = self._ask("alerts")["alerts"]
        return found

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=30) as answer:
            return json.load(answer)["data"]

    def _is_ready(self) -> bool:
        urllib.request.urlopen(f"{self.url}/-/ready", timeout=5).close()
        return True
