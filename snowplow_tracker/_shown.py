"""How a value of the application's is shown in the message of an error."""

from typing import Callable

__all__ = ["shown"]

_MAX_CHARACTERS = 1_000


def shown(value: object, text_of: Callable[[object], str] = repr) -> str:
    """Print a value, whatever it is: a message about a wrong value must not fail because of it.

    Args:
        value: What the message is about.
        text_of: `repr` or `str`. What raises in it (the application's own class, data too deep, an integer too long to
            print) is shown as the value's type, and a long text is cut. What `repr` gives of a string that is none,
            such as a lazy one of Django, has its type behind it.
    """
    try:
        text = text_of(value)
    except Exception:
        return f"<{type(value).__name__} that cannot be printed>"
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[:_MAX_CHARACTERS]}... ({len(text)} characters)"
    looks_like_string = text_of is repr and text.startswith(("'", '"'))
    is_string = issubclass(type(value), str)
    return f"{text} of the type {type(value).__name__}" if looks_like_string and not is_string else text
