"""Iceberg's own sink for Kafka Connect, which the Kafka benchmark is measured against."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from servers.install import place
from tests.servers.process import Server, free_port, java_command

_COMMIT_MS = 10_000


class Sink(Server):
    """Brings one topic of Avro messages into the table `db.trades` below `folder`."""

    def __init__(self, folder: Path, *, bootstrap: str, registry_port: int, topic: str) -> None:
        super().__init__("sink", folder)
        self._port = free_port()
        worker = {
            "bootstrap.servers": bootstrap,
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "offset.storage.file.filename": str(folder / "offsets.dat"),
            # By default an idle task hears of a commit only after a minute.
            "offset.flush.interval.ms": "1000",
            "plugin.path": str(place("sink") / "plugins"),
            "plugin.discovery": "service_load",
            "listeners": f"http://127.0.0.1:{self._port}",
            "consumer.auto.offset.reset": "earliest",
            "consumer.max.poll.records": "10000",
            "consumer.fetch.max.bytes": "67108864",
            "consumer.max.partition.fetch.bytes": "16777216",
        }
        converter = "value.converter"
        connector = {
            "name": "iceberg-sink",
            "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector",
            "tasks.max": "1",
            "topics": topic,
            "iceberg.tables": "db.trades",
            "iceberg.tables.auto-create-enabled": "true",
            "iceberg.catalog.type": "hadoop",
            "iceberg.catalog.warehouse": f"file://{folder}/warehouse",
            "iceberg.control.commit.interval-ms": str(_COMMIT_MS),
            converter: "io.apicurio.registry.utils.converter.AvroConverter",
            f"{converter}.apicurio.registry.url": (
                f"http://127.0.0.1:{registry_port}/apis/registry/v2"
            ),
            f"{converter}.apicurio.registry.as-confluent": "true",
            f"{converter}.apicurio.registry.use-id": "contentId",
        }
        self._files = [folder / "worker.properties", folder / "sink.properties"]
        for path, of in zip(self._files, (worker, connector), strict=True):
            path.write_text("".join(f"{name}={value}\n" for name, value in of.items()))

    def start(self) -> None:
        """Start it; returns once its task runs."""
        self._spawn(
            [
                *java_command("1g", None),
                *("-cp", f"{place('sink')}/worker/*"),
                "org.apache.kafka.connect.cli.ConnectStandalone",
                *map(str, self._files),
            ]
        )
        self._wait(self._runs)

    def _runs(self) -> bool:
        url = f"http://127.0.0.1:{self._port}/connectors/iceberg-sink/status"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return any(task["state"] == "RUNNING" for task in json.load(answer)["tasks"])
        except urllib.error.HTTPError:
            return False

    def steady_rate(self, count: int, patience: float = 300.0) -> float:
        """Rows a second from the first commit to that of the last of `count` rows."""
        end = time.monotonic() + patience
        found: list[tuple[float, int]] = []
        while sum(rows for _, rows in found) < count:
            found = self._commits()
            if time.monotonic() > end or not self.running:
                raise AssertionError(f"the sink committed {found}\n{self._last_words()}")
            time.sleep(0.2)
        (first, begun), (last, _) = found[0], found[-1]
        return (count - begun) / (last - first) if last > first else float("nan")

    def _commits(self) -> list[tuple[float, int]]:
        """Seconds and rows of each commit."""
        files = list((self.folder / "warehouse" / "db" / "trades" / "metadata").glob("v*.json"))
        if not files:
            return []
        newest = max(files, key=lambda file: int(file.name.split(".")[0][1:]))
        snapshots: list[dict[str, Any]] = json.loads(newest.read_text()).get("snapshots", [])
        return [
            (found["timestamp-ms"] / 1000, int(found["summary"].get("added-records", 0)))
            for found in snapshots
        ]
