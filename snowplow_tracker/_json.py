"""JSON text out of the values that applications put into events."""

import base64
import math
from datetime import date, datetime, time
from enum import Enum
from functools import singledispatch
from json import JSONEncoder
from typing import TYPE_CHECKING, Any, Callable, Collection, Dict, FrozenSet, List, Optional, Union

from ._shown import shown
from .typing import JsonEncoderFunction

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["EncodingError", "encode_json", "encode_readable_json", "plain"]


class EncodingError(TypeError):
    """There is no JSON for a value; the message says where it stands."""


def encode_json(value: Any, name: str, json_encoder: Optional[JsonEncoderFunction] = None) -> str:
    """Write a value as compact JSON, with real characters; a lone surrogate stays in it.

    NaN and the infinities, which JSON does not have, become null.

    Args:
        value: May hold everything that `plain` knows, at any depth.
        name: What the value is to the user, for the message of an error.
        json_encoder: Asked for a substitute of each value that JSON does not know; `plain` helps out where it raises.

    Raises:
        EncodingError: If there is no JSON for a part of the value; the message names that part.
    """
    encoder = _COMPACT if json_encoder is None else _compact(_plain_or(json_encoder))
    return _encode(encoder, value, name)


def encode_readable_json(value: Any, name: str) -> str:
    """Write a value as JSON in ASCII, with blanks after commas and colons; otherwise like `encode_json`."""
    return _encode(_READABLE, value, name)


@singledispatch
def plain(value: Any) -> Any:
    """Give the form in which a value goes into JSON. Modules register what their types become.

    Raises:
        TypeError: If nothing is registered for the value's type.
    """
    form = _late_form(type(value))
    if form is None:
        raise TypeError(f"there is no JSON for the type {type(value).__name__}")
    return form(value)


def _late_form(kind: type) -> Optional[Callable[[Any], Any]]:
    """Give the form of a type whose module costs more time to import than most applications have a use for."""
    names = {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
    return next((form for name, form in _LATE_FORMS.items() if name in names), None)


def _plain_decimal(value: "Decimal") -> Union[int, float, None]:
    if not value.is_finite():
        return None
    # Schemas tell integers from numbers, so 5.00 is written as 5; a thousand digits are nobody's integer.
    return int(value) if value.adjusted() < 1000 and value == value.to_integral_value() else float(value)


def _plain_set(value: Collection[Any]) -> List[Any]:
    try:
        return sorted(value)
    except TypeError:
        return list(value)


def _plain_bytes(value: Union[bytes, bytearray]) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")


# By name, because it must not take an import to know one of these, least of all while the interpreter shuts down.
_LATE_FORMS: Dict[str, Callable[[Any], Any]] = {"decimal.Decimal": _plain_decimal, "uuid.UUID": str}

plain.register(datetime, datetime.isoformat)
plain.register(date, date.isoformat)
plain.register(time, time.isoformat)
plain.register(Enum, lambda member: member.value)
plain.register(set, _plain_set)
plain.register(frozenset, _plain_set)
plain.register(bytes, _plain_bytes)
plain.register(bytearray, _plain_bytes)


def _plain_or(json_encoder: JsonEncoderFunction) -> JsonEncoderFunction:
    """Ask the user's function first, as 1.1.0 did, and fall back on `plain` where it would raise."""
    unknown = plain.dispatch(object)

    def default(value: Any) -> Any:
        try:
            return json_encoder(value)
        except Exception:
            if plain.dispatch(type(value)) is unknown and _late_form(type(value)) is None:
                raise
            return plain(value)

    return default


def _compact(default: JsonEncoderFunction) -> JSONEncoder:
    return JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default)


_COMPACT = _compact(plain)
_READABLE = JSONEncoder(allow_nan=False, default=plain)


def _encode(encoder: JSONEncoder, value: Any, name: str) -> str:
    try:
        return encoder.encode(value)
    except Exception:  # whatever it is, the slow way either succeeds or says what is wrong
        pass
    try:
        return encoder.encode(_plain_copy(value, name, encoder.default, frozenset()))
    except EncodingError:
        raise
    except Exception as error:
        raise EncodingError(f"{name} cannot be encoded as JSON: {shown(error, str)}") from error


def _plain_copy(value: Any, path: str, default: Callable[[Any], Any], containers: FrozenSet[int]) -> Any:
    """Copy a value with nothing in it but what JSON has, or say where that is impossible.

    Args:
        value: What to copy.
        path: Where it stands, in the user's words.
        default: Gives a substitute for what JSON does not know.
        containers: The `id` of each value that this one stands in.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if id(value) in containers:
        raise EncodingError(f"{path} cannot be encoded as JSON: it contains itself")
    containers |= {id(value)}
    if isinstance(value, dict):
        is_described = value.keys() == {"schema", "data"}
        return {
            _plain_key(key, path): _plain_copy(
                item, f"{path}.{key}" if is_described else f"{path}[{shown(key)}]", default, containers
            )
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain_copy(item, f"{path}[{index}]", default, containers) for index, item in enumerate(value)]
    try:
        substitute = default(value)
    except Exception as error:
        raise EncodingError(f"{path} cannot be encoded as JSON: {shown(error, str)}") from error
    return _plain_copy(substitute, path, default, containers)


def _plain_key(key: Any, path: str) -> Any:
    if isinstance(key, float):
        return key if math.isfinite(key) else None
    if key is None or isinstance(key, (str, int)):
        return key
    raise EncodingError(f"{path} cannot be encoded as JSON: {shown(key)} is no key of an object, strings are")
