"""The commands of `python -m snowplow_tracker`."""

import argparse
import sys
from typing import Callable, Optional, Sequence

from ._demo import demo

__all__ = ["main"]

_WRONG_USAGE = 2


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command that the arguments name.

    Args:
        arguments: Those of the command line by default.

    Returns:
        The exit code: the command's own, or 2 if none is named.
    """
    parser = _parser()
    command: Optional[Callable[[], int]] = parser.parse_args(arguments).command
    if command is None:
        parser.print_help()
        return _WRONG_USAGE
    return command()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m snowplow_tracker", description="Try out the Snowplow tracker that is installed here."
    )
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    commands.add_parser(
        "demo",
        help="track events to a collector on this machine, through an outage too, and show what arrives",
        description="Start a collector on 127.0.0.1, track one event of each type by POST, by GET, through an "
        "AsyncEmitter and through an outage, and print what arrived. Takes a few seconds, and uses no other network.",
        epilog="The exit code is 0 if each event that was tracked arrived, else 1.",
    ).set_defaults(command=demo)
    return parser


if __name__ == "__main__":
    sys.exit(main())
