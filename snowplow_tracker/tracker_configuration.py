"""Settings of a tracker that `Snowplow.create_tracker` builds."""

from typing import Optional

from ._settings import Setting, callback, flag, optional
from .constants import DEFAULT_ENCODE_BASE64
from .typing import JsonEncoderFunction

__all__ = ["TrackerConfiguration"]


class TrackerConfiguration:
    """Settings of a tracker, each refused at the line that sets it if its type is wrong.

    Attributes:
        encode_base64: Whether self-describing events and contexts go out in Base64, which is the default, or as JSON
            text, which False and None choose.
        json_encoder: Called with each value in an event's data that JSON does not know; returns a substitute, or
            raises. Without it, and where it raises, UUIDs, dates and times, decimals, enums, sets and bytes get a form
            of the library's.

    Raises:
        TypeError: If `encode_base64` is not a bool or `json_encoder` is not callable.
    """

    encode_base64: Setting[Optional[bool]] = Setting(optional(flag), default=DEFAULT_ENCODE_BASE64)
    json_encoder: Setting[Optional[JsonEncoderFunction]] = Setting(optional(callback))

    def __init__(
        self,
        encode_base64: Optional[bool] = DEFAULT_ENCODE_BASE64,
        json_encoder: Optional[JsonEncoderFunction] = None,
    ) -> None:
        self.encode_base64 = encode_base64
        self.json_encoder = json_encoder
