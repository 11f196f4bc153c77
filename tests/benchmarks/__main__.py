"""Runs the benchmark: `python3 tests/benchmarks`."""

import sys
from pathlib import Path

# Run as a folder, this is no package by itself.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.driver import main

if __name__ == "__main__":
    sys.exit(main())
