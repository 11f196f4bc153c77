"""The pictures of the documentation are what their scripts draw, and show the library as it is."""

import importlib.util
import random
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pages import REPOSITORY, text_of
from support import PACKAGE_FOLDERS, PYTEST_PLUGIN

import snowplow_tracker
from snowplow_tracker._retry import MIN_RETRY_DELAY_SECONDS, next_delay, should_retry

FOLDER = REPOSITORY / "docs" / "pictures"
FILES = sorted(file.name for file in FOLDER.iterdir() if file.suffix in (".png", ".svg"))
SVG_FILES = [name for name in FILES if name.endswith(".svg")]
PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (REPOSITORY / "docs").glob("*.md"))]

SVG = "{http://www.w3.org/2000/svg}"
LIMIT_SECONDS = 50


def script(name):
    specification = importlib.util.spec_from_file_location(name, str(FOLDER / f"{name}.py"))
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def draw():
    return script("draw")


def read(name):
    return (FOLDER / name).read_bytes().decode("utf-8")


def texts(name):
    """What can be read in a picture, line by line."""
    return ["".join(found.itertext()) for found in ElementTree.fromstring(read(name)).iter(f"{SVG}text")]


def places(name):
    """Return the alternative texts of the places in the pages where a picture is shown."""
    found = []
    for page in PAGES:
        folder = "docs/pictures/" if page == "README.md" else "pictures/"
        found += re.findall(rf"!\[([^\]]+)\]\({folder}{re.escape(name)}\)", text_of(page))
    return [re.sub(r"\s+", " ", alternative) for alternative in found]


def test_pictures_are_all_there(draw):
    """What the scripts draw is in the folder, and nothing else is."""
    assert sorted([*draw.pictures(), script_of_the_page_saves()]) == FILES


def script_of_the_page_saves():
    return re.search(r'PICTURE = .* / "(.*)"', read("screenshot.py")).group(1)


@pytest.mark.parametrize("name", SVG_FILES)
def test_picture_is_what_the_script_draws(draw, name):
    """Nobody has changed a picture by hand, or the library without drawing it anew, to the byte."""
    assert read(name) == draw.pictures()[name]


@pytest.mark.parametrize("name", SVG_FILES)
def test_picture_can_be_read(name):
    """It is well-formed, tells those who cannot see it what it shows, has text as text, and a sheet of its own."""
    root = ElementTree.fromstring(read(name))

    title, description, *_ = list(root)
    sheet = next(root.iter(f"{SVG}rect"))
    assert (root.tag, root.get("role")) == (f"{SVG}svg", "img")
    assert (title.tag, description.tag) == (f"{SVG}title", f"{SVG}desc")
    assert [title.get("id"), description.get("id")] == root.get("aria-labelledby").split()
    assert all(element.text.strip() for element in (title, description))
    assert (sheet.get("width"), sheet.get("height")) == (root.get("width"), root.get("height"))
    assert float(sheet.get("rx")) > 0
    assert sheet.get("fill") == "#fff"
    assert set(re.findall(r"font:\S+ ([^;}]+)", read(name))) == {"system-ui,sans-serif", "ui-monospace,monospace"}
    assert len(texts(name)) > 5


@pytest.mark.parametrize("name", FILES)
def test_picture_is_shown_somewhere(name):
    """Each picture stands in a page, with an alternative text."""
    assert places(name)


def test_screenshot_is_small():
    """A page of the documentation is read where bandwidth is little, too."""
    content = (FOLDER / "micro-ui.png").read_bytes()

    assert content.startswith(b"\x89PNG\r\n")
    assert len(content) < 150_000


@pytest.mark.thorough
def test_screenshot_can_be_taken_again(tmp_path):
    """The script finds the page as it is now, and a bad event in the place where it looks for it."""
    pytest.importorskip("selenium", reason="needs selenium")
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("needs chromium and chromedriver")
    target = tmp_path / "page.png"

    chosen = script("screenshot").take(target)

    assert chosen == "page_ping bad"
    assert target.read_bytes().startswith(b"\x89PNG\r\n")


def test_states_name_the_statuses_that_reject():
    """The picture of the states has each status that is not worth repeating, and no other."""
    named = {int(status) for line in texts("payload-states.svg") for status in re.findall(r"\b\d{3}\b", line)}

    assert named == {status for status in range(300, 600) if not should_retry(status, {})}


def test_flow_names_what_there_is():
    """Whatever in the picture of the flow looks like a name of the library is one."""
    package = Path(snowplow_tracker.__file__).parent
    source = "".join(file.read_text(encoding="utf-8") for file in package.glob("*.py"))
    names = {name for line in texts("event-flow.svg") for name in re.findall(r"\w+", line) if "_" in name}

    assert len(names) > 5
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", source)] == []


def test_pauses_are_those_of_the_library(draw):
    """Pauses that chance makes lie within the band, and come near to its bounds."""
    chance = random.Random(7)
    maximum = draw.default_maximum()
    band = draw.backoff(14, maximum)
    seen = [[] for _ in band]
    for _ in range(3000):
        # Chance is seldom extreme many times in a row, so it gets a bias, which differs from series to series.
        bias = chance.choice([0.02, 1.0, 50.0])
        delay = 0.0
        for pauses in seen:
            delay = next_delay(delay, maximum, jitter=lambda bias=bias: chance.random() ** (1 / bias))
            pauses.append(delay)

    assert maximum == 60
    assert band[0] == (MIN_RETRY_DELAY_SECONDS, 0.5, 1.0)
    assert band[-1] == (30, 45, 60)
    for pauses, bounds in zip(seen, band):
        assert bounds.shortest <= min(pauses)
        assert max(pauses) <= bounds.longest
        assert min(pauses) == pytest.approx(bounds.shortest, rel=0.2)
        assert max(pauses) == pytest.approx(bounds.longest, rel=0.02)


def test_requests_of_an_outage_are_those_of_the_library(draw):
    """An hour without a collector makes as many requests as the picture says, and its alternative text, too."""
    (title,) = (line for line in texts("backoff.svg") if "typically" in line)
    fewest, most, usual = map(int, re.findall(r"\d+", title))
    chance = random.Random(7)

    counts = [len(draw.attempts_until(3600, draw.default_maximum(), chance.random)) for _ in range(300)]

    assert fewest <= min(counts) <= max(counts) <= most
    assert sum(counts) / len(counts) == pytest.approx(usual, abs=2)
    assert all(f"{fewest} to {most} requests" in alternative for alternative in places("backoff.svg"))


@pytest.mark.thorough
def test_failure_is_what_pytest_prints(draw, pytester, monkeypatch):
    """The lines in the terminal are among those that pytest prints of the test, in their order."""
    monkeypatch.setenv("PYTHONPATH", PACKAGE_FOLDERS)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(test_checkout=draw.CHECKOUT_TEST)
    shown = [line.replace("\u00a0", " ") for line in texts("failing-assertion.svg")]
    command, *lines = (re.sub(r"eid [0-9a-f-]{36}", "eid ...", line) for line in shown)

    result = pytester.runpytest_subprocess("-p", PYTEST_PLUGIN, *command.split()[2:], timeout=LIMIT_SECONDS)

    printed = [re.sub(r"eid [0-9a-f-]{36}", "eid ...", line) for line in result.outlines]
    assert command == "$ pytest --tb=short"
    assert result.ret == 1
    # The last line goes on with as much of the message as there is room for.
    assert lines[:-1] == [line for line in printed if line in lines]
    assert any(line.startswith(lines[-1]) for line in printed)
