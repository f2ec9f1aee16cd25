"""The command `k2`: finds the command by its file, and tells errors in a way that helps.

Exit codes: 0 done, 1 found a problem, 2 wrong usage, 3 unavailable.
"""

import ast
import atexit
import gc
import importlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from k2.cli.logs import set_up_logs
from k2.errors import BadInput, Conflict, K2Error, Refused, Unavailable, fields_of
from k2.memory import choose_allocator

COMMANDS: Final = "k2.cli.commands"
INTERRUPTED: Final = 130
"""What a shell sees of a process that Ctrl-C ended (128 + SIGINT)."""


class _ReaderGone(Exception):
    """Whoever read stdout has closed it."""


class _CommandFiles(click.Group):
    """A group whose commands are the files of a folder, each imported only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return command_names()

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # Click would take it for a failure and end with 1.
            raise _ReaderGone from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, first_line(name)) for name in command_names()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in command_names():
            return None
        module = importlib.import_module(f"{COMMANDS}.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command


def command_names() -> list[str]:
    """Names of all commands, sorted."""
    return sorted(
        path.stem
        for path in (Path(__file__).parent / "commands").glob("*.py")
        if not path.stem.startswith("_")
    )


def first_line(name: str) -> str:
    """What a command does, from its file's docstring, which is read without importing it."""
    source = (Path(__file__).parent / "commands" / f"{name}.py").read_text("utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


@click.group(
    cls=_CommandFiles,
    epilog="`k2 demo` shows all of it; `k2 COMMAND --help` tells more of one command.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    help="Folder of log, tables and settings (K2_HOME; ./k2-home).",
)
@click.option("--debug", is_flag=True, help="Tell more on stderr: where an error comes from.")
@click.option("--end-with", type=int, hidden=True, help="Pid of the parent to end with.")
@click.pass_context
def cli(context: click.Context, home: Path | None, debug: bool, end_with: int | None) -> None:
    """Every trade and quote, kept for good in open tables and answered in milliseconds."""
    context.obj = home
    set_up_logs(level=logging.INFO if debug else logging.WARNING)
    if end_with is not None:
        from k2.cli.supervise import end_with_parent

        end_with_parent(end_with)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (`arguments` default to those of the process) and exit."""
    choose_allocator()
    code = run(sys.argv[1:] if arguments is None else arguments)
    if code:
        # An error's frames may still hold the engine: at its very end the interpreter would print
        # forty lines about leaks, below the message that counts.
        gc.collect()
        sys.stderr.flush()
        atexit.register(_hush)
    sys.exit(code)


def _hush() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are told on stderr."""
    try:
        # Click's own handling would end foreign errors in a traceback.
        code = cli.main(list(arguments), prog_name="k2", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, _ReaderGone):
        _forget_stdout()
        return 0
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _tell(_from_click(error), arguments)
    except K2Error as error:
        return _tell(error, arguments)
    except OSError as error:
        return _tell(_from_system(error), arguments)
    except Exception as error:  # noqa: BLE001 - the outermost loop: nobody else would tell it
        return _tell_unforeseen(error, arguments)
    return code if isinstance(code, int) else 0


def exit_code(error: K2Error) -> int:
    """1 found a problem, 2 wrong usage, 3 unavailable."""
    if isinstance(error, BadInput):
        return 2
    if isinstance(error, Unavailable | Conflict):
        return 3
    return 1


def to_lines(error: K2Error) -> list[str]:
    """The error as people read it: what and where, what was expected, what to do."""
    lines = [f"k2: {error}"]
    if error.expected:
        lines.append(f"    expected {error.expected}")
    if error.hint:
        lines.extend(f"    {line}" for line in error.hint.splitlines())
    if isinstance(error, Unavailable) and error.retry_after:
        lines.append(f"    try again in {error.retry_after:g} s")
    return lines


def _tell(error: K2Error, arguments: Sequence[str]) -> int:
    if _wants_debug(arguments):
        traceback.print_exception(error, file=sys.stderr)
    if "--json" in arguments:
        # A script that reads stdout finds the envelope that HTTP would answer.
        click.echo(json.dumps({"success": False, "error": fields_of(error), "meta": {}}))
    first, *others = to_lines(error)
    click.secho(first, err=True, fg="red")
    for line in others:
        click.echo(line, err=True)
    return exit_code(error)


def _tell_unforeseen(error: Exception, arguments: Sequence[str]) -> int:
    if _wants_debug(arguments):
        traceback.print_exception(error, file=sys.stderr)
    click.secho(f"k2: a fault of K2 itself: {type(error).__name__}: {error}", err=True, fg="red")
    click.echo("    k2 --debug and the same command shows where it comes from", err=True)
    return 1


def _wants_debug(arguments: Sequence[str]) -> bool:
    return "--debug" in arguments


def _from_click(error: click.ClickException) -> K2Error:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "k2"
    message = error.format_message().rstrip(".")
    return BadInput(message[:1].lower() + message[1:], hint=f"{path} --help tells what it takes")


def _from_system(error: OSError) -> K2Error:
    """What the operating system refused, as an error with a place."""
    place = str(error.filename) if error.filename else None
    message = error.strerror or str(error)
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return BadInput(message, place=place)
    if isinstance(error, PermissionError):
        return Refused(message, place=place)
    return Unavailable(message, place=place)


def _forget_stdout() -> None:
    # The reader has gone (`| head`). What Python still holds for it would fail again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
