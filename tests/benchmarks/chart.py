"""The targets of a run as a picture."""

import math
from typing import Any, Dict, List
from xml.sax.saxutils import escape

from .figures import Verdict, judged, shown
from .scenarios import SCENARIOS, TARGETS

__all__ = ["chart"]

_ROW, _LEFT, _WIDTH, _TOP, _BOTTOM = 26, 350, 480, 54, 40
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.small{font-size:11px;fill:#57606a}.head{font-weight:600}"
    ".met{fill:#2c7a4b}.missed{fill:#b35900}.grid{stroke:#d0d7de}.one{stroke:#24292f}"
    ".target{stroke:#24292f;stroke-width:2}"
)


def chart(results: Dict[str, Any]) -> str:
    """Draw how many times better than 1.1.0 each figure is, on a logarithmic scale, and the target as a mark."""
    verdicts = [judged(results, target) for target in TARGETS if target.over is None]
    bars = [verdict for verdict in verdicts if verdict.ratio]
    highest = max([_gain(verdict) for verdict in bars] + [10.0])
    decades = math.ceil(math.log10(highest))
    lowest = -0.35
    height = _TOP + _ROW * len(bars) + _BOTTOM

    def x(gain: float) -> float:
        return _LEFT + _WIDTH * (max(math.log10(gain), lowest) - lowest) / (decades - lowest)

    bottom = _TOP + _ROW * len(bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 70} {height}" role="img">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_LEFT + _WIDTH + 70}" height="{height}" fill="#ffffff"/>',
        '<text class="head" x="12" y="24">Times better than snowplow-tracker 1.1.0</text>',
        '<text class="small" x="12" y="42">median of alternating rounds; the mark is the target</text>',
    ]
    for decade in range(decades + 1):
        place = x(10.0**decade)
        kind = "grid" if decade else "one"
        parts.append(f'<line class="{kind}" x1="{place:.1f}" y1="{_TOP - 6}" x2="{place:.1f}" y2="{bottom}"/>')
        parts.append(
            f'<text class="small" x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">{10**decade:,} x</text>'
        )
    for row, verdict in enumerate(bars):
        parts += _bar(verdict, _TOP + _ROW * row, x)
    return "\n".join([*parts, "</svg>", ""])


def _bar(verdict: Verdict, top: int, x: Any) -> List[str]:
    gain, target = _gain(verdict), verdict.target
    start, end = sorted((x(1.0), x(gain)))
    mark = x(target.limit if target.at_least else 1 / target.limit)
    title = next(scenario.title for scenario in SCENARIOS if scenario.key == target.scenario).replace("`", "")
    middle = top + _ROW / 2
    kind = "met" if verdict.is_met else "missed"
    width = max(1.0, end - start)
    return [
        f'<text x="{_LEFT - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(title)}</text>',
        f'<rect class="{kind}" x="{start:.1f}" y="{top + 5}" width="{width:.1f}" height="{_ROW - 10}"/>',
        f'<line class="target" x1="{mark:.1f}" y1="{top + 2}" x2="{mark:.1f}" y2="{top + _ROW - 2}"/>',
        f'<text class="small" x="{max(end, mark) + 6:.1f}" y="{middle + 4:.1f}">{shown(gain)} x</text>',
    ]


def _gain(verdict: Verdict) -> float:
    assert verdict.ratio
    return verdict.ratio if verdict.target.at_least else 1 / verdict.ratio
