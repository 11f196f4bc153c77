"""Subjects: who or what events are about."""

import pytest

from snowplow_tracker import Subject
from snowplow_tracker.subject import DEFAULT_PLATFORM
from snowplow_tracker.typing import SUPPORTED_PLATFORMS


def test_platform_is_there_from_the_start():
    """Payloads without a platform are useless, so a subject has one."""
    assert Subject().standard_nv_pairs == {"p": DEFAULT_PLATFORM}


@pytest.mark.parametrize("platform", sorted({*SUPPORTED_PLATFORMS, "headset"}))
def test_platforms_are_supported(platform):
    """Each platform of the protocol can be set."""
    assert Subject().set_platform(platform).standard_nv_pairs == {"p": platform}


@pytest.mark.parametrize("platform", ["fridge", "", None, 3, []])
def test_other_platforms_are_refused(platform):
    """A platform that the pipeline does not know is refused by the setter."""
    subject = Subject()

    with pytest.raises(ValueError, match=r"^platform must be one of 'app', .*'headset', .*, got "):
        subject.set_platform(platform)

    assert subject.standard_nv_pairs == {"p": DEFAULT_PLATFORM}


@pytest.mark.parametrize(
    ("setter", "arguments", "pair"),
    [
        ("set_user_id", ("u",), ("uid", "u")),
        ("set_screen_resolution", (1920, 1080), ("res", "1920x1080")),
        ("set_viewport", (1, 2), ("vp", "1x2")),
        ("set_color_depth", (24,), ("cd", 24)),
        ("set_timezone", ("Europe/London",), ("tz", "Europe/London")),
        ("set_lang", ("en",), ("lang", "en")),
        ("set_domain_user_id", ("d",), ("duid", "d")),
        ("set_domain_session_id", ("s",), ("sid", "s")),
        ("set_domain_session_index", (3,), ("vid", 3)),
        ("set_ip_address", ("127.0.0.1",), ("ip", "127.0.0.1")),
        ("set_useragent", ("UA",), ("ua", "UA")),
        ("set_network_user_id", ("n",), ("tnuid", "n")),
    ],
)
def test_setters_set_their_field_and_return_the_subject(setter, arguments, pair):
    """Each setter has one wire name, and can be chained."""
    subject = Subject()

    returned = getattr(subject, setter)(*arguments)

    assert returned is subject
    assert subject.standard_nv_pairs == dict([("p", "pc"), pair])


@pytest.mark.parametrize("setter", ["set_screen_resolution", "set_viewport"])
@pytest.mark.parametrize(("size", "name"), [((0, 1), "width"), ((1, 0), "height"), ((1, -1), "height")])
def test_sizes_must_be_positive(setter, size, name):
    """A size that no screen has is refused, by the name of the wrong one."""
    with pytest.raises(ValueError, match=f"^{name} must be greater than 0, got "):
        getattr(Subject(), setter)(*size)


def test_own_fields_win_when_subjects_are_combined():
    """Combining merges into a new dict, in which the subject's own fields win, and changes neither."""
    own = Subject().set_user_id("own").set_platform("srv")
    other = Subject().set_user_id("other").set_lang("fr")

    combined = own.combine_subject(other)

    assert combined == {"p": "srv", "uid": "own", "lang": "fr"}
    assert own.standard_nv_pairs == {"p": "srv", "uid": "own"}
    assert other.standard_nv_pairs == {"p": "pc", "uid": "other", "lang": "fr"}


def test_combining_with_none_copies():
    """Without another subject the combination is a copy of the own fields."""
    subject = Subject().set_user_id("own")

    combined = subject.combine_subject(None)
    combined["uid"] = "changed"

    assert subject.standard_nv_pairs == {"p": "pc", "uid": "own"}


def test_size_that_cannot_be_printed_is_refused():
    """A number too long to print is a ValueError that names what it was given as."""

    class Wide(int):
        def __format__(self, specification):
            raise ZeroDivisionError

    with pytest.raises(ValueError, match=r"^width and height must be numbers, got 5 and 1$"):
        Subject().set_viewport(Wide(5), 1)
