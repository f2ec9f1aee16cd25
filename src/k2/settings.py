"""What can be set: one table of every setting, and where its value comes from.

Later sources win: default, then `<home>/k2.toml`, then the environment, then an option. Only the
entry points read these; everything inside takes plain arguments or one of the groups below.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from k2.errors import BadInput

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
        "K2_SNAPSHOTS_KEPT",
        "count",
        "",
        "100",
        "Iceberg snapshots kept of each table, for other engines; K2's time travel needs none.",
    ),
    Setting(
        "K2_CLOCK_SKEW_SECONDS",
        "seconds",
        "seconds",
        "300",
        "How far a record's timestamp may lie ahead of its ingestion; further on it is rejected.",
    ),
    Setting(
        "K2_FEEDS",
        "list",
        "",
        "",
        "URLs of the feeds that `k2 up` runs, with spaces between them (in the file: a list).",
    ),
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
)
"""Every setting, in the order in which they are shown."""


@dataclass(frozen=True)
class Value:
    """A setting as it is: its value (None: not set), as text, and the source that it comes from.

    The text of a secret says only that it is set.
    """

    setting: Setting
    value: Any = field(repr=False)
    text: str
    source: str


@dataclass(frozen=True)
class AccessSettings:
    """How a server is signed in to, and how the two trust each other."""

    username: str | None
    password: str | None = field(repr=False)
    password_file: Path | None
    tls: bool
    ca: Path | None
    certificate: Path | None
    key: Path | None


@dataclass(frozen=True)
class LogSettings:
    """Log and registry by URL and how they are signed in to, partitions of a new topic, what is
    kept of what is committed, and how much may wait for the log's server.
    """

    url: str
    access: AccessSettings
    registry: str
    registry_access: AccessSettings
    partitions: int
    retention: timedelta
    retention_bytes: int | None
    spool_bytes: int


@dataclass(frozen=True)
class LakeSettings:
    """Folder of the tables, and how many snapshots of each are kept."""

    folder: Path
    snapshots_kept: int


@dataclass(frozen=True)
class CommitSettings:
    """When a commit is made: at so many rows, bytes or after such a time, whichever is first."""

    rows: int
    bytes: int
    interval: timedelta


@dataclass(frozen=True)
class ServeSettings:
    """Where the server listens."""

    host: str
    port: int


@dataclass(frozen=True)
class QuerySettings:
    """What a query may take: time, and bytes of memory."""

    timeout: timedelta
    memory: int


@dataclass(frozen=True)
class Settings:
    """All settings. `values` has them as they are shown, the rest as they are used."""

    home: Path
    log: LogSettings
    lake: LakeSettings
    commit: CommitSettings
    clock_skew: timedelta
    feeds: tuple[str, ...]
    serve: ServeSettings
    query: QuerySettings
    values: tuple[Value, ...]


def load_settings(home: Path | None, environment: Mapping[str, str]) -> Settings:
    """Read the settings of `home` (None: as the environment or the default says).

    Raises `BadInput` for an unknown key, naming the nearest, and for a value that cannot be.
    """
    if home is not None:
        found = Value(SETTINGS[0], home, str(home), "option --home")
    else:
        found = _value(SETTINGS[0], Path(DEFAULT_HOME), {}, environment)
    file = _read_file(found.value / FILE_NAME)
    values = [found, *(_value(s, found.value, file, environment) for s in SETTINGS[1:])]
    return _grouped({value.setting.name: value.value for value in values}, tuple(values))


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Variables that begin with `K2_` and set nothing, each with the nearest name that does.

    Names beginning with `K2_TEST_` belong to the tests and are left out.
    """
    names = [setting.name for setting in SETTINGS]
    strangers = sorted(
        name
        for name in environment
        if name.startswith("K2_") and not name.startswith("K2_TEST_") and name not in names
    )
    return {name: _nearest(name, names) for name in strangers}


def _grouped(of: Mapping[str, Any], values: tuple[Value, ...]) -> Settings:
    return Settings(
        home=of["K2_HOME"],
        log=LogSettings(
            url=of["K2_LOG"],
            access=_access_of(of, "K2_LOG"),
            registry=of["K2_REGISTRY"],
            registry_access=_access_of(of, "K2_REGISTRY"),
            partitions=of["K2_LOG_PARTITIONS"],
            retention=of["K2_LOG_RETENTION_DAYS"],
            retention_bytes=of["K2_LOG_RETENTION_BYTES"],
            spool_bytes=of["K2_LOG_SPOOL_BYTES"],
        ),
        lake=LakeSettings(folder=of["K2_LAKE"], snapshots_kept=of["K2_SNAPSHOTS_KEPT"]),
        commit=CommitSettings(
            rows=of["K2_COMMIT_ROWS"],
            bytes=of["K2_COMMIT_BYTES"],
            interval=of["K2_COMMIT_INTERVAL_SECONDS"],
        ),
        clock_skew=of["K2_CLOCK_SKEW_SECONDS"],
        feeds=of["K2_FEEDS"] or (),
        serve=ServeSettings(host=of["K2_SERVE_HOST"], port=of["K2_SERVE_PORT"]),
        query=QuerySettings(
            timeout=of["K2_QUERY_TIMEOUT_SECONDS"],
            memory=of["K2_QUERY_MEMORY"],
        ),
        values=values,
    )


