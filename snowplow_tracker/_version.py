"""The version of this library, in one place."""

__all__ = ["__version__", "__version_info__"]

__version_info__ = (1, 2, 0)
__version__ = ".".join(str(part) for part in __version_info__)
