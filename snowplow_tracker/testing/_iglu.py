"""Schemas in a folder in Iglu layout, and what they have against data."""

import importlib
import ipaddress
import json
import math
import os
import re
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional

from typing_extensions import Protocol

from .._shown import shown
from ..constants import SCHEMA_TAG
from ._collected import PathArgument

__all__ = ["SCHEMA_URI", "SchemaFolder"]

# A complete one: with a model, a revision and an addition.
SCHEMA_URI = re.compile(
    rf"iglu:(?P<path>(?P<vendor>[a-zA-Z0-9_.-]+)/[a-zA-Z0-9_-]+/{SCHEMA_TAG}"
    r"/[1-9][0-9]*-(?:0|[1-9][0-9]*)-(?:0|[1-9][0-9]*))"
)

# By the URI in `$schema`, without the scheme and the fragment. A schema of Snowplow's own meta-schema is draft 4.
_DRAFTS = {
    "iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0": "Draft4Validator",
    "json-schema.org/draft-04/schema": "Draft4Validator",
    "json-schema.org/draft-06/schema": "Draft6Validator",
    "json-schema.org/draft-07/schema": "Draft7Validator",
    "json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "json-schema.org/draft/2020-12/schema": "Draft202012Validator",
}
_SCHEME_OR_FRAGMENT = re.compile(r"^https?://|#$")

_MAX_ERRORS = 20

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_URI = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[^\s<>\"{}|\\^`]*")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class _Validator(Protocol):
    """What is needed of a validator of `jsonschema`."""

    def iter_errors(self, instance: Any) -> Iterable[Any]: ...