def _access_of(of: Mapping[str, Any], server: str) -> AccessSettings:
    return AccessSettings(
        username=of[f"{server}_USERNAME"],
        password=of[f"{server}_PASSWORD"],
        password_file=of[f"{server}_PASSWORD_FILE"],
        tls=of[f"{server}_TLS"],
        ca=of[f"{server}_CA"],
        certificate=of[f"{server}_CERTIFICATE"],
        key=of[f"{server}_KEY"],
    )


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"this is no TOML: {error}", place=str(path)) from error
    keys = [setting.key for setting in SETTINGS[1:]]
    for key in found:
        if key == SETTINGS[0].key:
            raise BadInput(
                "the file cannot say where the home folder is, since it lies in it",
                place=f"{path}: {key}",
                hint="use --home or K2_HOME",
            )
        if key not in keys:
            nearest = _nearest(key, keys)
            raise BadInput(
                f"there is no setting {key!r}",
                place=str(path),
                expected=f"{nearest}, perhaps" if nearest else None,
                hint="`k2 settings` lists them all",
            )
    return found


def _nearest(name: str, names: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, 1, 0.5)), None)


def _value(
    setting: Setting, home: Path, file: Mapping[str, Any], environment: Mapping[str, str]
) -> Value:
    if setting.name in environment:
        given, source = environment[setting.name], f"environment {setting.name}"
    elif setting.key in file:
        given, source = _file_text(file[setting.key]), f"file {home / FILE_NAME}"
    else:
        given, source = setting.default, "default"
    if setting.kind != "secret":
        given = given.strip().replace("{home}", str(home))
    if not given:
        if setting.default and setting.kind != "list":
            raise _unfit(setting, given, source)
        return Value(setting, None, "", source)
    try:
        value = _KINDS[setting.kind].read(given)
    except (ValueError, KeyError) as error:
        raise _unfit(setting, given, source) from error
    return Value(setting, value, "set" if setting.kind == "secret" else given, source)


def _file_text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _unfit(setting: Setting, given: str, source: str) -> BadInput:
    return BadInput(
        f"{given!r} cannot be the value of {setting.key}",
        place=source,
        expected=_KINDS[setting.kind].expected,
        hint=setting.meaning,
    )


def _read_count(text: str) -> int:
    count = int(text) if re.fullmatch(r"[0-9_]{1,18}", text) else 0
    if count < 1:
        raise ValueError(text)
    return count


def _read_days(text: str) -> timedelta:
    days = _read_count(text)
    if days > 36_500:
        raise ValueError(text)
    return timedelta(days=days)


def _read_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65_535:
        raise ValueError(text)
    return int(text)


def _read_size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})\s*(|[KMGT]i?)B?", text, re.IGNORECASE)
    if match is None:
        raise ValueError(text)
    prefix = match[2].upper()
    step = 1024 if prefix.endswith("I") else 1000
    return int(match[1]) * step ** (" KMGT".index(prefix[0]) if prefix else 0)


def _read_seconds(text: str) -> timedelta:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
        raise ValueError(text)
    return timedelta(seconds=float(text))


def _read_switch(text: str) -> bool:
    # A TOML file says true or false.
    return {"on": True, "true": True, "off": False, "false": False}[text.lower()]


@dataclass(frozen=True)
class _Kind:
    read: Callable[[str], Any]
    expected: str


_KINDS: Final[Mapping[str, _Kind]] = {
    "folder": _Kind(Path, "the path of a folder"),
    "url": _Kind(str, "a URL such as sqlite:/data/log.db"),
    "text": _Kind(str, "text"),
    "secret": _Kind(str, "text"),
    "file": _Kind(Path, "the path of a file"),
    "switch": _Kind(_read_switch, "on or off"),
    "list": _Kind(lambda text: tuple(text.split()), "values with spaces between them"),
    "count": _Kind(_read_count, "a whole number from 1, such as 100"),
    "days": _Kind(_read_days, "a whole number of days, from 1 to 36500"),
    "port": _Kind(_read_port, "a number from 0 (any port that is free) to 65535"),
    "size": _Kind(_read_size, "a number of bytes, such as 1000000, 512MB or 2GiB"),
    "seconds": _Kind(_read_seconds, "a number of seconds, such as 1 or 0.25"),
}
