"""Values in messages: whatever they are, the message is made."""

from snowplow_tracker._shown import shown


class Silent:
    def __repr__(self):
        raise ZeroDivisionError


def test_value_is_shown_as_it_is_written():
    """What `repr` gives stands in the message, or what `str` gives."""
    assert shown("a\n") == "'a\\n'"
    assert shown("a", str) == "a"


def test_value_that_cannot_be_printed_is_shown_by_its_type():
    """An error in the value's own class does not take the place of the message."""
    assert shown(Silent()) == "<Silent that cannot be printed>"


def test_value_that_looks_like_a_string_is_shown_with_its_type():
    """A lazy string is none, which a message about a string that is missing has to tell."""

    class Lazy:
        def __repr__(self):
            return repr("a")

        __str__ = __repr__

    assert shown(Lazy()) == "'a' of the type Lazy"
    assert shown(Lazy(), str) == "'a'"
    assert shown(b"a") == "b'a'"


def test_long_value_is_cut():
    """A message stays readable."""
    assert shown("x" * 1_000_000, str) == "x" * 1_000 + "... (1000000 characters)"
