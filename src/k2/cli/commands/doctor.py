"""What is reachable and healthy, and what to do about what is not."""

import os
import platform
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Final, NamedTuple

import click

from k2.cli.machine import url_of
from k2.cli.options import output_options, settings_option
from k2.cli.show import Output
from k2.cli.stores import access_of
from k2.errors import K2Error
from k2.settings import Settings

_SCARCE_BYTES: Final = 1_000_000_000
_SKEW_SECONDS: Final = 2.0
"""Venues tell their time in whole seconds here: less cannot be told apart from none."""
_OK, _PROBLEM, _ABSENT = "ok", "problem", "absent"


class _Finding(NamedTuple):
    state: str
    found: str
    hint: str | None = None


_Check = Callable[[Settings], _Finding]


@click.command("doctor")
@output_options
@settings_option
def command(settings: Settings, output: Output) -> int:
    """Look at every part of this home, and say what is wrong with it.

    Ends with 1 if anything is. What does not run or is not there yet is no problem. A server that
    cannot be used is named with the reason and the next step; of the venues that the feeds of
    K2_FEEDS follow, the clocks are compared with ours.
    """
    import pyarrow as pa

    from k2.cli.progress import bar
    from k2.query import Answer

    checks: dict[str, _Check] = {
        "k2": _k2,
        "home": _home,
        "log": _log,
        "registry": _registry,
        "lake": _lake,
        "writer": _writer,
        "server": _server,
        **{f"feed {url}": partial(_feed, url) for url in settings.feeds},
    }
    findings: list[_Finding] = []
    with bar("looking") as shown:
        for name, check in checks.items():
            shown.tell(len(findings), len(checks), name)
            findings.append(_checked(check, settings))
    columns = {
        "part": list(checks),
        "state": [finding.state for finding in findings],
        "found": [finding.found for finding in findings],
        "hint": [finding.hint for finding in findings],
    }
    table = pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))
    colours = {_OK: "green", _PROBLEM: "red"}
    output.write(
        Answer(table, {"rows": len(findings)}), style=lambda row: colours.get(row["state"])
    )
    return 1 if any(finding.state == _PROBLEM for finding in findings) else 0


def _checked(check: _Check, settings: Settings) -> _Finding:
    try:
        return check(settings)
    except K2Error as error:
        return _Finding(_PROBLEM, str(error), error.hint)


def _k2(settings: Settings) -> _Finding:
    return _Finding(_OK, f"{version('k2-lakehouse')}, Python {platform.python_version()}")


def _home(settings: Settings) -> _Finding:
    if not settings.home.is_dir():
        return _Finding(_ABSENT, str(settings.home), "`k2 load` and `k2 demo` make one")
    if not os.access(settings.home, os.W_OK | os.X_OK):
        return _Finding(_PROBLEM, f"{settings.home} cannot be written to", "mend its permissions")
    free = shutil.disk_usage(settings.home).free
    found = f"{settings.home}, {free / 1e9:,.1f} GB free"
    if free < _SCARCE_BYTES:
        return _Finding(_PROBLEM, found, "make room: commits need space for new files")
    return _Finding(_OK, found)


def _log(settings: Settings) -> _Finding:
    from k2.log import open_log

    if _is_not_there(settings.log.url, settings):
        return _Finding(_ABSENT, settings.log.url)
    with closing(open_log(settings.log.url, access_of(settings.log.access))) as log:
        places = [(topic, n) for topic, count in log.topics().items() for n in range(count)]
        records = sum(log.end_offset(*place) - log.start_offset(*place) for place in places)
        size = sum(log.size(*place) for place in places)
    return _Finding(_OK, f"{len(places)} partitions, {records:,} records in {size / 1e6:,.1f} MB")


def _is_not_there(url: str, settings: Settings) -> bool:
    """Whether it lies in a home folder that nobody made yet."""
    return not settings.home.is_dir() and str(settings.home) in url


def _registry(settings: Settings) -> _Finding:
    from k2.log import open_registry

    if _is_not_there(settings.log.registry, settings):
        return _Finding(_ABSENT, settings.log.registry)
    access = access_of(settings.log.registry_access)
    with closing(open_registry(settings.log.registry, access)) as registry:
        return _Finding(_OK, f"{len(registry.subjects())} subjects")


def _lake(settings: Settings) -> _Finding:
    from k2.lake import open_lake

    if not settings.lake.folder.is_dir():
        return _Finding(_ABSENT, str(settings.lake.folder), "the first commit makes it")
    if not os.access(settings.lake.folder, os.W_OK | os.X_OK):
        found = f"{settings.lake.folder} cannot be written to"
        return _Finding(_PROBLEM, found, "mend its permissions, or name another in K2_LAKE")
    with closing(open_lake(settings.lake.folder, read_only=True)) as lake:
        snapshots = {name: lake.table(name).snapshot() for name in lake.tables()}
    newest = max((s.committed_at for s in snapshots.values() if s.sequence), default=None)
    when = f"newest commit {newest:%Y-%m-%d %H:%M:%S} UTC" if newest else "no commit yet"
    return _Finding(_OK, f"{len(snapshots)} tables, {when}")


def _writer(settings: Settings) -> _Finding:
    from k2.ingest import writing

    if not settings.lake.folder.is_dir():
        return _Finding(_ABSENT, "not running")
    with writing(settings.lake.folder) as free:
        if free:
            return _Finding(_ABSENT, "not running", "`k2 ingest` or `k2 up` runs one")
    return _Finding(_OK, "running")


def _feed(url: str, settings: Settings) -> _Finding:
    from k2.feeds import open_feed
    from k2.feeds.live.look import ask_skew, reach

    with closing(open_feed(url, None, _now)) as feed:
        # Only live feeds have these.
        rest, sockets = getattr(feed, "rest", None), getattr(feed, "sockets", ())
    if rest is None:
        return _Finding(_OK, "can be opened")
    skew = ask_skew(rest, _now)
    for socket in sockets:
        reach(socket)
    if abs(skew) > _SKEW_SECONDS:
        where = "ahead of" if skew > 0 else "behind"
        found = f"our clock is {abs(skew):,.0f} s {where} that of {rest}"
        return _Finding(_PROBLEM, found, "let this machine set its clock by NTP")
    return _Finding(_OK, f"{rest} answers, and its clock agrees with ours")


def _now() -> datetime:
    return datetime.now(UTC)


def _server(settings: Settings) -> _Finding:
    url = url_of(settings.serve.host, settings.serve.port)
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=5):
            return _Finding(_OK, url)
    except urllib.error.HTTPError as error:
        return _Finding(_PROBLEM, f"{url} answers {error.code}", "its log says why")
    except (urllib.error.URLError, OSError):
        return _Finding(_ABSENT, f"nothing listens at {url}", "`k2 serve` or `k2 up` runs one")
