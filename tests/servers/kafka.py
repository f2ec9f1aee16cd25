"""A real Kafka broker (KRaft), alone or one of several, with listeners as a test wants them."""

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from servers.install import place

from tests.servers.certificates import Certificates
from tests.servers.process import Server, class_archive, free_port, java_command, listens

_CLUSTER_ID: Final = "MkU3OEVBNTcwNTJENDM2Qk"  # any 16 bytes in URL-safe base64

_PROPERTIES: Final = {
    "process.roles": "broker,controller",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # By default a broker that was killed may come back only after 9 s; on a machine that is busy,
    # one whose session is much shorter than this is taken for dead.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "200",
    # The default, 128 MiB, does not fit into a small heap.
    "log.cleaner.dedupe.buffer.size": "4194304",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "background.threads": "2",
    # Topics are made by those who know their partitions.
    "auto.create.topics.enable": "false",
}

_LOGGING: Final = """
Configuration:
  status: ERROR
  Appenders: {Console: {name: S, PatternLayout: {pattern: '[%d] %p %m (%c)%n'}}}
  Loggers: {Root: {level: WARN, AppenderRef: [{ref: S}]}}
"""


@dataclass(frozen=True)
class Listener:
    """One more address of a broker: its protocol, and what it tells clients to connect to."""

    protocol: str = "PLAINTEXT"
    advertised: str | None = None
    """HOST:PORT, such as that of a fault proxy; None for the listener's own address."""


@dataclass(frozen=True)
class BrokerOptions:
    """What a broker is, beyond the default."""

    properties: Mapping[str, str] = field(default_factory=dict)
    """Properties of Kafka's, over those that this module sets."""
    listeners: Mapping[str, Listener] = field(default_factory=dict)
    """Listeners by name, besides the plain one and the controller's."""
    users: Mapping[str, str] = field(default_factory=dict)
    """Passwords by name, for SCRAM-SHA-512 and SCRAM-SHA-256."""
    heap: str = "256m"


