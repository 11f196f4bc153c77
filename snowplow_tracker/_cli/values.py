"""What the values of options, and of the keys of a line, stand for."""

import argparse
import functools
import json
import math
import re
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, List, NoReturn, TypeVar, Union

from .._shown import shown
from ..self_describing_json import SelfDescribingJson
from ..testing._iglu import SCHEMA_URI

__all__ = [
    "argument",
    "described",
    "described_list",
    "event_id",
    "json_argument",
    "json_value",
    "number",
    "port",
    "positive_seconds",
    "schema_uri",
    "size",
    "text",
    "timestamp",
    "whole_number",
]

_T = TypeVar("_T")

_SIZE = re.compile(r"([1-9]\d{0,8})x([1-9]\d{0,8})", re.ASCII)
# The end of the year 9999: no pipeline takes a later time, or one before 1970.
_MAX_MILLISECONDS = 253_402_300_799_999
# In March 1973. A smaller number is one of seconds, until the year 5138.
_MIN_MILLISECONDS_AS_NUMBER = 100_000_000_000
_EXAMPLE_URI = "iglu:com.acme/purchase/jsonschema/1-0-0"


def argument(check: Callable[[str], _T]) -> Callable[[str], _T]:
    """Let argparse show what a check says, which it does not by itself."""

    def convert(value: str) -> _T:
        try:
            return check(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def text(value: Any) -> str:
    """Take text, or a number for it.

    Raises:
        ValueError: If it is something else; so in all functions of this module.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"must be text, got {shown(value)}")
    return str(value)


def whole_number(value: Any) -> int:
    """Take a whole number, or the text of one."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"must be a whole number, got {shown(value)}")
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"must be a whole number, got {shown(value)}") from None


def number(value: str) -> Union[int, float]:
    """Take the text of a number; it stays whole if it is."""
    try:
        return int(value)
    except ValueError:
        pass
    try:
        fraction = float(value)
    except ValueError:
        fraction = math.nan
    if not math.isfinite(fraction):
        raise ValueError(f"must be a number, got {shown(value)}")
    return fraction


def positive_seconds(value: str) -> float:
    """Take a time of more than 0 seconds, and of no more than a month."""
    seconds = number(value)
    if not 0 < seconds <= 30 * 24 * 3600:
        raise ValueError(f"must be a positive number of seconds, got {shown(value)}")
    return seconds


def port(value: str) -> int:
    """Take a port, or 0 for any free one."""
    chosen = whole_number(value)
    if not 0 <= chosen <= 65535:
        raise ValueError(f"must be between 0 and 65535, got {shown(value)}")
    return chosen


def size(value: Any) -> List[int]:
    """Take width and height, such as 1920x1080."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"must be a width and a height such as 1920x1080, got {shown(value)}")
    return [int(side) for side in match.groups()]


def timestamp(value: Any) -> Union[int, datetime]:
    """Take milliseconds since 1970, or a date and time in ISO 8601, which is local without a time zone."""
    try:
        moment = _moment(value)
        milliseconds = moment.timestamp() * 1000 if isinstance(moment, datetime) else moment
    except (ValueError, OverflowError, OSError):
        what = "milliseconds since 1970 or a date and time in ISO 8601"
        raise ValueError(f"must be {what}, got {shown(value)}") from None
    if not isinstance(moment, datetime) and 0 <= moment < _MIN_MILLISECONDS_AS_NUMBER:
        raise ValueError(f"must be milliseconds since 1970, not seconds, got {shown(value)}")
    if not 0 <= milliseconds <= _MAX_MILLISECONDS:
        raise ValueError(f"must be from 1970 to the year 9999, got {shown(value)}")
    return moment


def event_id(value: Any) -> str:
    """Take a UUID in text. The pipeline throws away an event with another id."""
    try:
        return str(uuid.UUID(text(value)))
    except ValueError:
        raise ValueError(f"must be a UUID, got {shown(value)}") from None


def schema_uri(value: Any) -> str:
    """Take the URI of a schema. The pipeline throws away what names another sort of it."""
    if not isinstance(value, str) or not _is_schema_uri(value):
        raise ValueError(f"must be a URI such as {_EXAMPLE_URI}, got {shown(value)}")
    return value


def described(value: Any) -> SelfDescribingJson:
    """Take an object with `schema` and `data`, and nothing else."""
    if not isinstance(value, dict) or value.keys() != {"schema", "data"}:
        raise ValueError(f"must be an object with schema and data, got {shown(value)}")
    try:
        return SelfDescribingJson(schema_uri(value["schema"]), value["data"])
    except ValueError as error:
        raise ValueError(f"schema {error}") from None


def described_list(value: Any) -> List[SelfDescribingJson]:
    """Take one such object, or a list of them."""
    return [described(each) for each in value] if isinstance(value, list) else [described(value)]


def json_argument(value: str) -> Any:
    """Take JSON itself, or `@` and the name of a file with it, where `-` stands for the standard input."""
    if not value.startswith("@"):
        return json_value(value)
    name = value[1:]
    try:
        content = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{name} is not in UTF-8") from None
    try:
        return json_value(content)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def json_value(content: str) -> Any:
    """Take JSON, without the NaN and Infinity that Python would add to it."""
    try:
        return _DECODER.decode(content.rstrip(" \t\r\n"))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"is not JSON: {error.msg}: {line}column {error.colno}") from None
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None


@functools.lru_cache(maxsize=1_000)
def _is_schema_uri(value: str) -> bool:
    # Of a million lines, most have the same few schemas.
    return SCHEMA_URI.fullmatch(value) is not None


def _moment(value: Any) -> Union[int, datetime]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value)
    if not isinstance(value, str):
        raise ValueError("is neither a number nor text")
    return int(value) if value.isdecimal() else _date_and_time(value)


def _date_and_time(value: str) -> datetime:
    # Python before 3.11 does not know the letter that stands for UTC.
    return datetime.fromisoformat(f"{value[:-1]}+00:00" if value.endswith(("Z", "z")) else value)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is none")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
