"""All that can go wrong in a scene, one function a fault. Each draws its details from the scene's
chance, and arms a seam or does the harm itself.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa

from k2.chaos import ports
from k2.chaos.market import COUNTED, TOPICS, to_records
from k2.chaos.orphans import orphans
from k2.chaos.ports import FaultyLog
from k2.chaos.scene import PARTITIONS, READ, WRITERS, Scene
from k2.chaos.writing import DISK_FULL, KILLED, OVERTAKEN, STEPS, Seams
from k2.log import NOT_WIRE_FORMAT, Append
from k2.model import encode, versions

Trouble = Callable[[Scene], None]
_EVERYTHING: Final = ("ask", "read", "append", "put")
_ROOMS: Final = (0, 200, 2_000, 8_000, 30_000)
"""Bytes that a file may have on a full disk: nothing, a part of metadata, a part of a data file."""


def _any_seams(scene: Scene) -> Seams:
    """Of the feed, a writer or the server."""
    of = [scene.feed_seams, scene.server_seams, *map(scene.seams_of, range(WRITERS))]
    return scene.chance.choice(of)


def _writer(scene: Scene) -> int:
    return scene.chance.randrange(WRITERS)


def _told(scene: Scene, seam: str, kind: str) -> None:
    scene.world.tally[seam, kind] += 1


# ------------------------------------------------------------------------- log, registry


def log_away(scene: Scene) -> None:
    """For a few calls, then and again."""
    times, after = scene.chance.randrange(1, 5), scene.chance.randrange(8)
    _any_seams(scene).log.arm(ports.AWAY, _EVERYTHING, after=after, times=times)


def log_unreadable(scene: Scene) -> None:
    """Reads fail, or slow down to a batch each; a writer's may give nothing yet."""
    number, kind = _writer(scene), scene.chance.choice((ports.REFUSED, ports.SLOW, ports.FROZEN))
    # An answer needs all that the log has: there "nothing yet" would be a lie of the log.
    is_asked = kind != ports.FROZEN and scene.chance.random() < 0.3
    seam = (scene.server_seams if is_asked else scene.seams_of(number)).log
    times, after = scene.chance.randrange(1, 5), scene.chance.randrange(3)
    seam.arm(kind, ("read",), after=after, times=times)


def append_fails(scene: Scene) -> None:
    """Before, after, in part; the feed may end by it."""
    kind = scene.chance.choice(
        (
            *(ports.REFUSED, ports.ANSWER_LOST, ports.IN_PART),
            *(ports.KILLED_BEFORE, ports.KILLED_AFTER),
        )
    )
    scene.feed_seams.log.arm(kind, ("append",), after=scene.chance.randrange(3))


def position_not_kept(scene: Scene) -> None:
    """The feed's position is not stored, or it is and nobody says so."""
    kind = scene.chance.choice((ports.REFUSED, ports.ANSWER_LOST, ports.KILLED_BEFORE))
    scene.feed_seams.log.arm(kind, ("put",), after=scene.chance.randrange(2))


def registry_away(scene: Scene) -> None:
    """A schema cannot be looked up, or registered."""
    times = scene.chance.randrange(1, 4)
    _any_seams(scene).registry.arm(ports.AWAY, ("ask",), times=times)


def retention_ran_past(scene: Scene) -> None:
    """Somebody deletes from the log what is not committed."""
    if scene.plan.overloaded:
        return  # what was shed and deleted can never be brought in: then there is no end
    topic, log = str(TOPICS["trades"]), scene.world.log
    of = scene.lake.table("trades").snapshot().offsets.get(topic)
    for partition, committed in sorted(of.next_offset.items()) if of else ():
        end = log.end_offset(topic, partition)
        if committed < end:
            before = scene.chance.randrange(committed + 1, end + 1)
            if log.trim(topic, partition, before) > committed:
                _told(scene, "log", "retention ran past")


# ------------------------------------------------------------------------- feed


def venue_hangs_up(scene: Scene) -> None:
    """The feed opens its connection again, at its position."""
    after, times = scene.chance.randrange(3), scene.chance.randrange(1, 3)
    scene.feed_seams.feed.arm("interrupted", ("receive",), after=after, times=times)


def feed_begins_earlier(scene: Scene) -> None:
    """From an older position than the one that was stored last."""
    if scene.market.chunks:
        scene.rewind = scene.chance.randrange(1, 4)
        _told(scene, "feed", "restarted from an old position")


def venue_repeats(scene: Scene) -> None:
    """What was sent some time ago comes again."""
    if scene.market.chunks:
        scene.market.again(scene.chance.randrange(1, min(6, len(scene.market.chunks)) + 1))


