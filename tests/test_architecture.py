"""The architecture of the package, as a list, and the tests that hold the source to it."""

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Set

import pytest

# The diagram. A module imports only from lines above its own, so modules on one line know nothing of each other.
# The root of the package stands below all of this: it re-exports, and no module imports from it.
LAYERS: Dict[str, List[str]] = {
    "0 the version; shapes of data, protocols that users implement": [
        "_version typing",
    ],
    "1 building blocks; one request, when to retry, call later, threads, exit and fork": [
        "_shown",
        "constants contracts _deadline _event_ids _json _reporting _retry _settings",
        "payload self_describing_json subject _wire",
        "_endpoint _flush_timer _lifecycle _redis_connection _transport _worker_pool",
    ],
    "2 where payloads wait; one event type each": [
        "_process_identity _redis_stream _sqlite_file",
        "event_store events._wire_field redis_event_store sqlite_event_store",
        "events.event",
        "events.page_ping events.page_view events.screen_view events.self_describing events.structured_event",
        "events",
    ],
    "3 deciding when to send and what an outcome means; settings": [
        "_delivery _ledger _store_url",
        "emitters store_only_emitter",
        "emitter_configuration tracker_configuration",
    ],
    "4 the deprecated track_* methods": [
        "_legacy_tracking",
    ],
    "5 completing events, fan-out; registry by namespace": [
        "tracker",
        "snowplow",
    ],
    "6 what users test and try with": [
        "testing._changes testing._collected",
        "testing._containment testing._enriched testing._http_server testing._iglu testing._recent",
        "testing._expectation testing._pipeline testing._readable",
        "testing._event_log testing._failure_messages",
        "testing._assertions testing._micro",
        "testing._micro_ui",
        "testing.collector testing.recorder",
        "testing.event_store_contract testing.kit",
        "testing",
        "_cli.exit_codes _cli.interruption _cli.proxy _cli.usage _cli.values",
        "_cli.event_lines _cli.flow _cli.progress _cli.subjects",
        "_cli.json_lines",
        "_cli.demo _cli.forward _cli.micro _cli.send _cli.track",
        "_cli",
        "__main__",
    ],
}
HEIGHTS = {
    module: height
    for height, line in enumerate(line for lines in LAYERS.values() for line in lines)
    for module in line.split()
}
ROOT = "__init__"

# Names that a module may define beside its API: everybody knows what they are, nobody imports them with a star.
UNLISTED = {"logger"}


def package_folder() -> Path:
    """Find the package where it would be imported from: the checkout, or the installed wheel."""
    spec = find_spec("snowplow_tracker")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def module_name(file: Path, package: Path) -> str:
    parts = file.relative_to(package).with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


FOLDER = package_folder()
# The plugin for pytest is installed beside the package, and is no part of it.
FILES = {module_name(file, FOLDER): file for file in sorted(FOLDER.rglob("*.py")) if file.parent.name != "_pytest11"}


