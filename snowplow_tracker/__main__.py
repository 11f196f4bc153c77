"""What `python -m snowplow_tracker` runs."""

import sys

from ._cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(prog="python -m snowplow_tracker"))
