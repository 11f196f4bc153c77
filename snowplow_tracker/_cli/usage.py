"""What the commands have in common: how they describe themselves, and what they say of wrong usage."""

import argparse
import os
import sys
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

from ..typing import EmitterStats

__all__ = ["UsageError", "add_command", "add_endpoint_options", "complain", "endpoint_of", "failure_reason"]

_ENDPOINT_VARIABLE = "SNOWPLOW_ENDPOINT"

_Command = Callable[[argparse.Namespace], int]


class UsageError(Exception):
    """The arguments are wrong in a way that argparse cannot see."""


def add_command(
    commands: Any, name: str, summary: str, description: str, epilog: str, command: Optional[_Command] = None
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: What `add_subparsers` returned.
        name: Its name.
        summary: A line for the list of the commands.
        description: Stands at the top of its help, as it is.
        epilog: Stands at the end of it, as it is.
        command: Called with the arguments; returns the exit code.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # The abbreviation of an option changes its meaning when another is added.
        allow_abbrev=False,
    )
    parser.set_defaults(command=command, parser=parser)
    return parser


def add_endpoint_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the collector is."""
    group = parser.add_argument_group("the collector")
    group.add_argument(
        "--endpoint",
        metavar="URL",
        help=f"its URL, or host name (default: the environment variable {_ENDPOINT_VARIABLE})",
    )
    group.add_argument(
        "--protocol",
        choices=["http", "https"],
        default="https",
        help="of an endpoint that does not say (default: %(default)s)",
    )


def endpoint_of(options: argparse.Namespace) -> str:
    """Give the endpoint that the options or the environment name.

    Raises:
        UsageError: If there is none.
    """
    endpoint = options.endpoint or os.environ.get(_ENDPOINT_VARIABLE)
    if not endpoint:
        raise UsageError(f"--endpoint or the environment variable {_ENDPOINT_VARIABLE} must name the collector")
    return str(endpoint)


def failure_reason(stats: EmitterStats, url: str, endpoint: str) -> str:
    """Say why the last request of an emitter has failed.

    Args:
        stats: Those of the emitter.
        url: Where it sends to.
        endpoint: What the options or the environment say of that.
    """
    error = stats.last_error
    if error is None:
        return "there is no answer yet" if stats.last_status is None else f"the collector answered {stats.last_status}"
    is_other_protocol = "WRONG_VERSION_NUMBER" in error or ("SSLError" in error and "CERTIFICATE" not in error)
    if is_other_protocol and "://" not in endpoint:
        return f"it does not seem to speak https: put http:// in front of the endpoint ({error})"
    if "Connection refused" in error and "ProxyError" not in error:
        return f"connection refused by {urlsplit(url).netloc}"
    return f"no response: {error}"


def complain(message: str) -> None:
    """Say on stderr what went wrong, in one line."""
    print(f"snowplow-tracker: {' '.join(message.split())}", file=sys.stderr, flush=True)
