"""The table of a run, as Markdown."""

from typing import Any, Dict, List

from .figures import Verdict, judged, median_of, ratio_of, shown
from .scenarios import SCENARIOS, TARGETS

__all__ = ["rows_of", "table", "targets_table", "verdict_line"]

Results = Dict[str, Any]

_UNITS = {
    "cost": "cost, µs of CPU",
    "CPU per event": "CPU per event, µs",
    "p50": "p50, µs",
    "p99": "p99, µs",
    "max": "max, µs",
}
_IN_US = ("stages", "floors", "many")


def table(results: Results) -> str:
    """Write all figures: the medians of both, and ours divided by that of 1.1.0."""
    lines = ["| Scenario | Figure | 1.1.0 | this | this / 1.1.0 |", "|---|---|---:|---:|---:|"]
    for scenario in results["scenarios"]:
        lines += rows_of(results, scenario)
    return "\n".join(lines)


def rows_of(results: Results, scenario: str) -> List[str]:
    entry = results["scenarios"][scenario]
    unit = ", µs of CPU" if scenario.startswith(_IN_US) else ""
    rows = []
    for number, figure in enumerate(entry["figures"]):
        ours, theirs = (median_of(results, scenario, figure, side) for side in ("ours", "theirs"))
        ratio = shown(ratio_of(results, scenario, figure))
        title = entry["title"] if number == 0 else ""
        rows.append(f"| {title} | {_UNITS.get(figure, figure + unit)} | {shown(theirs)} | {shown(ours)} | {ratio} |")
    return rows


def targets_table(results: Results) -> str:
    """Write each target, and whether the run has met it."""
    lines = ["| Target | Wanted | Measured | |", "|---|---:|---:|---|"]
    lines += [verdict_line(judged(results, target)) for target in TARGETS if target.scenario in results["scenarios"]]
    return "\n".join(lines)


def verdict_line(verdict: Verdict) -> str:
    target = verdict.target
    title = next((scenario.title for scenario in SCENARIOS if scenario.key == target.scenario), target.scenario)
    figure = target.figure if target.over is None else f"{target.figure} to {target.over}"
    if target.at_least and not target.figure.endswith("per second"):
        figure = "times as fast"
    elif target.at_least:
        figure = f"times the {target.figure}"
    sign = "≥" if target.at_least else "≤"
    wanted = f"{sign} 1/{1 / target.limit:.0f}" if target.limit < 0.1 else f"{sign} {target.limit:g}"
    outcome = "met" if verdict.is_met else "**not met**"
    return f"| {title}: {figure} | {wanted} | {shown(verdict.ratio)} | {outcome} |"
