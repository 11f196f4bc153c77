"""The commands of `snowplow-tracker`, which is the same as `python -m snowplow_tracker`."""

import argparse
import errno
import io
import os
import sys
from typing import Optional, Sequence

from .._version import __version__
from . import demo, forward, micro, send, track
from .exit_codes import FAILURE, INTERRUPTED, WRONG_USAGE
from .usage import UsageError, complain

__all__ = ["main"]


def main(arguments: Optional[Sequence[str]] = None, prog: Optional[str] = None) -> int:
    """Run the command that the arguments name.

    Args:
        arguments: Those of the command line by default.
        prog: How the help calls the program; by default by the name that it was started by.

    Returns:
        The exit code: the command's own, 2 if none is named, 130 if Ctrl-C ended it, 1 if nobody reads its output, or
        the disk has no room for it.

    Raises:
        SystemExit: If the arguments are wrong, or ask for help.
    """
    _print_whatever_it_is()
    parser = _parser(prog)
    options = parser.parse_args(arguments)
    if options.command is None:
        options.parser.print_help()
        return WRONG_USAGE
    try:
        exit_code: int = options.command(options)
        print(end="", flush=True)
    except UsageError as error:
        options.parser.error(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        _print_nothing_more()
        if error.errno == errno.ENOSPC:
            complain(f"the output cannot be written: {error.strerror}")
        return FAILURE
    return exit_code


def _parser(prog: Optional[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Try out, watch and feed Snowplow tracking from the command line.",
        epilog="COMMAND --help tells all about a command.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=None, parser=parser)
    parser.add_argument("--version", action="version", version=f"snowplow-tracker {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (demo, micro, track, send, forward):
        command.add_to(commands)
    return parser


def _print_whatever_it_is() -> None:
    """Have characters that the terminal does not know printed as their codes, instead of an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _print_nothing_more() -> None:
    """Let go of an output that nobody reads, or else the interpreter would complain of it at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
