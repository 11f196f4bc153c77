"""Medians, ratios, and whether a target is met."""

from statistics import median
from typing import Any, Dict, List, NamedTuple, Optional

__all__ = ["Target", "Verdict", "judged", "median_of", "ratio_of", "shown"]

Results = Dict[str, Any]


class Target(NamedTuple):
    """What a figure has to be.

    Attributes:
        scenario: Key of the scenario.
        figure: Name of one of its figures.
        limit: The bound, of the ratio to 1.1.0 or of an absolute quotient.
        at_least: Whether the ratio must reach the limit; otherwise it must not exceed it.
        over: Another figure of this library's own, to which the first is held instead of to 1.1.0.
    """

    scenario: str
    figure: str
    limit: float
    at_least: bool = False
    over: Optional[str] = None


class Verdict(NamedTuple):
    """A target, and what came of it; no ratio if there are no figures to tell it from."""

    target: Target
    ratio: Optional[float]
    is_met: bool


def median_of(results: Results, scenario: str, figure: str, side: str) -> Optional[float]:
    """Return the median over the rounds of one side, `ours` or `theirs`."""
    values: List[float] = results["scenarios"].get(scenario, {}).get("figures", {}).get(figure, {}).get(side, [])
    return median(values) if values else None


def ratio_of(results: Results, scenario: str, figure: str, over: Optional[str] = None) -> Optional[float]:
    """Divide our median by that of 1.1.0, or by that of another figure of ours.

    For what is better the less there is of it and has a target "at least", see `judged`.
    """
    ours = median_of(results, scenario, figure, "ours")
    other = (
        median_of(results, scenario, figure, "theirs") if over is None else median_of(results, scenario, over, "ours")
    )
    return None if ours is None or not other else ours / other


def judged(results: Results, target: Target) -> Verdict:
    """Hold a run to a target.

    A target "at least" speaks of speed. Where the figure is a cost, the speed is its reciprocal.
    """
    ratio = ratio_of(results, target.scenario, target.figure, target.over)
    if ratio is None:
        return Verdict(target, None, False)
    if target.at_least and not target.figure.endswith("per second"):
        ratio = 1 / ratio if ratio else float("inf")
    # Nobody can tell 1.001 times the memory from the same memory.
    rounded = round(ratio, 2) if ratio > 0.1 else ratio
    return Verdict(target, ratio, rounded >= target.limit if target.at_least else rounded <= target.limit)


def shown(value: Optional[float]) -> str:
    """Write a figure with as many digits as mean something."""
    if value is None:
        return "-"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
