"""Subjects out of the options of a command, or out of an object in a line."""

import argparse
from typing import Any, Callable, Mapping, NamedTuple, Optional

from .._shown import shown
from ..subject import Subject
from .values import size, text, whole_number

__all__ = ["add_subject_options", "subject_of", "subject_of_options"]


class _Field(NamedTuple):
    """One setter of a subject.

    Attributes:
        name: What follows `set_` in the setter's name.
        metavar: Stands for the value in the help.
        check: Gives the setter's argument, or the list of them.
        about: Completes the help.
    """

    name: str
    metavar: str
    check: Callable[[Any], Any]
    about: str


_FIELDS = {
    field.name: field
    for field in (
        _Field("user_id", "ID", text, "by which the application knows the user"),
        _Field("platform", "NAME", text, "pc (the default), srv, web, mob, app, tv, cnsl, iot or headset"),
        _Field("screen_resolution", "WxH", size, "in pixels"),
        _Field("viewport", "WxH", size, "in pixels"),
        _Field("color_depth", "BITS", whole_number, "of the screen, per pixel"),
        _Field("timezone", "NAME", text, "of the user, such as Europe/London"),
        _Field("lang", "CODE", text, "of the user, such as en or fr-CH"),
        _Field("domain_user_id", "ID", text, "that the web tracker keeps in a cookie"),
        _Field("domain_session_id", "ID", text, "that the web tracker keeps in a cookie"),
        _Field("domain_session_index", "N", whole_number, "of the present session, counted from 1"),
        _Field("ip_address", "IP", text, "of the user"),
        _Field("useragent", "TEXT", text, "of the user"),
        _Field("network_user_id", "ID", text, "that the collector keeps in a cookie"),
    )
}


def add_subject_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each setter; `subject_of` checks what they are set to."""
    group = parser.add_argument_group("who or what the event is about")
    for field in _FIELDS.values():
        group.add_argument(f"--{field.name.replace('_', '-')}", metavar=field.metavar, help=field.about)


def subject_of_options(options: argparse.Namespace) -> Optional[Subject]:
    """Make a subject of the options.

    Raises:
        ValueError: If one of them has a wrong value.
    """
    return subject_of({name: getattr(options, name) for name in _FIELDS})


def subject_of(values: Mapping[str, Any]) -> Optional[Subject]:
    """Make a subject of values by the names of the setters; a value of None leaves one out.

    Returns:
        None if there are no values.

    Raises:
        ValueError: If there is no such setter, or the value is wrong.
    """
    subject = None
    for name, value in values.items():
        field = _FIELDS.get(name)
        if field is None:
            raise ValueError(f"has no {shown(name)}, only {', '.join(_FIELDS)}")
        if value is None:
            continue
        try:
            checked = field.check(value)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
        subject = subject or Subject()
        getattr(subject, f"set_{name}")(*checked if isinstance(checked, list) else [checked])
    return subject
