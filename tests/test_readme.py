"""What the README and the page about emitters tell the reader to type works as printed; the changelog is complete."""

import json
import re

import pytest
from pages import REPOSITORY, anchors, blocks, sections, text_of
from support import eventually

import snowplow_tracker
import snowplow_tracker.testing
from snowplow_tracker import Snowplow, __version__
from snowplow_tracker._cli.demo import demo

PAGES = [
    str(page.relative_to(REPOSITORY))
    for folder in (".", ".github", ".github/ISSUE_TEMPLATE", "docs")
    for page in sorted((REPOSITORY / folder).glob("*.md"))
]

DEMO_COMMAND = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python -m snowplow_tracker demo"
TEST_COMMAND = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest"
SITE_COMMAND = (
    "python3 -m venv .venv && .venv/bin/pip install -e '.[docs]' && "
    ".venv/bin/python -m sphinx -W --keep-going -n -E -b html docs build/site"
)
BENCHMARK_COMMAND = "python3 tests/benchmarks"


@pytest.fixture
def run():
    """Run Python samples one after the other, in one namespace, which is returned."""

    def execute(samples):
        namespace = {"__name__": "sample"}
        for sample in samples:
            exec(compile(sample, f"<{sample.splitlines()[0]}>", "exec"), namespace)
        return namespace

    Snowplow.reset()
    yield execute
    Snowplow.reset()


def test_first_event_arrives(run, capsys):
    """The README's first sample runs as it stands, and prints the event that arrived."""
    run(blocks(text_of("README.md"), "python")[:1])

    assert "'url': 'https://shop.example/', 'page': 'Welcome'" in capsys.readouterr().out


def test_first_event_takes_ten_lines():
    """A newcomer sees at a glance all that it takes."""
    sample = blocks(text_of("README.md"), "python")[0]

    assert len(sample.splitlines()) <= 10


def test_demonstration_prints_what_the_readme_shows(capsys):
    """The lines that the README shows are printed, in this order; dots stand for others between them."""
    demo()

    printed = digits_masked(capsys.readouterr().out).splitlines()
    (shown,) = blocks(text_of("README.md"), "text")
    first, last = digits_masked(shown).split("...\n")
    assert printed[: len(first.splitlines())] == first.splitlines()
    assert printed[-len(last.splitlines()) :] == last.splitlines()
    assert printed[-1] == shown.splitlines()[-1]


def digits_masked(text):
    """Put something in place of the port, and of the number of requests in vain, which chance decides."""
    return re.sub(r"(?<=127\.0\.0\.1:)\d+|(?<=answered )\d+", "N", text)


@pytest.mark.parametrize("command", [DEMO_COMMAND, TEST_COMMAND, SITE_COMMAND, BENCHMARK_COMMAND])
def test_set_up_is_one_command(command):
    """Each of the commands stands in a code block, on a line of its own, so that it can be copied."""
    assert f"{command}\n" in blocks(text_of("README.md"), "")


def test_tox_builds_the_site_the_same_way():
    """The command of the README and the one that tox runs are the same."""
    settings = text_of("pyproject.toml").partition("[tool.tox.env.docs]")[2].partition("[tool.coverage")[0]

    (command,) = re.findall(r"^commands = \[\[(.*)\]\]$", settings, flags=re.MULTILINE)

    assert SITE_COMMAND.endswith(f".venv/bin/{' '.join(json.loads(f'[{command}]'))}")


def test_what_is_better_is_told_in_five_lines():
    """The README makes curious; the page about moving compares in full."""
    section = sections("README.md")["What is better than in 1.1.0"]

    assert 1 <= len(re.findall(r"^- ", section, flags=re.MULTILINE)) <= 5
    assert "(docs/moving-from-1.1.0.md)" in section


def test_readme_leads_to_each_page():
    """A page that is added is named where a newcomer looks for it."""
    pages = {name for name in PAGES if name.startswith("docs/")} - {"docs/index.md", "docs/changelog.md"}

    assert [name for name in sorted(pages) if f"({name}" not in text_of("README.md")] == []


def test_changelog_begins_with_this_version():
    """Its newest section is about the version that the package has, and its parts have the usual names."""
    newest = re.search(r"^## \[(.+)\] - (.+)$", text_of("CHANGELOG.md"), flags=re.MULTILINE)
    titles = re.findall(r"^### (.*)$", text_of("CHANGELOG.md"), flags=re.MULTILINE)

    assert newest.group(1) == __version__
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", newest.group(2))
    assert f"\n[{__version__}]: https://" in text_of("CHANGELOG.md")
    assert set(titles) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_changelog_names_what_is_new(shared_folder):
    """Each public name that 1.1.0 did not have is in the changelog; of aliases of types, where they are from."""
    recorded = json.loads((shared_folder / "compat" / "api_surface.json").read_text(encoding="utf-8"))
    of_old = {*recorded["snowplow_tracker"], *snowplow_tracker.typing.__all__}
    new = [*snowplow_tracker.testing.__all__, *(name for name in snowplow_tracker.__all__ if name not in of_old)]

    assert [name for name in new if name not in text_of("CHANGELOG.md")] == []


def test_samples_about_emitters_run(run, collector, capsys):
    """The samples of the page about emitters run, one after the other, and their events arrive."""
    samples = [
        sample.replace("collector.example.com", collector.url)
        for sample in blocks(text_of("docs/emitters.md"), "python")
    ]

    names = run(samples)

    names["emitter"].sync_flush()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "1 0 0 0"
    assert printed[1].startswith("pv ")
    eventually(lambda: len(collector.payloads) == 4)
    assert sorted(payload["tna"] for payload in collector.payloads) == ["import", "shop", "shop", "shop"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """A link within the repository finds its file, and the heading in it."""
    targets = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text_of(page))
    files = {name: (REPOSITORY / page).parent / name if name else REPOSITORY / page for name, _ in targets}

    # A copy of the tests that is taken out of the repository may come without the licence.
    assert [name for name, file in files.items() if not file.exists() and name != "LICENSE"] == []
    assert [heading for name, heading in targets if heading and heading not in anchors(files[name])] == []
