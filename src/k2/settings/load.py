"""Where the settings' values come from, and the groups that they are used in."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from k2.errors import BadInput
from k2.settings.kinds import KINDS
from k2.settings.table import DEFAULT_HOME, FILE_NAME, SETTINGS, Setting


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
    """Folder of the tables, how many snapshots of each are kept, how often tables are maintained,
    how long a file stays that nothing needs, and the file that says for how long rows are kept.
    """

    folder: Path
    snapshots_kept: int
    maintain_every: timedelta
    remove_after: timedelta
    retention: Path


@dataclass(frozen=True)
class CommitSettings:
    """When a commit is made: at so many rows, bytes or after such a time, whichever is first."""

    rows: int
    bytes: int
    interval: timedelta


@dataclass(frozen=True)
class OverloadSettings:
    """When a writer steps back: lag in records and memory as a share, at which each of its four
    levels begins; parts of these below which one is left, and for how long; the file of tiers, and
    the memory (bytes; None: as the control group says).
    """

    lag: tuple[int, ...]
    memory: tuple[float, ...]
    lag_down: float
    memory_down: float
    calm: timedelta
    break_: timedelta
    tiers: Path
    memory_bytes: int | None


@dataclass(frozen=True)
class ServeSettings:
    """Where the server listens."""

    host: str
    port: int


@dataclass(frozen=True)
class QuerySettings:
    """What a query may take: time, and bytes of memory; rows and bytes of copies that the server
    keeps at hand; and the file of sessions.
    """

    timeout: timedelta
    memory: int
    hot_rows: int
    answers: int
    decoded_bytes: int
    sessions: Path


@dataclass(frozen=True)
class MetricsSettings:
    """Where feeds and writers serve their metrics; a port of None: not at all, 0: any."""

    host: str
    feed_port: int | None
    ingest_port: int | None


@dataclass(frozen=True)
class Settings:
    """All settings. `values` has them as they are shown, the rest as they are used."""

    home: Path
    log: LogSettings
    lake: LakeSettings
    commit: CommitSettings
    overload: OverloadSettings
    clock_skew: timedelta
    gap_grace: timedelta
    feeds: tuple[str, ...]
    writers: int
    serve: ServeSettings
    query: QuerySettings
    logging: str
    traces: str | None
    metrics: MetricsSettings
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
        lake=LakeSettings(
            folder=of["K2_LAKE"],
            snapshots_kept=of["K2_SNAPSHOTS_KEPT"],
            maintain_every=of["K2_MAINTAIN_SECONDS"],
            remove_after=of["K2_REMOVE_AFTER_SECONDS"],
            retention=of["K2_RETENTION"],
        ),
        commit=CommitSettings(
            rows=of["K2_COMMIT_ROWS"],
            bytes=of["K2_COMMIT_BYTES"],
            interval=of["K2_COMMIT_INTERVAL_SECONDS"],
        ),
        overload=OverloadSettings(
            lag=of["K2_OVERLOAD_LAG"],
            memory=of["K2_OVERLOAD_MEMORY"],
            lag_down=of["K2_OVERLOAD_DOWN_LAG"],
            memory_down=of["K2_OVERLOAD_DOWN_MEMORY"],
            calm=of["K2_OVERLOAD_CALM_SECONDS"],
            break_=of["K2_OVERLOAD_BREAK_SECONDS"],
            tiers=of["K2_TIERS"],
            memory_bytes=of["K2_WRITER_MEMORY"],
        ),
        clock_skew=of["K2_CLOCK_SKEW_SECONDS"],
        gap_grace=of["K2_GAP_SECONDS"],
        feeds=of["K2_FEEDS"] or (),
        writers=of["K2_WRITERS"],
        serve=ServeSettings(host=of["K2_SERVE_HOST"], port=of["K2_SERVE_PORT"]),
        query=QuerySettings(
            timeout=of["K2_QUERY_TIMEOUT_SECONDS"],
            memory=of["K2_QUERY_MEMORY"],
            hot_rows=of["K2_HOT_ROWS"],
            answers=of["K2_ANSWERS_MEMORY"],
            decoded_bytes=of["K2_DECODED_BYTES"],
            sessions=of["K2_SESSIONS"],
        ),
        logging=of["K2_LOGGING"],
        traces=of["K2_TRACES"],
        metrics=MetricsSettings(
            host=of["K2_METRICS_HOST"],
            feed_port=of["K2_FEED_METRICS_PORT"],
            ingest_port=of["K2_INGEST_METRICS_PORT"],
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
        value = KINDS[setting.kind].read(given)
    except (ValueError, KeyError) as error:
        raise _unfit(setting, given, source) from error
    return Value(setting, value, "set" if setting.kind == "secret" else given, source)


def _file_text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _unfit(setting: Setting, given: str, source: str) -> BadInput:
    return BadInput(
        f"{given!r} cannot be the value of {setting.key}",
        place=source,
        expected=KINDS[setting.kind].expected,
        hint=setting.meaning,
    )
