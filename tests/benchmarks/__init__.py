"""Measures this library against the published snowplow-tracker 1.1.0; `python3 tests/benchmarks` runs it."""
