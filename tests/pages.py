"""The pages of documentation, taken apart into what a reader copies out of them."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def text_of(page):
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks(text, language):
    """Return the code blocks in a language; those of no language for an empty name."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [code for name, code in found if name == language]


def sections(page):
    """Return the text below each heading of the second level, by the heading."""
    _, *parts = re.split(r"^## ", text_of(page), flags=re.MULTILINE)
    return {title: text for title, _, text in (part.partition("\n") for part in parts)}


def named_files(text, *languages):
    """Return the blocks that begin with a comment of a file's name, by that name."""
    found = {}
    for language in languages:
        for code in blocks(text, language):
            name = re.match(r"# ([\w.]+\.\w+)\n", code)
            if name:
                found[name.group(1)] = code
    return found


def anchors(page):
    """Return what a link may name of a page: its headings, the way that GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