def stranger_appends(scene: Scene) -> None:
    """Somebody else writes to the topic what is no record, or one of an older K2."""
    topic, (v1, v2) = TOPICS["trades"], versions("trades")
    partition = scene.chance.randrange(PARTITIONS)
    if str(topic) not in scene.world.log.topics():
        return
    symbol = scene.chance.choice(COUNTED)
    # Version 1 has no ids: never the same record as another.
    rows = [scene.market.nameless(symbol) for _ in range(scene.chance.randrange(1, 4))]
    old = encode(to_records("trades", rows, v1.arrow).table, v1)
    v1_id = scene.world.registry.register(topic.subject, v1.avro)
    v2_id = scene.world.registry.register(topic.subject, v2.avro)
    cut = pa.array([value[: len(value) // 2] for value in old.to_pylist()], pa.binary())
    what, schema_id, values = scene.chance.choice(
        (
            ("record of version 1", v1_id, old),
            ("torn record", v2_id, cut),
            ("unknown schema", 9_999, old),
            ("no wire format", NOT_WIRE_FORMAT, pa.array([b"\x07garbage"], pa.binary())),
        )
    )
    calm = Seams(scene.world.tally)
    log = FaultyLog(scene.world.log, calm.log, scene.world.journal.appended)
    log.append([Append(str(topic), partition, schema_id, values)])
    _told(scene, "feed", what)


# ------------------------------------------------------------------------- catalog


def catalog_away(scene: Scene) -> None:
    """Nobody says which snapshot is a table's newest."""
    after, times = scene.chance.randrange(10), scene.chance.randrange(1, 4)
    scene.seams_of(_writer(scene)).catalog.arm(ports.AWAY, ("look",), after=after, times=times)


def swap_fails(scene: Scene) -> None:
    """A commit is refused, answered by an error although it happened, or the writer ends there."""
    kind = scene.chance.choice(
        (
            *(ports.REFUSED, ports.ANSWER_LOST, ports.CUT_OFF),
            *(ports.KILLED_BEFORE, ports.KILLED_AFTER),
        )
    )
    seam = scene.seams_of(_writer(scene)).catalog
    seam.arm(kind, ("swap",), after=scene.chance.randrange(3))


def other_first(scene: Scene) -> None:
    """Another writer, a compaction or a cleaner is first, at the last moment."""
    seam = scene.seams_of(_writer(scene)).catalog
    seam.arm(ports.OTHER_FIRST, ("swap",), after=scene.chance.randrange(3))


# ------------------------------------------------------------------------- object files


def disk_full(scene: Scene) -> None:
    """For the files of one commit."""
    number = _writer(scene)
    if (process := scene.writer(number)) is not None:
        process.room = scene.chance.choice(_ROOMS)
        scene.seams_of(number).files.arm(DISK_FULL, (DISK_FULL,))


def orphans_torn(scene: Scene) -> None:
    """Of what dead writers left behind and no commit named, only the first halves are there."""
    found = [path for path in orphans(scene.lake) if str(path) not in scene.replaced]
    for path in found:
        os.truncate(path, path.stat().st_size // 2)
    if found:
        _told(scene, "object files", "torn file")


def marks_torn(scene: Scene) -> None:
    """The high-water marks beside a table are gone, or half of them are there."""
    tables = scene.world.folder / "lake" / "tables"
    found: list[Path] = sorted(tables.glob("*/marks/*"))
    if found:
        path = scene.chance.choice(found)
        if scene.chance.random() < 0.5:
            path.unlink()
        else:
            # As a crash leaves it: who has the whole one open keeps that.
            half = path.read_bytes()[: scene.chance.randrange(path.stat().st_size)]
            path.unlink()
            path.write_bytes(half)
        _told(scene, "object files", "marks torn")


def compacted(scene: Scene) -> None:
    """Files are put in the place of others under everybody's feet."""
    scene.compact(scene.chance.choice(READ))
    _told(scene, "object files", "compacted meanwhile")


def cleaned(scene: Scene) -> None:
    """Metadata that nothing names is deleted, however new."""
    scene.clean()
    _told(scene, "object files", "cleaned meanwhile")


# ------------------------------------------------------------------------- writer, server, clock


def killed_in_commit(scene: Scene) -> None:
    """At a step of it."""
    step, after = scene.chance.choice(STEPS), scene.chance.randrange(3)
    scene.seams_of(_writer(scene)).writer.arm(KILLED, (step,), after=after)


def killed_anywhere(scene: Scene) -> None:
    """Between two steps."""
    number = _writer(scene)
    if scene.writers[number] is not None:
        scene.kill(number)
        _told(scene, "writer", KILLED)


def frozen(scene: Scene) -> None:
    """Another takes its place; it will go on from where it was."""
    number = _writer(scene)
    if scene.writers[number] is not None:
        scene.freeze(number)
        _told(scene, "writer", "frozen, another in its place")


def frozen_in_commit(scene: Scene) -> None:
    """Between its files and their commit."""
    scene.seams_of(_writer(scene)).writer.arm(OVERTAKEN, ("commit",))


def woken(scene: Scene) -> None:
    """Frozen writers go on with what they knew."""
    if scene.sleepers:
        scene.wake()
        _told(scene, "writer", "woken")


def rebalanced(scene: Scene) -> None:
    """Each gets the partitions of another."""
    if scene.plan.shares:
        scene.rebalance()
        _told(scene, "writer", "partitions changed hands")


def flooded(scene: Scene) -> None:
    """More comes at once than writers keep up with."""
    if scene.plan.overloaded:
        scene.market.trade_on(scene.chance.randrange(100, 400))
        scene.feed()
        _told(scene, "writer", "overloaded")


def server_restarted(scene: Scene) -> None:
    """It must say the same as before."""
    scene.start_server()
    _told(scene, "server", "restarted")


def clock_steps(scene: Scene) -> None:
    """By minutes or days, forward or back."""
    hours = scene.chance.choice((-72, -5, -1, 0.1, 1, 30))
    scene.world.clock.step(timedelta(hours=hours))
    _told(scene, "clock", "stepped forward" if hours > 0 else "stepped back")


TROUBLES: Final[tuple[Trouble, ...]] = (
    *(log_away, log_unreadable, append_fails, position_not_kept, registry_away),
    *(retention_ran_past, venue_hangs_up, feed_begins_earlier, venue_repeats, stranger_appends),
    *(catalog_away, swap_fails, swap_fails, other_first, other_first),
    *(disk_full, orphans_torn, marks_torn, compacted, cleaned),
    *(killed_in_commit, killed_anywhere, frozen, frozen_in_commit, woken, rebalanced),
    *(flooded, flooded, server_restarted, clock_steps),
)
