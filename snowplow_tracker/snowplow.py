"""The registry of trackers by their namespaces."""

import logging
from typing import Any, Dict, Optional, Type

from typing_extensions import TypeGuard

from ._shown import shown
from .emitter_configuration import EmitterConfiguration
from .emitters import AsyncEmitter, Emitter
from .subject import Subject
from .tracker import Tracker
from .tracker_configuration import TrackerConfiguration
from .typing import Method

__all__ = ["Snowplow"]

logger = logging.getLogger(__name__)


class Snowplow:
    """The trackers of an application, by their namespaces.

    All methods may be called by several threads at once: of two that add the same namespace, one succeeds. Removing a
    tracker does not close it.
    """

    # Changed only by operations that are atomic, so there is no lock that a fork could leave locked.
    _trackers: Dict[str, Tracker] = {}  # noqa: RUF012  # shared by intent

    @classmethod
    def create_tracker(
        cls,
        namespace: str,
        endpoint: str,
        method: Method = "post",
        app_id: Optional[str] = None,
        subject: Optional[Subject] = None,
        tracker_config: Optional[TrackerConfiguration] = None,
        emitter_config: Optional[EmitterConfiguration] = None,
        *,
        emitter_class: Optional[Type[Emitter]] = None,
    ) -> Tracker:
        """Build a tracker with an emitter, and add it.

        Args:
            namespace: Name of the tracker, unique among those that are in the registry.
            endpoint: See `Emitter`.
            method: See `Emitter`.
            app_id: See `Tracker`.
            subject: See `Tracker`.
            tracker_config: Further settings of the tracker.
            emitter_config: Further settings of the emitter.
            emitter_class: `AsyncEmitter`, or a class of your own with the same parameters, to have another emitter
                than `Emitter`.

        Raises:
            TypeError: If there is a tracker with this namespace already, or a parameter is of a wrong type, or
                `emitter_config` sets `thread_count` for an emitter that is not asynchronous.
            ValueError: If a parameter has a wrong value.
        """
        cls._check_is_free(namespace)
        tracker_config = _checked(tracker_config, TrackerConfiguration, "tracker_config")
        emitter_config = _checked(emitter_config, EmitterConfiguration, "emitter_config")
        # Looked up now, so that a test may put a mock in its place.
        kind = Emitter if emitter_class is None else _checked_emitter_class(emitter_class)
        options = emitter_config.emitter_options()
        if "thread_count" in options and not issubclass(kind, AsyncEmitter):
            raise TypeError(f"thread_count needs an emitter_class that is an AsyncEmitter, got {shown(kind)}")
        tracker = Tracker(
            namespace=namespace,
            emitters=kind(endpoint, method=method, **options),
            subject=subject,
            app_id=app_id,
            encode_base64=bool(tracker_config.encode_base64),
            json_encoder=tracker_config.json_encoder,
        )
        return cls._add(tracker)

    @classmethod
    def add_tracker(cls, tracker: Optional[Tracker]) -> Optional[Tracker]:
        """Add a tracker that was built elsewhere.

        Returns:
            The tracker; None, with a line in the log, if it is None or no tracker.

        Raises:
            TypeError: If there is a tracker with this namespace already.
        """
        if not _is_tracker(tracker):
            logger.info("There is no tracker to add: tracker must be a Tracker, got %r", tracker)
            return None
        cls._check_is_free(tracker.get_namespace())
        return cls._add(tracker)

    @classmethod
    def remove_tracker(cls, tracker: Tracker) -> None:
        """Remove the tracker that has the namespace of this one; without one, there is only a line in the log.

        Raises:
            TypeError: If it is no tracker.
        """
        if not _is_tracker(tracker):
            raise TypeError(f"tracker must be a Tracker, got {shown(tracker)}")
        cls.remove_tracker_by_namespace(tracker.get_namespace())

    @classmethod
    def remove_tracker_by_namespace(cls, namespace: str) -> None:
        """Remove the tracker with this namespace; without one, there is only a line in the log."""
        if cls._trackers.pop(namespace, None) is None:
            logger.info("There is no tracker with the namespace %r to remove", namespace)
        else:
            logger.info("Removed the tracker with the namespace %r", namespace)

    @classmethod
    def reset(cls) -> None:
        """Remove all trackers."""
        cls._trackers.clear()

    @classmethod
    def get_tracker(cls, namespace: str) -> Optional[Tracker]:
        """Give the tracker with this namespace; None, with a line in the log, if there is none."""
        tracker = cls._trackers.get(namespace)
        if tracker is None:
            logger.info("There is no tracker with the namespace %r", namespace)
        return tracker

    @classmethod
    def _add(cls, tracker: Tracker) -> Tracker:
        # Another thread may have been faster since the namespace was free.
        namespace = tracker.get_namespace()
        if cls._trackers.setdefault(namespace, tracker) is not tracker:
            raise _duplicate(namespace)
        logger.info("Added a tracker with the namespace %r", namespace)
        return tracker

    @classmethod
    def _check_is_free(cls, namespace: str) -> None:
        try:
            is_taken = namespace in cls._trackers
        except Exception:
            raise TypeError(f"namespace must be a string, got {shown(namespace)}") from None
        if is_taken:
            raise _duplicate(namespace)


def _checked(config: Optional[Any], config_class: Type[Any], name: str) -> Any:
    if config is None:
        return config_class()
    if not isinstance(config, config_class):
        article = "an" if config_class is EmitterConfiguration else "a"
        raise TypeError(f"{name} must be {article} {config_class.__name__}, got {shown(config)}")
    return config


def _checked_emitter_class(emitter_class: Any) -> Type[Emitter]:
    if not isinstance(emitter_class, type) or not callable(getattr(emitter_class, "input", None)):
        raise TypeError(f"emitter_class must be a class with a method input, got {shown(emitter_class)}")
    checked: Type[Emitter] = emitter_class
    return checked


def _is_tracker(tracker: Any) -> TypeGuard[Tracker]:
    return not isinstance(tracker, type) and callable(getattr(tracker, "get_namespace", None))


def _duplicate(namespace: str) -> TypeError:
    return TypeError(
        f"namespace must be free, but there is a tracker with {namespace!r} already: get_tracker gives it, and "
        "remove_tracker_by_namespace frees its namespace"
    )