class Module:
    """One module's source, and what it says about itself."""

    def __init__(self, name: str, source: str, *, is_package: bool = False) -> None:
        self.name = name
        self.tree = ast.parse(source)
        self.is_package = is_package

    @classmethod
    def load(cls, name: str) -> "Module":
        file = FILES[name]
        return cls(name, file.read_text(encoding="utf-8"), is_package=file.name == "__init__.py")

    def imports(self) -> Iterator["Import"]:
        """Every import of this package's own modules, wherever it stands."""
        inside_functions = {
            id(inner)
            for outer in ast.walk(self.tree)
            if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for inner in ast.walk(outer)
        }
        for node in ast.walk(self.tree):
            nested = id(node) in inside_functions
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "snowplow_tracker":
                        yield Import(alias.name, relative=False, nested=nested)
            elif isinstance(node, ast.ImportFrom) and node.level:
                for target in self._targets(node):
                    yield Import(target, relative=True, nested=nested)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "snowplow_tracker":
                yield Import(str(node.module), relative=False, nested=nested)

    def _targets(self, node: ast.ImportFrom) -> Set[str]:
        package = [] if self.name == ROOT else self.name.split(".")
        climb = node.level - (1 if self.is_package else 0)
        base = package[: len(package) - climb] if package else []
        if node.module:
            base = [*base, *node.module.split(".")]
        # `from . import name` means a module where there is one of that name, else an attribute of the package.
        inner = {".".join([*base, alias.name]) for alias in node.names}
        return {target if target in HEIGHTS else ".".join(base) or ROOT for target in inner}

    def bound_names(self) -> Dict[str, bool]:
        """Every name that the module binds at top level, and whether it is defined here rather than imported."""
        names: Dict[str, bool] = {}
        for node in top_level(self.tree.body):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                names[node.name] = True
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names.update({(alias.asname or alias.name).split(".")[0]: False for alias in node.names})
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names.update(
                    {
                        name.id: True
                        for target in targets
                        for name in ast.walk(target)
                        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
                    }
                )
        return names

    def listed_names(self) -> List[str]:
        """What `__all__` says."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
                return list(ast.literal_eval(node.value))
        pytest.fail(f"{self.name} has no __all__")


class Import(NamedTuple):
    """An import of one module of the package by another."""

    target: str
    relative: bool
    nested: bool


def top_level(body: List[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run at import, those below an `if` or `try` included."""
    for node in body:
        yield node
        for branch in ("body", "orelse", "finalbody", "handlers"):
            if isinstance(node, (ast.If, ast.Try, ast.With, ast.ExceptHandler)):
                yield from top_level(getattr(node, branch, []))


def misplaced_imports(module: Module) -> List[str]:
    """Tell which imports the diagram does not allow, and why."""
    complaints = []
    for imported in module.imports():
        if not imported.relative:
            complaints.append(f"{imported.target} is imported by its absolute name")
        elif imported.target == ROOT:
            complaints.append("the root of the package is imported")
        elif imported.nested:
            complaints.append(f"{imported.target} is imported inside a function")
        elif module.name != ROOT and HEIGHTS.get(imported.target, len(HEIGHTS)) >= HEIGHTS[module.name]:
            complaints.append(f"{imported.target} does not stand above {module.name}")
    return complaints


def export_mistakes(module: Module) -> List[str]:
    """Tell where `__all__` and the module's names disagree."""
    listed = module.listed_names()
    bound = module.bound_names()
    public = {name for name, is_own in bound.items() if is_own and not name.startswith("_")} - UNLISTED
    return [
        *(f"{name} is public and not listed" for name in sorted(public - set(listed))),
        *(f"{name} is listed and does not exist" for name in listed if name not in bound),
        *(["the list is not sorted, or has a name twice"] if listed != sorted(set(listed)) else []),
    ]


def names_in_users_file() -> Set[str]:
    """Every name that `tests/typing/user.py` imports from the package."""
    tree = ast.parse((Path(__file__).parent / "typing" / "user.py").read_text(encoding="utf-8"))
    return {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("snowplow_tracker")
        for alias in node.names
    }


each_module = pytest.mark.parametrize("name", FILES)
each_public_module = pytest.mark.parametrize("name", [name for name in FILES if "._" not in f".{name}" or name == ROOT])


def test_each_module_stands_in_the_diagram():
    """The list in this file is the architecture diagram, so no module is missing in it."""
    assert sorted(set(FILES) - {ROOT} - set(HEIGHTS)) == []


def test_each_module_of_the_diagram_exists():
    """The diagram shows what is there, not what was or what will be."""
    assert sorted(set(HEIGHTS) - set(FILES)) == []


def test_no_module_stands_in_the_diagram_twice():
    """A module has one place."""
    modules = [module for lines in LAYERS.values() for line in lines for module in line.split()]

    assert len(modules) == len(set(modules))


