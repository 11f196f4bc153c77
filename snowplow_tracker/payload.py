"""The name-value pairs that one event becomes."""

import base64
from typing import Any, Mapping, Optional

from ._json import encode_json
from ._shown import shown
from .typing import JsonEncoderFunction, PayloadDict

__all__ = ["Payload"]


class Payload:
    """Name-value pairs in Snowplow's wire names.

    Args:
        dict_: First pairs, copied as they are.

    Attributes:
        nv_pairs: The pairs. A tracker hands this very dict to its emitters.
    """

    def __init__(self, dict_: Optional[Mapping[str, Any]] = None) -> None:
        # Nearly always it is a plain dict, whose own method is the quickest.
        self.nv_pairs: PayloadDict = {} if dict_ is None else dict_.copy() if type(dict_) is dict else _copied(dict_)

    def add(self, name: str, value: Any) -> None:
        """Add or replace a pair. None and the empty string are left out, and replace nothing."""
        # Not by `==`, which is the value's own: NumPy's arrays answer with another array.
        if not (value is None or (isinstance(value, str) and not value)):
            self.nv_pairs[name] = value

    def add_dict(self, dict_: Mapping[str, Any], base64: bool = False) -> None:  # noqa: ARG002
        """Add or replace pairs, each like `add`.

        Args:
            dict_: The pairs.
            base64: Accepted for the sake of code written for 1.1.0, where it had no effect either.
        """
        nv_pairs = self.nv_pairs
        # Over a copy, which is made in one step: another thread may be changing a subject's dict.
        pairs = dict_.copy() if type(dict_) is dict else _copied(dict_)
        for name, value in pairs.items():
            # The first condition says nothing new, but it is quick, and nearly always true.
            if (type(value) is str and value) or not (value is None or (isinstance(value, str) and not value)):
                nv_pairs[name] = value

    def add_json(
        self,
        dict_: Optional[Any],
        encode_base64: bool,
        type_when_encoded: str,
        type_when_not_encoded: str,
        json_encoder: Optional[JsonEncoderFunction] = None,
    ) -> None:
        """Add a value as JSON text. None and the empty dict are left out.

        Args:
            dict_: The value.
            encode_base64: Whether the text goes out in URL-safe Base64.
            type_when_encoded: The pair's name if it does.
            type_when_not_encoded: The pair's name if it does not.
            json_encoder: Asked for a substitute of each value that JSON does not know; see `TrackerConfiguration`.

        Raises:
            TypeError: If there is no JSON for a part of the value.
        """
        if not (dict_ is None or (isinstance(dict_, dict) and not dict_)):
            text = encode_json(dict_, "dict_", json_encoder)
            self._add_text(text, encode_base64, type_when_encoded, type_when_not_encoded)

    def add_enveloped(
        self,
        schema: str,
        data: Any,
        name: str,
        encode_base64: bool,
        type_when_encoded: str,
        type_when_not_encoded: str,
        json_encoder: Optional[JsonEncoderFunction] = None,
    ) -> None:
        """Add self-describing data in the envelope that the pipeline expects around it, like `add_json`.

        Args:
            schema: URI of the envelope, which is put into the text as it is.
            data: What goes into it.
            name: What the data is to the user, for the message of an error.
            encode_base64: See `add_json`, and so the others.
            type_when_encoded: See `add_json`.
            type_when_not_encoded: See `add_json`.
            json_encoder: See `add_json`.

        Raises:
            TypeError: If there is no JSON for a part of the data; the message names the part.
        """
        text = f'{{"schema":"{schema}","data":{encode_json(data, name, json_encoder)}}}'
        self._add_text(text, encode_base64, type_when_encoded, type_when_not_encoded)

    def get(self) -> PayloadDict:
        """Give the pairs themselves, not a copy."""
        return self.nv_pairs

    def _add_text(self, text: str, encode_base64: bool, type_when_encoded: str, type_when_not_encoded: str) -> None:
        # A lone surrogate has no UTF-8. It stands inside a JSON string, where the escape for it looks like Python's.
        if encode_base64:
            encoded = base64.urlsafe_b64encode(text.encode("utf-8", "backslashreplace"))
            self.nv_pairs[type_when_encoded] = encoded.decode("ascii")
        elif text.isascii():
            self.nv_pairs[type_when_not_encoded] = text
        else:
            self.nv_pairs[type_when_not_encoded] = text.encode("utf-8", "backslashreplace").decode("utf-8")


def _copied(dict_: Any) -> PayloadDict:
    try:
        return dict(dict_)
    except (TypeError, ValueError):
        raise TypeError(f"dict_ must be a dict of name-value pairs, got {shown(dict_)}") from None
