"""Puts a run into the documentation: `python3 tests/benchmarks/page.py run.json`.

Keeps the run as `docs/performance.json`, draws `docs/performance.svg` from it, and fills the tables in
`docs/performance.md`. Without an argument it does so with the run that is kept.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

if __name__ == "__main__":
    # Run as a file, this belongs to no package by itself.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.chart import chart
from benchmarks.report import environment, scale_table, table, targets_table, way_table

__all__ = ["TABLES", "filled", "main"]

_DOCS = Path(__file__).resolve().parents[2] / "docs"

TABLES: Dict[str, Callable[[Dict[str, Any]], str]] = {
    "environment": environment,
    "targets": targets_table,
    "way": way_table,
    "scale": scale_table,
    "all figures": table,
}


def filled(page: str, results: Dict[str, Any]) -> str:
    """Replace what stands between the marks of each table, such as `<!-- targets -->` and `<!-- end of targets -->`.

    Raises:
        ValueError: If a table has no place in the page.
    """
    for name, write in TABLES.items():
        place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)
        if not place.search(page):
            raise ValueError(f"the page must have a place for {name}")
        text = f"\n{write(results)}\n\n"
        page = place.sub(lambda _, text=text: text, page)  # type: ignore[misc]  # no backslash in it has a meaning
    return page


def main(arguments: List[str]) -> int:
    kept, page = _DOCS / "performance.json", _DOCS / "performance.md"
    if arguments:
        kept.write_text(Path(arguments[0]).read_text(encoding="utf-8"), encoding="utf-8")
    results = json.loads(kept.read_text(encoding="utf-8"))
    (_DOCS / "performance.svg").write_text(chart(results), encoding="utf-8")
    page.write_text(filled(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