class Kafka(Server):
    """One broker, which is its own controller, or with others a node of a cluster."""

    def __init__(
        self,
        folder: Path,
        options: BrokerOptions = BrokerOptions(),  # frozen
        *,
        node: int = 1,
        controllers: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(f"kafka-{node}", folder)
        self.node = node
        self._options = options
        self._controllers = dict(controllers or {node: free_port()})
        names = ["PLAINTEXT", *options.listeners]
        self._ports = {name: free_port() for name in names}
        self._properties = folder / "server.properties"
        self._logging = folder / "log4j2.yaml"
        self._archive: Path | None = None

    @property
    def bootstrap(self) -> str:
        """HOST:PORT of the plain listener."""
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        """HOST:PORT at which the broker itself listens under this name."""
        return f"127.0.0.1:{self._ports[listener]}"

    def start(self, *, wait: bool = True) -> None:
        """Start it (again), on what it kept; with `wait`, return once it serves clients."""
        if self._archive is None:
            self._archive = class_archive(place("kafka"), _train)
        self._format()
        self._spawn(self._command(self._archive))
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until the broker has joined its cluster and serves clients."""
        self._wait(lambda: listens(self._ports["PLAINTEXT"]))
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

        def joined() -> bool:
            try:
                return self.node in admin.list_topics(timeout=1).brokers
            except KafkaException:
                return False

        self._wait(joined)

    def train(self, archive: Path) -> None:
        """Run once from start to end, so that Java writes the archive of its classes."""
        self._format()
        self._spawn(self._command(archive, write=True))
        self.wait()
        self.stop()

    def _command(self, archive: Path, *, write: bool = False) -> list[str]:
        return [
            *java_command(self._options.heap, archive, write=write),
            f"-Dlog4j2.configurationFile=file:{self._logging}",
            *("-cp", f"{place('kafka')}/*", "kafka.Kafka", str(self._properties)),
        ]

    def _format(self) -> None:
        if self._properties.exists():
            return
        self._logging.write_text(_LOGGING)
        lines = "".join(f"{name}={value}\n" for name, value in self._settings().items())
        users = [
            argument
            for name, password in self._options.users.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]
        draft = self._properties.with_suffix(".draft")
        draft.write_text(lines)
        done = subprocess.run(
            [
                *java_command("128m", self._archive),
                *("-cp", f"{place('kafka')}/*", "kafka.tools.StorageTool", "format"),
                *("-t", _CLUSTER_ID, "-c", str(draft), *users),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        draft.rename(self._properties)

    def _settings(self) -> dict[str, str]:
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        own = {name: self.address(name) for name in self._ports}
        told = dict(own)
        for name, listener in self._options.listeners.items():
            protocols[name] = listener.protocol
            told[name] = listener.advertised or own[name]
        own["CONTROLLER"] = f"127.0.0.1:{self._controllers[self.node]}"
        voters = [f"{node}@127.0.0.1:{port}" for node, port in self._controllers.items()]
        return {
            **_PROPERTIES,
            "node.id": str(self.node),
            "listeners": ",".join(f"{name}://{at}" for name, at in own.items()),
            "advertised.listeners": ",".join(f"{name}://{at}" for name, at in told.items()),
            "listener.security.protocol.map": ",".join(f"{n}:{p}" for n, p in protocols.items()),
            "controller.quorum.voters": ",".join(voters),
            "log.dirs": str(self.folder / "data"),
            **self._options.properties,
        }


def _train(archive: Path) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Kafka(Path(folder)).train(archive)


def secured(
    certificates: Certificates, users: Mapping[str, str], *, rights: bool = False
) -> BrokerOptions:
    """Options of a broker with the listeners SASL_SSL, SASL_PLAINTEXT and SSL (mutual) besides.

    `users` may sign in by SCRAM, or by PLAIN. With `rights` a user may do only what an ACL allows;
    who comes by the plain listener may do everything.
    """
    plain = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    modules = "org.apache.kafka.common.security"
    properties = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.server),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.ca),
        "listener.name.ssl.ssl.client.auth": "required",
    }
    for listener in ("sasl_ssl", "sasl_plaintext"):
        for mechanism, module in (
            ("scram-sha-512", f"{modules}.scram.ScramLoginModule required;"),
            ("scram-sha-256", f"{modules}.scram.ScramLoginModule required;"),
            ("plain", f"{modules}.plain.PlainLoginModule required {plain};"),
        ):
            properties[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = module
    if rights:
        properties["authorizer.class.name"] = (
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        )
        properties["super.users"] = "User:ANONYMOUS"
    listeners = {name: Listener(name) for name in ("SASL_SSL", "SASL_PLAINTEXT", "SSL")}
    return BrokerOptions(properties, listeners, users)


def cluster(folder: Path, nodes: int = 3, options: BrokerOptions | None = None) -> list[Kafka]:
    """Brokers of one cluster, started; each partition is on all of them, and one may be away."""
    options = options or BrokerOptions(heap="128m")
    replicated = {
        "offsets.topic.replication.factor": str(nodes),
        "transaction.state.log.replication.factor": str(nodes),
        "transaction.state.log.min.isr": str(nodes - 1),
        "default.replication.factor": str(nodes),
        "min.insync.replicas": str(nodes - 1),
    }
    options = BrokerOptions(
        {**replicated, **options.properties}, options.listeners, options.users, options.heap
    )
    controllers = {node: free_port() for node in range(1, nodes + 1)}
    brokers = [
        Kafka(folder / f"node-{node}", options, node=node, controllers=controllers)
        for node in controllers
    ]
    try:
        for broker in brokers:
            broker.start(wait=False)
        for broker in brokers:
            broker.wait()
    except BaseException:
        for broker in brokers:
            broker.kill()
        raise
    return brokers
