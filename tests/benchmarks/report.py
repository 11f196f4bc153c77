"""The tables of a run, as Markdown."""

from typing import Any, Dict, List

from .figures import Verdict, judged, median_of, ratio_of, shown
from .scenarios import SCENARIOS, TARGETS

__all__ = ["environment", "rows_of", "scale_table", "table", "targets_table", "verdict_line", "way_table"]

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


def way_table(results: Results) -> str:
    """Write what an event has cost when it has come so far, and what no library gets around."""
    kinds = ("structured", "self-describing")
    lines = [
        f"| µs of CPU | {' | '.join(f'{kind}, 1.1.0 | {kind}, this' for kind in kinds)} |",
        "|---|---:|---:|---:|---:|",
    ]
    for figure in results["scenarios"]["stages-structured"]["figures"]:
        costs = [median_of(results, f"stages-{kind}", figure, side) for kind in kinds for side in ("theirs", "ours")]
        lines.append(f"| {figure} | {' | '.join(map(shown, costs))} |")
    lines += ["", "| What nobody gets around | µs of CPU |", "|---|---:|"]
    for figure in results["scenarios"]["floors"]["figures"]:
        lines.append(f"| {figure} | {shown(median_of(results, 'floors', figure, 'ours'))} |")
    return "\n".join(lines)


def scale_table(results: Results) -> str:
    """Write what a million events cost, by how many of them share a request."""
    lines = [
        "| `batch_size` | events per second | CPU seconds per million events | gigabytes per million events |",
        "|---:|---:|---:|---:|",
    ]
    for scenario in results["scenarios"]:
        if scenario.startswith("batch-"):
            rate, cost, size = (
                median_of(results, scenario, figure, "ours")
                for figure in ("events per second", "CPU per event", "bytes per event")
            )
            assert size is not None
            batch_size = int(scenario[len("batch-") :])
            lines.append(f"| {batch_size:,} | {shown(rate)} | {shown(cost)} | {shown(size / 1000)} |")
    return "\n".join(lines)


def environment(results: Results) -> str:
    """Tell where and with what the run was made."""
    machine, versions = results["machine"], results["versions"]["ours"]
    return (
        f"Measured in {results['seconds']} s on {machine['processor']} with {machine['cores']} cores, "
        f"{machine['system']}, {machine['python']}, requests {versions['requests']}, urllib3 {versions['urllib3']}."
    )