class SchemaFolder:
    """The schemas in a folder: files such as `vendor/name/jsonschema/1-0-0`, below `schemas/` or not.

    A schema is read when it is first needed, and not again; one that was missing or broken is looked for each time.
    Several threads may use it at once.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: PathArgument) -> None:
        """Open a folder, without reading from it.

        Raises:
            ImportError: If `jsonschema` is not installed.
            TypeError: If the path is none.
            ValueError: If there is no such folder.
        """
        self.path = Path(_path_text(path))
        if not self.path.is_dir():
            raise ValueError(f"schemas must be the path of a folder, and there is none at {shown(self.path, str)}")
        self._build_validator = _validator_builder()
        self._validators: Dict[str, _Validator] = {}

    def errors(self, uri: str, data: Any) -> Optional[List[str]]:
        """Hold data against a schema.

        Args:
            uri: A complete `iglu:` URI.
            data: Any value that JSON knows.

        Returns:
            What is wrong with the data, or with the schema if it is broken: a sentence each, without its first capital;
            None if the folder has no such schema.
        """
        validator = self._validators.get(uri)
        # Schemas are the application's, and there is no end to what may go wrong with one: a pattern that is no regular
        # expression in Python, a reference to nowhere or to itself. All of it is found out on the way.
        try:
            if validator is None:
                file = self._file(uri)
                if file is None:
                    return None
                schema = json.loads(file.read_text(encoding="utf-8"))
                _check_self(uri, schema)
                validator = self._build_validator(schema)
                self._validators[uri] = validator
            found = sorted(validator.iter_errors(data), key=lambda error: error.json_path)
        except Exception as error:
            reason = shown(getattr(error, "message", error), str)
            return [f"nothing can be checked by {uri}: {type(error).__name__}: {reason}"]
        sentences = [_sentence(uri, error) for error in found[:_MAX_ERRORS]]
        return sentences + ([f"{len(found) - _MAX_ERRORS} more things are wrong"] if len(found) > _MAX_ERRORS else [])

    def absence(self, uri: str) -> str:
        """Say where the folder would have the schema that it does not have."""
        return f"there is no file {uri[len('iglu:') :]} in {shown(self.path, str)} or its schemas/"

    def _file(self, uri: str) -> Optional[Path]:
        match = SCHEMA_URI.fullmatch(uri)
        # A vendor of dots would lead out of the folder, and who sends an event may be anybody.
        if match is None or not match.group("vendor").strip("."):
            return None
        candidates = (root / match.group("path") for root in (self.path, self.path / "schemas"))
        return next((file for file in candidates if file.is_file()), None)


def _path_text(path: Any) -> str:
    try:
        text = os.fspath(path)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise TypeError(f"schemas must be the path of a folder, got {shown(path)}")
    return text


def _sentence(uri: str, error: Any) -> str:
    return f"{shown(error.message, str)} (at {error.json_path} by {uri})"


def _check_self(uri: str, schema: Any) -> None:
    own = schema.get("self") if isinstance(schema, dict) else None
    if not isinstance(own, dict):
        return
    parts = zip(("vendor", "name", "format", "version"), uri[len("iglu:") :].split("/"))
    own_uri = "iglu:" + "/".join(str(own.get(name, part)) for name, part in parts)
    if own_uri != uri:
        raise ValueError(f"self in the file of this name says {shown(own_uri, str)}")


def _validator_builder() -> Callable[[Any], _Validator]:
    # Imported here, because it is much, and few need it.
    try:
        jsonschema: Any = importlib.import_module("jsonschema")
        registry = importlib.import_module("jsonschema_specifications").REGISTRY
    except ImportError as error:
        raise ImportError(
            "schemas needs jsonschema 4.18 or later: pip install 'snowplow-tracker[validation]'"
        ) from error

    # The same formats on each machine, whatever packages for formats are installed there.
    checker = jsonschema.FormatChecker(formats=())
    for name, is_valid in _FORMATS.items():
        checker.checks(name)(_for_texts(is_valid))

    def multiple_of(_: Any, divisor: Any, value: Any, __: Any) -> Iterator[Any]:
        # In binary fractions 19.99 is no multiple of 0.01, but prices are meant as they are written.
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # A number like 1e999 is read as infinity, which is a multiple of nothing.
        is_infinite = isinstance(value, float) and not math.isfinite(value)
        if is_number and (is_infinite or Fraction(str(value)) % Fraction(str(divisor))):
            yield jsonschema.ValidationError(f"{value!r} is not a multiple of {divisor!r}")

    def build(schema: Any) -> _Validator:
        if not isinstance(schema, dict):
            raise ValueError(f"a schema must be an object, got {shown(schema)}")
        draft = getattr(jsonschema, _draft(schema))
        draft.check_schema(schema)
        draft = jsonschema.validators.extend(draft, {"multipleOf": multiple_of})
        # With a registry given, a reference to a schema elsewhere is an error, and not fetched from the network.
        validator: _Validator = draft(schema, format_checker=checker, registry=registry)
        return validator

    return build


def _draft(schema: Dict[str, Any]) -> str:
    uri = schema.get("$schema", "http://json-schema.org/draft-04/schema#")
    name = _DRAFTS.get(_SCHEME_OR_FRAGMENT.sub("", uri)) if isinstance(uri, str) else None
    if name is None:
        raise ValueError(f"$schema must name draft 4 of JSON Schema or a later one, got {shown(uri)}")
    return name


def _for_texts(is_valid: Callable[[str], bool]) -> Callable[[object], bool]:
    # A format says nothing about a value that is no text.
    return lambda value: not isinstance(value, str) or is_valid(value)


def _is_date(text: str) -> bool:
    return bool(_DATE.fullmatch(text)) and _accepts(date.fromisoformat, text)


def _is_date_time(text: str) -> bool:
    match = _DATE_TIME.fullmatch(text)
    return match is not None and _is_date(match.group(1))


def _accepts(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


_FORMATS: Dict[str, Callable[[str], bool]] = {
    "date": _is_date,
    "date-time": _is_date_time,
    "email": lambda text: bool(_EMAIL.fullmatch(text)),
    "ipv4": lambda text: _accepts(ipaddress.IPv4Address, text),
    "ipv6": lambda text: _accepts(ipaddress.IPv6Address, text),
    "uri": lambda text: bool(_URI.fullmatch(text)),
    "uuid": lambda text: bool(_UUID.fullmatch(text)),
}
