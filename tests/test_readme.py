"""What the README and the pages of documentation tell the reader to type works as it is printed."""

import json
import os
import re
import subprocess
import sys
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest
from support import eventually

from snowplow_tracker import Snowplow

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / name for name in ("README.md", "CHANGELOG.md")]
PAGES += sorted((REPOSITORY / "docs").glob("*.md"))

DEMO_COMMAND = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python -m snowplow_tracker demo"
TEST_COMMAND = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest"


def blocks(page, language):
    """Return the code blocks of a page in a language; those of no language for an empty name."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [code for name, code in found if name == language]


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
    run(blocks("README.md", "python")[:1])

    assert "'url': 'https://shop.example/', 'page': 'Welcome'" in capsys.readouterr().out


def test_first_event_takes_ten_lines():
    """A newcomer sees at a glance all that it takes."""
    sample = blocks("README.md", "python")[0]

    assert len(sample.splitlines()) <= 10


def test_second_event_has_all_its_parts(run):
    """The README's second sample goes on where the first ends: its event waits with data, entity and user."""
    names = run(blocks("README.md", "python"))

    (payload,) = names["shop"].emitters[0].event_store.event_buffer
    assert (payload["e"], payload["p"], payload["uid"], payload["tna"]) == ("ue", "srv", "c-17", "shop")
    assert [json.loads(urlsafe_b64decode(payload[name]))["data"] for name in ("ue_px", "cx")] == [
        names["order"].to_json(),
        [names["product"].to_json()],
    ]


@pytest.mark.parametrize("command", [DEMO_COMMAND, TEST_COMMAND])
def test_set_up_is_one_command(command):
    """Each of the two commands stands in a code block, on a line of its own, so that it can be copied."""
    assert f"{command}\n" in blocks("README.md", "")


def test_samples_about_emitters_run(run, collector, capsys):
    """The samples of the page about emitters run, one after the other, and their events arrive."""
    samples = [
        sample.replace("collector.example.com", collector.url) for sample in blocks("docs/emitters.md", "python")
    ]

    names = run(samples)

    names["emitter"].sync_flush()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "1 0 0 0"
    assert printed[1].startswith("pv ")
    eventually(lambda: len(collector.payloads) == 4)
    assert sorted(payload["tna"] for payload in collector.payloads) == ["import", "shop", "shop", "shop"]


def test_sample_of_a_test_passes(tmp_path):
    """The sample about tests of one's own stands alone: pytest collects it and it passes."""
    (sample,) = [sample for sample in blocks("docs/emitters.md", "python") if "import pytest" in sample]
    file = tmp_path / "test_sample.py"
    file.write_text(sample, encoding="utf-8")

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(file)]
    # A run inside of this one must not take over what this one measures.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, env=environment)

    assert run.returncode == 0, run.stdout.decode()
    assert b"1 passed" in run.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """A link to another file of the repository finds it."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))

    missing = [target for target in targets if not (page.parent / target).exists()]

    # A copy of the tests that is taken out of the repository may come without the licence.
    assert [target for target in missing if target != "LICENSE"] == []
