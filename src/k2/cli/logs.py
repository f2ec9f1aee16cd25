"""What K2 tells of itself while it runs: lines for people, or a JSON object a line for machines."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

import click

from k2.errors import K2Error, fields_of

JSON: Final = "json"
_TEXT: Final = "%(asctime)s %(levelname)s %(message)s"
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one JSON object: `time` (UTC), `level`, `logger`, `message`, `process`; what was
    given as `extra`; of an error of K2 its fields (`code`, `place`, `found`, `expected`, `hint`),
    of any other its `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The object, without a line end."""
        when = datetime.fromtimestamp(record.created, UTC)
        told: dict[str, Any] = {
            "time": when.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": record.levelname,
            "logger": record.name,
            "message": click.unstyle(record.getMessage()),
            "process": record.process,
        }
        told |= {k: v for k, v in vars(record).items() if k not in _STANDARD}
        for each in record.args if isinstance(record.args, tuple) else ():
            if isinstance(each, K2Error):
                told["error"] = fields_of(each)
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str, ensure_ascii=False)


def set_up_logs(lines: str = "text", level: int | None = None) -> None:
    """Have logs go to stderr as `lines` says (text or json), from `level` on (None: as before)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if lines == JSON else logging.Formatter(_TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def is_json() -> bool:
    """Whether logs are JSON."""
    return any(isinstance(each.formatter, JsonLines) for each in logging.getLogger().handlers)


def tell_json(text: str, **more: object) -> None:
    """Tell something on stderr as a line of the log, whatever the level of logs is.

    A `text` that is such a line itself, of another process, stays what it is; `more` is added.
    """
    try:
        told = json.loads(text)
    except json.JSONDecodeError:
        told = None
    if not isinstance(told, dict) or "message" not in told:
        record = logging.getLogger("k2").makeRecord("k2", logging.INFO, "", 0, text, (), None)
        told = json.loads(JsonLines().format(record))
    click.echo(json.dumps(told | more, default=str, ensure_ascii=False), err=True)
