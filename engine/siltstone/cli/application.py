"""The command `siltstone`: its subcommands, and how every failure of it ends."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from typing import Any, NoReturn

import click

from siltstone.cli.dedup import dedup
from siltstone.cli.exits import EXIT_ERROR, EXIT_FINE, EXIT_INTERRUPTED, EXIT_PIPE
from siltstone.cli.journal import journal
from siltstone.cli.sizes import printable
from siltstone.cli.volume import export, format_volume, info, verify
from siltstone.errors import SiltstoneError

__all__ = ["main"]


class _Group(click.Group):
    """The commands, with one end for all their errors."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (SiltstoneError, OSError) as error:
            if context.params["debug"]:
                traceback.print_exc()
            return _end_with(error)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.option("--debug", is_flag=True, help="Show where in the code an error came from.")
@click.version_option(package_name="siltstone", message="siltstone %(version)s")
def siltstone(debug: bool) -> None:
    """Append-only journals and the dedup log store that they rebuild."""


for _command in (dedup, export, format_volume, info, journal, verify):
    siltstone.add_command(_command)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with one of the statuses of :mod:`siltstone.cli.exits`.

    :param arguments: those after the name of the program; None takes the process's own
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    for stream in streams:
        # A name that the terminal has no letters for is shown all the same.
        stream.reconfigure(errors="backslashreplace")
    status = _run(sys.argv[1:] if arguments is None else arguments)
    # What a buffer still holds is written here, where a reader that has gone away is no surprise.
    for stream in streams:
        try:
            stream.flush()
        except OSError as error:
            _silence(stream.fileno())
            if stream is sys.stdout and status == EXIT_FINE:
                status = _end_with(error)
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    try:
        result = siltstone.main(arguments, prog_name="siltstone", standalone_mode=False)
        return result if isinstance(result, int) else EXIT_FINE
    except click.ClickException as error:
        error.show()
        return EXIT_ERROR
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted")
        return EXIT_INTERRUPTED


def _end_with(error: SiltstoneError | OSError) -> int:
    """Say what went wrong, in one line; return the exit status for it."""
    if isinstance(error, BrokenPipeError):
        # Whoever read the output has what they wanted.
        _silence(sys.stdout.fileno())
        return EXIT_PIPE
    if isinstance(error, OSError):
        text = error.strerror or str(error)
        if error.filename is not None:
            text = f"{os.fsdecode(error.filename)}: {text}"
        if error.errno == errno.ENOSPC:
            text += "; free some space and run it again"
    else:
        text = str(error)
    _complain(f"error: {text}")
    return EXIT_ERROR


def _complain(text: str) -> None:
    # Where nobody reads this, the exit status has to do.
    with contextlib.suppress(OSError):
        click.echo(f"siltstone: {printable(' '.join(text.split()))}", err=True)


def _silence(descriptor: int) -> None:
    """Let what is still written to `descriptor` go nowhere, so that the flush at exit is quiet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