@each_module
def test_module_imports_only_from_above(name):
    """A module imports only from lines above its own: relatively, at top level, and never from the root."""
    assert not misplaced_imports(Module.load(name))


@each_module
def test_module_opens_with_a_docstring(name):
    """Each module says what it owns before anything else."""
    assert ast.get_docstring(Module.load(name).tree)


@each_module
def test_all_is_complete_and_sorted(name):
    """`__all__` lists every public name that the module defines, none that it lacks, in alphabetical order."""
    assert not export_mistakes(Module.load(name))


@each_public_module
def test_public_names_are_used_in_typed_code(name):
    """A public name is a promise, to type checkers as well: `tests/typing/user.py` imports it."""
    assert not set(Module.load(name).listed_names()) - names_in_users_file()


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("payload", "from .contracts import one_of", None),
        ("payload", "from . import contracts", None),
        ("payload", "import requests", None),
        ("events.page_view", "from .event import Event", None),
        ("events.page_view", "from ..payload import Payload", None),
        ("contracts", "from .payload import Payload", "payload does not stand above contracts"),
        ("payload", "from .subject import Subject", "subject does not stand above payload"),
        ("payload", "from . import subject", "subject does not stand above payload"),
        ("events.page_view", "from .page_ping import PagePing", "events.page_ping does not stand above"),
        ("events.event", "from . import PageView", "events does not stand above events.event"),
        ("events.event", "from .. import emitters", "emitters does not stand above events.event"),
        ("payload", "from .nowhere import x", "nowhere does not stand above payload"),
        ("tracker", "from . import Emitter", "the root of the package is imported"),
        ("events.event", "from .. import Emitter", "the root of the package is imported"),
        ("tracker", "import snowplow_tracker.payload", "snowplow_tracker.payload is imported by its absolute name"),
        ("tracker", "from snowplow_tracker import payload", "snowplow_tracker is imported by its absolute name"),
        ("tracker", "def f():\n from .payload import Payload", "payload is imported inside a function"),
    ],
)
def test_import_rules_tell_right_from_wrong(name, source, complaint):
    """The rule about imports catches what it is there for, and nothing else."""
    complaints = misplaced_imports(Module(name, source))

    assert len(complaints) == (complaint is not None)
    assert all(found.startswith(str(complaint)) for found in complaints)


def test_package_may_import_from_its_own_modules():
    """The `__init__` of a subpackage stands below its modules and gathers them."""
    module = Module("events", "from .page_view import PageView\nfrom ..payload import Payload", is_package=True)

    assert [imported.target for imported in module.imports()] == ["events.page_view", "payload"]
    assert misplaced_imports(module) == []


@pytest.mark.parametrize(
    ("source", "mistake"),
    [
        ("__all__ = ['A', 'b']\nclass A: ...\ndef b(): ...\nlogger = _x = 1", None),
        ("from x import A\n__all__ = ['A']", None),
        ("__all__ = []\nif True:\n  B: int = 1", "B is public and not listed"),
        ("__all__ = []\ntry:\n  pass\nexcept ImportError:\n  B = 1", "B is public and not listed"),
        ("__all__ = ['B']", "B is listed and does not exist"),
        ("__all__ = ['b', 'A']\nA, b = 1, 2", "the list is not sorted, or has a name twice"),
        ("__all__ = ['A', 'A']\nA = 1", "the list is not sorted, or has a name twice"),
    ],
)
def test_export_rules_tell_right_from_wrong(source, mistake):
    """The rule about `__all__` catches what it is there for, and nothing else."""
    assert export_mistakes(Module("payload", source)) == ([] if mistake is None else [mistake])


def test_module_without_all_is_caught():
    """A module cannot escape the rule by leaving `__all__` out."""
    with pytest.raises(pytest.fail.Exception, match="payload has no __all__"):
        export_mistakes(Module("payload", "A = 1"))
