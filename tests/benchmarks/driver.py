"""Runs the scenarios in alternating rounds, and tells what came of them."""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from .environments import Environments, machine, running_collector
from .report import table, targets_table
from .scenarios import SCENARIOS, Scenario

__all__ = ["main"]

Results = Dict[str, Any]


def main(arguments: Optional[List[str]] = None) -> int:
    options = _parser().parse_args(arguments)
    chosen = [scenario for scenario in SCENARIOS if not options.only or scenario.key.startswith(tuple(options.only))]
    if not chosen:
        print(f"no scenario begins with {' or '.join(options.only)}", file=sys.stderr)
        return 2
    started = time.monotonic()
    with _folder(options.environments) as folder:
        print("Setting up the two environments", file=sys.stderr)
        environments = Environments(folder)
        results: Results = {
            "machine": machine(),
            "versions": {side: environments.versions(side) for side in ("theirs", "ours")},
            "quick": options.quick,
            "scenarios": {},
        }
        with running_collector() as ports:
            for scenario in chosen:
                print(f"{time.monotonic() - started:4.0f} s  {scenario.key}", file=sys.stderr)
                results["scenarios"][scenario.key] = _figures_of(scenario, environments, ports, options.quick)
    results["seconds"] = round(time.monotonic() - started)
    print(table(results), end="\n\n")
    print(targets_table(results))
    print(f"\n{results['machine']}, {results['versions']}, {results['seconds']} s")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 tests/benchmarks", description="Measure this library against snowplow-tracker 1.1.0."
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: short, one round, figures that mean little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--only", action="append", metavar="KEY", help="only scenarios whose keys begin like this")
    parser.add_argument("--environments", type=Path, metavar="FOLDER", help="keep the two environments there")
    return parser


@contextlib.contextmanager
def _folder(given: Optional[Path]) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="snowplow-benchmarks-") as folder:
        yield Path(folder)


def _figures_of(scenario: Scenario, environments: Environments, ports: Dict[str, int], quick: bool) -> Results:
    options = {**scenario.options, **(scenario.quick if quick else {}), "ports": ports}
    sides = ("ours",) if scenario.is_ours_only else ("theirs", "ours")
    figures: Dict[str, Dict[str, List[float]]] = {}
    for _ in range(1 if quick else scenario.rounds):
        for side in sides:
            for figure, value in environments.run(side, scenario.workload, options).items():
                figures.setdefault(figure, {}).setdefault(side, []).append(value)
    return {"title": scenario.title, "note": scenario.note, "figures": figures}
