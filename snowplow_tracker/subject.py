"""Who or what an event is about."""

from typing import Optional

from ._shown import shown
from .contracts import greater_than, one_of
from .typing import SUPPORTED_PLATFORMS, PayloadDict, SupportedPlatform

__all__ = ["DEFAULT_PLATFORM", "Subject"]

DEFAULT_PLATFORM = "pc"
_PLATFORMS = SUPPORTED_PLATFORMS | {"headset"}


class Subject:
    """The user, the device and the session behind events.

    One may go with a tracker, and one with an event; where both know a field, the event's wins. Every setter returns
    the subject, so that calls can be chained; None clears a field. A subject may be changed at any time, but not by two
    threads at once.

    Attributes:
        standard_nv_pairs: The fields by their wire names. The platform is there from the start: `DEFAULT_PLATFORM`.
    """

    def __init__(self) -> None:
        self.standard_nv_pairs: PayloadDict = {"p": DEFAULT_PLATFORM}

    def set_platform(self, value: SupportedPlatform) -> "Subject":
        """Set the platform that the application runs on.

        Args:
            value: One of `typing.SUPPORTED_PLATFORMS`, or `headset`.

        Raises:
            ValueError: If it is another.
        """
        one_of(value, _PLATFORMS, name="platform")
        return self._set("p", value)

    def set_user_id(self, user_id: Optional[str]) -> "Subject":
        """Set the identifier by which the application knows the user."""
        return self._set("uid", user_id)

    def set_screen_resolution(self, width: int, height: int) -> "Subject":
        """Set the size of the screen, in pixels.

        Raises:
            ValueError: If one of the two is not positive.
        """
        return self._set_size("res", width, height)

    def set_viewport(self, width: int, height: int) -> "Subject":
        """Set the size of the part of a window that shows content, in pixels.

        Raises:
            ValueError: If one of the two is not positive.
        """
        return self._set_size("vp", width, height)

    def set_color_depth(self, depth: Optional[int]) -> "Subject":
        """Set the colour depth of the screen, in bits per pixel."""
        return self._set("cd", depth)

    def set_timezone(self, timezone: Optional[str]) -> "Subject":
        """Set the user's time zone, by its name in the IANA database, such as `Europe/London`."""
        return self._set("tz", timezone)

    def set_lang(self, lang: Optional[str]) -> "Subject":
        """Set the user's language, such as `en` or `fr-CH`."""
        return self._set("lang", lang)

    def set_domain_user_id(self, duid: Optional[str]) -> "Subject":
        """Set the user identifier that the web tracker keeps in a first-party cookie."""
        return self._set("duid", duid)

    def set_domain_session_id(self, sid: Optional[str]) -> "Subject":
        """Set the session identifier that the web tracker keeps in a first-party cookie."""
        return self._set("sid", sid)

    def set_domain_session_index(self, vid: Optional[int]) -> "Subject":
        """Set the number of the user's present session, counted from 1."""
        return self._set("vid", vid)

    def set_ip_address(self, ip: Optional[str]) -> "Subject":
        """Set the user's IP address, which the collector otherwise takes from the request."""
        return self._set("ip", ip)

    def set_useragent(self, ua: Optional[str]) -> "Subject":
        """Set the user's user agent, which the collector otherwise takes from the request."""
        return self._set("ua", ua)

    def set_network_user_id(self, nuid: Optional[str]) -> "Subject":
        """Set the user identifier that the collector keeps in a cookie of its own."""
        return self._set("tnuid", nuid)

    def combine_subject(self, subject: Optional["Subject"]) -> PayloadDict:
        """Merge the fields of another subject with this one's, which win.

        Returns:
            A dict of its own; neither subject changes.
        """
        if subject is None:
            return dict(self.standard_nv_pairs)
        return {**subject.standard_nv_pairs, **self.standard_nv_pairs}

    def _set(self, wire_name: str, value: object) -> "Subject":
        self.standard_nv_pairs[wire_name] = value
        return self

    def _set_size(self, wire_name: str, width: int, height: int) -> "Subject":
        greater_than(width, 0, name="width")
        greater_than(height, 0, name="height")
        try:
            size = f"{width}x{height}"
        except Exception as error:
            raise ValueError(f"width and height must be numbers, got {shown(width)} and {shown(height)}") from error
        return self._set(wire_name, size)
