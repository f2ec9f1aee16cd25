"""Retention as `k2 maintain` sees to it: the files that say what is kept, and what is told then."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from k2.settings import Settings

if TYPE_CHECKING:
    from k2.cli.stores import Stores
    from k2.ingest.keep import Keep
    from k2.ingest.tiers import Tiers
    from k2.lake import Lot, Retired


class Retention:
    """What the files say, read at each pass. It remembers which data files have nothing to go."""

    def __init__(self, settings: Settings) -> None:
        self._keep = settings.lake.retention
        self._tiers = settings.overload.tiers
        self._seen: dict[str, dict[str, Hashable]] = defaultdict(dict)

    def read(self) -> "Keep":
        """The rules as they are now. Raises `BadInput` for a file that cannot be meant."""
        from k2.ingest.keep import read_keep

        return read_keep(self._keep)

    def run(
        self,
        stores: "Stores",
        name: str,
        *,
        dry_run: bool = False,
        may_go_on: Callable[[], bool],
    ) -> "Retired | None":
        """Take out of a table what is not kept; None where no rule is for its records. Raises
        `BadInput` as `read` does, and for a file of tiers that cannot be read.
        """
        from k2.ingest.judging import retire_due

        keep = self.read()
        if not keep.retires(name):
            return None
        return retire_due(
            stores.lake,
            name,
            keep,
            self._read_tiers(),
            datetime.now(UTC),
            seen=self._seen[name],
            dry_run=dry_run,
            may_go_on=may_go_on,
        )

    def _read_tiers(self) -> "Tiers":
        from k2.ingest.tiers import BUILT_IN, read_tiers, to_tiers

        return read_tiers(self._tiers) if self._tiers.exists() else to_tiers(BUILT_IN, "built in")


def to_document(of: "Retired | None") -> dict[str, Any]:
    """What was retired of a table, as JSON has it."""
    if of is None:
        return {"rows": 0, "files": 0, "bytes": 0, "commits": 0, "lots": [], "held": []}
    found: dict[str, Any] = {
        "rows": of.rows,
        "files": of.files,
        "bytes": of.bytes,
        "commits": of.commits,
        "lots": [_lot(lot) for lot in of.lots],
        "held": [_lot(lot) for lot in of.held],
    }
    if of.doubtful:
        found["doubtful_days"] = of.doubtful
    return found


def _lot(lot: "Lot") -> dict[str, Any]:
    found = asdict(lot)
    days = {name: found[name].isoformat() for name in ("first_day", "last_day")}
    return {**found, **days, "pins": list(lot.pins)}


def sentences(of: "Retired", *, dry_run: bool) -> Iterator[str]:
    """The same in words, a line for each tier of an exchange."""
    for lot in of.lots:
        done = "would be retired" if dry_run else "are retired"
        yield f"{of.table}: {_spell(lot)} {done}, by {lot.rule}"
    for lot in of.held:
        yield f"{of.table}: {_spell(lot)} stay, held by {', '.join(lot.pins)}"
    if of.doubtful:
        yield (
            f"{of.table}: {of.doubtful:,} days stay, since another engine has rewritten their "
            "files: `k2 rebuild` makes these again"
        )


def _spell(lot: "Lot") -> str:
    days = str(lot.first_day)
    if lot.days > 1:
        days = f"{lot.days:,} days from {days} to {lot.last_day}"
    return f"{lot.rows:,} of {lot.exchange}, tier {lot.tier}, {lot.symbols:,} symbols, {days}"
