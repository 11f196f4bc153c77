"""What the README and the page about emitters tell the reader to type works as it is printed."""

import json
import re
from base64 import urlsafe_b64decode

import pytest
from pages import REPOSITORY, anchors, blocks, text_of
from support import eventually

from snowplow_tracker import Snowplow

PAGES = ["README.md", "CHANGELOG.md", *sorted(f"docs/{page.name}" for page in (REPOSITORY / "docs").glob("*.md"))]

DEMO_COMMAND = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python -m snowplow_tracker demo"
TEST_COMMAND = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest"


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


def test_second_event_has_all_its_parts(run):
    """The README's second sample goes on where the first ends: its event waits with data, entity and user."""
    names = run(blocks(text_of("README.md"), "python")[:2])

    (payload,) = names["shop"].emitters[0].event_store.event_buffer
    assert (payload["e"], payload["p"], payload["uid"], payload["tna"]) == ("ue", "srv", "c-17", "shop")
    assert [json.loads(urlsafe_b64decode(payload[name]))["data"] for name in ("ue_px", "cx")] == [
        names["order"].to_json(),
        [names["product"].to_json()],
    ]


@pytest.mark.parametrize("command", [DEMO_COMMAND, TEST_COMMAND])
def test_set_up_is_one_command(command):
    """Each of the two commands stands in a code block, on a line of its own, so that it can be copied."""
    assert f"{command}\n" in blocks(text_of("README.md"), "")


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
