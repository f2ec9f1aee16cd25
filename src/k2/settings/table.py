"""One table of every setting."""

from dataclasses import dataclass
from typing import Final

FILE_NAME: Final = "k2.toml"
DEFAULT_HOME: Final = "k2-home"


@dataclass(frozen=True)
class Setting:
    """One line of the table. `name` is that of its environment variable; the file's key is the
    same in small letters without `K2_`. `default` is text, as one would type it; an empty one
    means that nothing is set. In any value `{home}` stands for the home folder.
    """

    name: str
    kind: str
    unit: str
    default: str
    meaning: str

    @property
    def key(self) -> str:
        """Its key in the file."""
        return self.name.removeprefix("K2_").lower()


def _access(room: str, server: str) -> tuple[Setting, ...]:
    """How a server is signed in to: the same settings for each."""
    return tuple(
        Setting(f"K2_{room}_{name}", kind, "", default, meaning.format(server=server))
        for name, kind, default, meaning in (
            ("USERNAME", "text", "", "Who signs in to {server}; not set: nobody does."),
            ("PASSWORD", "secret", "", "The password for {server}; never printed."),
            ("PASSWORD_FILE", "file", "", "A file that holds the password for {server}."),
            ("TLS", "switch", "off", "Whether {server} is spoken to by TLS."),
            ("CA", "file", "", "PEM file of those who may vouch for {server}; means TLS."),
            ("CERTIFICATE", "file", "", "PEM file of K2's own certificate for {server}."),
            ("KEY", "file", "", "PEM file of the key of that certificate."),
        )
    )


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "K2_HOME",
        "folder",
        "",
        DEFAULT_HOME,
        "Folder of the embedded default: log, registry, tables and the settings file.",
    ),
    Setting("K2_LOG", "url", "", "sqlite:{home}/log.db", "The log that records go through."),
    *_access("LOG", "the log's server"),
    Setting(
        "K2_REGISTRY",
        "url",
        "",
        "embedded:{home}/registry.db",
        "The registry that keeps the schemas of the log's records.",
    ),
    *_access("REGISTRY", "the registry's server"),
    Setting("K2_LAKE", "folder", "", "{home}/lake", "Folder of the tables and their catalog."),
    Setting(
        "K2_LOG_PARTITIONS",
        "count",
        "",
        "1",
        "Partitions of a topic that is made; one that is there keeps its own.",
    ),
    Setting(
        "K2_LOG_RETENTION_DAYS",
        "days",
        "days",
        "90",
        "How long the log keeps records that are committed.",
    ),
    Setting(
        "K2_LOG_RETENTION_BYTES",
        "size",
        "bytes",
        "",
        "How much of committed records the log keeps at most; not set: no bound but age.",
    ),
    Setting(
        "K2_LOG_SPOOL_BYTES",
        "size",
        "bytes",
        "10GB",
        "How much of a feed's records may wait on disk while the log's server is away.",
    ),
    Setting(
        "K2_COMMIT_ROWS", "count", "rows", "500000", "A commit is made once it has as many rows."
    ),
    Setting(
        "K2_COMMIT_BYTES", "size", "bytes", "256MB", "A commit is made once it has as many bytes."
    ),
    Setting(
        "K2_COMMIT_INTERVAL_SECONDS",
        "seconds",
        "seconds",
        "1",
        "A commit is made at the latest after this time.",
    ),
    Setting(
        "K2_OVERLOAD_LAG",
        "counts",
        "records",
        "100000 500000 1000000 5000000",
        "Records behind the log's end at which a writer's levels SOFT, GRACEFUL, AGGRESSIVE and "
        "CIRCUIT_BREAK begin.",
    ),
    Setting(
        "K2_OVERLOAD_MEMORY",
        "percents",
        "percent",
        "70 80 90 95",
        "Share of K2_WRITER_MEMORY at which these levels begin.",
    ),
    Setting(
        "K2_OVERLOAD_DOWN_LAG",
        "percent",
        "percent",
        "50",
        "A level is left below this part of the lag that it begins at.",
    ),
    Setting(
        "K2_OVERLOAD_DOWN_MEMORY",
        "percent",
        "percent",
        "90",
        "A level is left below this part of the memory that it begins at.",
    ),
    Setting(
        "K2_OVERLOAD_CALM_SECONDS",
        "seconds",
        "seconds",
        "30",
        "How long it has to be below both without a break, before it is left for the next lower.",
    ),
    Setting(
        "K2_OVERLOAD_BREAK_SECONDS",
        "seconds",
        "seconds",
        "30",
        "How long CIRCUIT_BREAK lasts; then the backlog is shed, to be brought in later.",
    ),
    Setting(
        "K2_TIERS",
        "file",
        "",
        "{home}/tiers.toml",
        "Which symbols are shed last, such as `k2 tiers write` makes it; without the file, Bitcoin "
        "and Ether are.",
    ),
    Setting(
        "K2_RETENTION",
        "file",
        "",
        "{home}/retention.toml",
        "For how many exchange days trades and quotes are kept, by tier: see "
        "[retention](retention.md); without the file, forever.",
    ),
    Setting(
        "K2_WRITER_MEMORY",
        "size",
        "bytes",
        "",
        "Memory that a writer may use; not set: the limit of its control group, if it has one.",
    ),
    Setting(
        "K2_SNAPSHOTS_KEPT",
        "count",
        "",
        "100",
        "Iceberg snapshots kept of each table, for other engines; K2's time travel needs none.",
    ),
    Setting(
        "K2_MAINTAIN_SECONDS",
        "seconds",
        "seconds",
        "60",
        "How often `k2 up` looks whether small files of the tables are due to be merged.",
    ),
    Setting(
        "K2_REMOVE_AFTER_SECONDS",
        "seconds",
        "seconds",
        "3600",
        "How long a data file stays that no kept snapshot needs: no query may take longer.",
    ),
    Setting(
        "K2_CLOCK_SKEW_SECONDS",
        "seconds",
        "seconds",
        "300",
        "How far a record's timestamp may lie ahead of its ingestion; further on it is rejected.",
    ),
    Setting(
        "K2_GAP_SECONDS",
        "seconds",
        "seconds",
        "10",
        "How long numbers of a stream may be missing before the gap ledger has them.",
    ),
    Setting(
        "K2_FEEDS",
        "list",
        "",
        "",
        "URLs of the feeds that `k2 up` runs, with spaces between them (in the file: a list).",
    ),
    Setting("K2_WRITERS", "count", "", "1", "How many writers `k2 up` runs; they share the work."),
    Setting("K2_SERVE_HOST", "text", "", "127.0.0.1", "Address that the server listens at."),
    Setting("K2_SERVE_PORT", "port", "", "8642", "Port that the server listens at."),
    Setting(
        "K2_QUERY_TIMEOUT_SECONDS",
        "seconds",
        "seconds",
        "30",
        "A query that takes longer is stopped.",
    ),
    Setting(
        "K2_QUERY_MEMORY",
        "size",
        "bytes",
        "512MB",
        "Memory that queries may use together; beyond it they go to disk.",
    ),
    Setting(
        "K2_HOT_ROWS",
        "count",
        "rows",
        "200000",
        "How many of the newest trades, and quotes, of symbols that are asked for the server keeps "
        "in memory: some 500 bytes each.",
    ),
    Setting(
        "K2_ANSWERS_MEMORY",
        "size",
        "bytes",
        "64MB",
        "How much of what was asked the server keeps, to answer it again while no new record "
        "belongs to it; 0: nothing.",
    ),
    Setting(
        "K2_DECODED_BYTES",
        "size",
        "bytes",
        "512MB",
        "Disk that the server may use, in the home, for decoded copies of data files that are read "
        "again and again: some 130 bytes a row; 0: none.",
    ),
    Setting(
        "K2_SESSIONS",
        "file",
        "",
        "{home}/sessions.toml",
        "When exchanges trade, for `--session regular`: see [bars](bars.md).",
    ),
    Setting(
        "K2_LOGGING",
        "lines",
        "",
        "text",
        "What K2 tells on stderr: text for people, or json, an object a line, for machines.",
    ),
    Setting(
        "K2_TRACES",
        "url",
        "",
        "",
        "Where traces are sent, OTLP over HTTP: http://127.0.0.1:4318/v1/traces, say. Not set: "
        "nowhere.",
    ),
    Setting("K2_METRICS_HOST", "text", "", "127.0.0.1", "Address of the metrics' ports."),
    Setting(
        "K2_FEED_METRICS_PORT",
        "port",
        "",
        "",
        "Port of a feed's metrics; not set: none. `k2 up` counts it up from feed to feed.",
    ),
    Setting(
        "K2_INGEST_METRICS_PORT",
        "port",
        "",
        "",
        "Port of a writer's metrics; not set: none. `k2 up` counts it up from writer to writer.",
    ),
)
"""Every setting, in the order in which they are shown."""
