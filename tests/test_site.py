"""The site that Sphinx builds of the pages and the docstrings."""

import os
import re
import subprocess
import sys
from urllib.parse import unquote, urlsplit

import pytest
from pages import REPOSITORY, blocks, text_of
from support import PACKAGE_FOLDERS

import snowplow_tracker
from snowplow_tracker import contracts, testing

pytest.importorskip("sphinx", reason="needs sphinx, of the extra `docs`")
pytest.importorskip("furo", reason="needs furo, of the extra `docs`")
pytest.importorskip("myst_parser", reason="needs myst-parser, of the extra `docs`")
bs4 = pytest.importorskip("bs4", reason="needs beautifulsoup4, which furo brings along")

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(sys.version_info < (3, 10), reason="Sphinx does not know the Literal of typing_extensions"),
]

COMMAND = (
    "python3 -m venv .venv && .venv/bin/pip install -e '.[docs]'"
    " && .venv/bin/python -m sphinx -W --keep-going -n -E -b html docs build/site"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages by their names, built by the command of the README, with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    options = COMMAND.partition(" -m sphinx ")[2].replace("build/site", str(folder)).split()
    process = subprocess.run(
        [sys.executable, "-m", "sphinx", *options],
        cwd=str(REPOSITORY),
        env={**os.environ, "PYTHONPATH": PACKAGE_FOLDERS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=55,
    )
    assert process.returncode == 0, process.stdout
    return {
        file.name: bs4.BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser") for file in folder.glob("*.html")
    }


def test_readme_has_the_command():
    """It stands in a code block, on a line of its own, so that it can be copied."""
    assert f"{COMMAND}\n" in blocks(text_of("README.md"), "")


def test_each_page_is_built(site):
    """There is a page for each file, and they come with search."""
    assert {f"{page.stem}.html" for page in (REPOSITORY / "docs").glob("*.md")} <= set(site)
    assert "search.html" in site


def test_links_lead_somewhere(site):
    """Each link within the site finds its page, and the anchor in it."""
    anchors = {name: {tag["id"] for tag in page.select("[id]")} for name, page in site.items()}
    broken = []
    for name, page in site.items():
        for link in page.select("a[href]"):
            target = urlsplit(link["href"])
            if target.scheme or target.netloc:
                continue
            file, anchor = target.path or name, unquote(target.fragment)
            if file not in site or (anchor and anchor not in anchors[file]):
                broken.append((name, link["href"]))

    assert sum(len(page.select("a[href]")) for page in site.values()) > 500
    assert broken == []


def test_nothing_comes_from_elsewhere(site):
    """A reader's browser asks no other server for anything."""
    sources = [
        tag.get("src") or tag["href"]
        for page in site.values()
        for tag in page.select("[src], link[href]:not([rel~=canonical])")
    ]

    assert sources
    assert [source for source in sources if urlsplit(source).netloc] == []


def test_version_is_that_of_the_package(site):
    """The title names the version, so that nobody reads about another one."""
    assert snowplow_tracker.__version__ in site["index.html"].title.text


def test_reference_has_each_public_name(site):
    """What can be imported from the root, from `contracts` and from `testing` is described, or is in the table."""
    page = site["api.html"]
    described = {tag["id"].rpartition(".")[2] for tag in page.select("dt.sig[id]")}
    in_table = {code.text for code in page.select("td:first-child code")}

    names = {*snowplow_tracker.__all__, *contracts.__all__, *testing.__all__} - {"__version__"}
    assert names <= described | in_table


def test_reference_has_no_private_names(site):
    """What is described, and what its signature says, is public."""
    signatures = site["api.html"].select("dt.sig")

    texts = [signature.get_text() for signature in signatures]
    assert len(texts) > 200
    assert [text for text in texts if re.search(r"(?<![\w'\"])_[A-Za-z]|\._[A-Za-z]", text)] == []
    assert [tag["id"] for tag in signatures if re.search(r"\._[A-Za-z]", tag.get("id", ""))] == []
