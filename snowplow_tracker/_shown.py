"""How a value of the application's is shown in the message of an error."""

from typing import Callable

__all__ = ["shown"]

_MAX_CHARACTERS = 1_000


def shown(value: object, text_of: Callable[[object], str] = repr) -> str:
    """Print a value, whatever it is: a message about a wrong value must not fail because of it.

    Args:
        value: What the message is about.
        text_of: `repr` or `str`. What raises in it (the application's own class, data too deep, an integer too long to
            print) is shown as the value's type, and a long text is cut.
    """
    try:
        text = text_of(value)
    except Exception:
        return f"<{type(value).__name__} that cannot be printed>"
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}... ({len(text)} characters)"
