"""Schemas in a folder: which of them is taken, and what it has against data."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from snowplow_tracker.testing._iglu import SCHEMA_URI, SchemaFolder

pytestmark = pytest.mark.thorough

URI = "iglu:com.acme/thing/jsonschema/1-0-0"
SNOWPLOW = "http://iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0#"
ID = "5628c4c6-3f8a-43f8-a09f-6ff68f68dfb6"
IMPORTS = "import sys, snowplow_tracker.testing, snowplow_tracker.testing._pipeline; print(*sys.modules)"


@pytest.fixture
def write(tmp_path):
    """Puts a schema into the folder `tmp_path`."""

    def write_schema(schema, uri=URI, folder=tmp_path):
        file = folder / uri[len("iglu:") :]
        file.parent.mkdir(parents=True, exist_ok=True)
        text = schema if isinstance(schema, str) else json.dumps({"$schema": SNOWPLOW, **schema})
        file.write_text(text, encoding="utf-8")

    return write_schema


@pytest.fixture
def errors(tmp_path, write):
    """Holds data against a schema."""

    def find(schema, data):
        write(schema)
        return SchemaFolder(tmp_path).errors(URI, data)

    return find


TEXTS = {
    "uuid": ID,
    "date-time": "2024-02-29T12:00:00Z",
    "^iglu:[a-zA-Z0-9-_.]+/[a-zA-Z0-9-_]+/[a-zA-Z0-9-_]+/[0-9]+-[0-9]+-[0-9]+$": URI,
    "^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$|^[0-9a-f]{16}$": ID,
    "^[a-fA-F0-9]{8}-[a-fA-F0-9]{4}-[a-fA-F0-9]{4}-[a-fA-F0-9]{4}-[a-fA-F0-9]{12}$": ID,
    "^(\\d+\\.\\d+\\.\\d+.*)$": "1.2.0",
}


def kinds_of(schema):
    kinds = schema.get("type", "anything")
    return kinds if isinstance(kinds, list) else [kinds]


def valid(schema):
    """Make data with each property that a schema knows, as the schema wants it."""
    kind = next(kind for kind in kinds_of(schema) if kind != "null")
    if "enum" in schema:
        return next(value for value in schema["enum"] if value is not None)
    if kind == "object":
        return {name: valid(inner) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [valid(schema["items"])]
    if kind == "string":
        return TEXTS.get(schema.get("format") or schema.get("pattern"), "text")[: schema.get("maxLength")]
    return {"integer": 1, "number": 19.99, "boolean": True, "anything": []}[kind]


def breaches(schema):
    """Make data that breaks a single rule of a schema, for each rule, and tell the path to what breaks it."""
    kinds = kinds_of(schema)
    if kinds == ["anything"]:
        return
    yield ("text" if "object" in kinds else {}), "$"
    if "null" not in kinds:
        yield None, "$"
    if {"enum", "pattern", "format"} & {*schema}:
        yield "of no kind", "$"
    if "maxLength" in schema:
        yield "x" * (schema["maxLength"] + 1), "$"
    if schema.get("minLength"):
        yield "x" * (schema["minLength"] - 1), "$"
    if "maximum" in schema:
        yield schema["maximum"] + 1, "$"
    if "minimum" in schema:
        yield schema["minimum"] - 1, "$"
    if "multipleOf" in schema:
        yield 19.999, "$"
    if schema.get("minItems"):
        yield [], "$"
    if "items" in schema:
        yield from (([inner], f"$[0]{path[1:]}") for inner, path in breaches(schema["items"]))
    if "object" in kinds:
        yield from breaches_of_object(schema)


def breaches_of_object(schema):
    data = valid(schema)
    if schema.get("additionalProperties") is False:
        yield {**data, "surplus": 1}, "$"
    if schema.get("minProperties"):
        yield dict([*data.items()][: schema["minProperties"] - 1]), "$"
    for name in schema.get("required", []):
        yield {other: value for other, value in data.items() if other != name}, "$"
    for name, inner in schema.get("properties", {}).items():
        yield from (({**data, name: value}, f"$.{name}{path[1:]}") for value, path in breaches(inner))


def central(shared_folder):
    """The schemas of Iglu Central that are here by their URIs, but for the meta-schema, which is written otherwise."""
    root = shared_folder / "iglu"
    schemas = {
        f"iglu:{file.relative_to(root).as_posix()}": json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(root.glob("*/*/jsonschema/*"))
    }
    del schemas[META_SCHEMA]
    return schemas


META_SCHEMA = "iglu:com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0"


def test_data_that_obeys_an_official_schema_is_right(shared_folder):
    """Data with all the properties that a schema of Iglu Central knows passes, for each of them."""
    folder = SchemaFolder(shared_folder / "iglu")
    found = {uri: folder.errors(uri, valid(schema)) for uri, schema in central(shared_folder).items()}

    assert len(found) >= 40
    assert {uri: errors for uri, errors in found.items() if errors != []} == {}


def test_data_that_breaks_a_rule_of_an_official_schema_is_wrong(shared_folder):
    """Each single rule of each schema of Iglu Central is held against data, and the sentence says where."""
    folder = SchemaFolder(shared_folder / "iglu")
    cases = [(uri, path, data) for uri, schema in central(shared_folder).items() for data, path in breaches(schema)]
    missed = [
        (uri, path, data)
        for uri, path, data in cases
        if not any(error.endswith(f" (at {path} by {uri})") for error in folder.errors(uri, data))
    ]

    assert len({uri for uri, _, _ in cases}) >= 40
    assert missed == []


def test_schemas_are_data_of_the_meta_schema(shared_folder):
    """A schema may refer to the meta-schemas of JSON Schema, which come with the validator."""
    folder = SchemaFolder(shared_folder / "iglu")
    schema = {"self": {"vendor": "com.acme", "name": "n", "format": "jsonschema", "version": "1-0-0"}, "type": "array"}

    assert folder.errors(META_SCHEMA, schema) == []
    assert len(folder.errors(META_SCHEMA, {**schema, "type": "thing"})) == 1


@pytest.mark.parametrize(
    "uri",
    [
        "iglu:com.acme/thing/jsonschema/1-0-0",
        "iglu:com.acme-2_x/a_thing-2/jsonschema/10-20-30",
    ],
)
def test_complete_uri_is_taken(uri):
    """A complete URI names vendor, name, format, and a version of three numbers."""
    assert SCHEMA_URI.fullmatch(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "com.acme/thing/jsonschema/1-0-0",
        "http://com.acme/thing/jsonschema/1-0-0",
        "iglu:thing/jsonschema/1-0-0",
        "iglu:com.acme/thing/1-0-0",
        "iglu:com.acme/thing/avro/1-0-0",
        "iglu:com.acme/a.thing/jsonschema/1-0-0",
        "iglu:com.acme/thing/jsonschema/1-0",
        "iglu:com.acme/thing/jsonschema/1-0-*",
        "iglu:com.acme/thing/jsonschema/1-0-0-0",
        "iglu:com.acme/thing/jsonschema/0-1-0",
        "iglu:com.acme/thing/jsonschema/1-01-0",
        "iglu:com.acme/thing/jsonschema/1-0-0\n",
        "iglu:com acme/thing/jsonschema/1-0-0",
        "iglu:com.acme//jsonschema/1-0-0",
        "iglu:com.acme/thing/jsonschema/1-0-\u0663",
    ],
)
def test_other_uri_is_not_taken(uri):
    """A URI that lacks a part, or has anything else in it, names no schema."""
    assert not SCHEMA_URI.fullmatch(uri)


def test_unknown_schema_is_told_from_a_wrong_one(tmp_path, write):
    """A schema that is not in the folder is neither obeyed nor broken, another version of it neither."""
    write({"type": "object"})

    assert SchemaFolder(tmp_path).errors("iglu:com.acme/thing/jsonschema/1-0-1", {}) is None
    assert SchemaFolder(tmp_path).errors("iglu:com.acme/thing", {}) is None


def test_self_that_disagrees_with_the_path_is_told(errors):
    """A schema that was copied to where another belongs must not judge in its place."""
    own = {"vendor": "com.acme", "name": "thing", "format": "jsonschema", "version": "1-0-1"}

    assert errors({"type": "array", "self": own}, {}) == [
        f"nothing can be checked by {URI}: "
        "ValueError: self in the file of this name says iglu:com.acme/thing/jsonschema/1-0-1"
    ]


@pytest.mark.parametrize("own", [{"vendor": "com.acme", "version": "1-0-0"}, {}, "thing"])
def test_self_that_says_nothing_else_is_no_matter(errors, own):
    """Only what a schema says of itself can disagree."""
    assert errors({"type": "object", "self": own}, {}) == []


def test_schema_that_comes_later_is_found(tmp_path, write):
    """A schema may be written while a collector runs."""
    folder = SchemaFolder(tmp_path)
    assert folder.errors(URI, {}) is None

    write({"type": "array"})

    assert len(folder.errors(URI, {})) == 1


def test_schema_that_is_mended_is_read_again(tmp_path, write):
    """A broken schema does not stay broken once its file is mended."""
    folder = SchemaFolder(tmp_path)
    write("{")
    assert len(folder.errors(URI, {})) == 1

    write({"type": "object"})

    assert folder.errors(URI, {}) == []


def test_schema_is_read_once(tmp_path, write):
    """A schema that is in use does not change."""
    folder = SchemaFolder(tmp_path)
    write({"type": "object"})
    assert folder.errors(URI, {}) == []

    write({"type": "array"})

    assert folder.errors(URI, {}) == []


@pytest.mark.parametrize("given", [str, Path])
@pytest.mark.parametrize("level", ["", "schemas"])
def test_folder_may_have_a_level_for_schemas(tmp_path, write, level, given):
    """Both the folder of a static registry and the one inside it do."""
    write({"type": "object"}, folder=tmp_path / level)

    assert SchemaFolder(given(tmp_path)).errors(URI, {}) == []


@pytest.mark.parametrize("vendor", ["..", ".", "..."])
def test_schema_outside_of_the_folder_is_not_found(tmp_path, write, vendor):
    """Whoever sends an event cannot have files read that are none of the schemas."""
    write({"type": "object"}, "iglu:thing/jsonschema/1-0-0")
    (tmp_path / "inside" / "inside").mkdir(parents=True)

    assert SchemaFolder(tmp_path / "inside").errors(f"iglu:{vendor}/thing/jsonschema/1-0-0", {}) is None


@pytest.mark.parametrize("path", [None, 5, b"folder", ["folder"]])
def test_path_of_a_wrong_type_is_refused(path):
    """Only a text or a path object names a folder."""
    with pytest.raises(TypeError, match=re.escape(f"schemas must be the path of a folder, got {path!r}")):
        SchemaFolder(path)


def test_path_without_a_folder_is_refused(tmp_path):
    """A folder that is misspelt, or a file, is a mistake to hear of at once."""
    file = tmp_path / "file"
    file.touch()

    for path in (tmp_path / "missing", file, str(file)):
        with pytest.raises(ValueError, match=f"there is none at {re.escape(str(path))}$"):
            SchemaFolder(path)


@pytest.mark.parametrize("module", ["jsonschema", "jsonschema_specifications"])
def test_missing_validator_is_named_with_its_extra(tmp_path, monkeypatch, module):
    """Without jsonschema, or with one that is too old, the error says what to install."""
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ImportError, match=r"pip install 'snowplow-tracker\[validation\]'"):
        SchemaFolder(tmp_path)


def test_validator_is_loaded_only_if_schemas_are_given():
    """To import the collector for tests does not take the time to import jsonschema, nor need it."""
    run = subprocess.run([sys.executable, "-c", IMPORTS], check=True, stdout=subprocess.PIPE, text=True)

    assert "snowplow_tracker.testing._iglu" in run.stdout
    assert "jsonschema" not in run.stdout.split()


@pytest.mark.parametrize(
    ("draft", "rule", "is_one_point_zero_an_integer"),
    [
        (SNOWPLOW, {}, False),
        ("http://json-schema.org/draft-04/schema#", {}, False),
        ("https://json-schema.org/draft-04/schema", {}, False),
        ("http://json-schema.org/draft-06/schema#", {"const": "x"}, True),
        ("http://json-schema.org/draft-07/schema#", {"if": {}, "then": False}, True),
        ("https://json-schema.org/draft/2019-09/schema", {"dependentRequired": {"a": ["b"]}}, True),
        ("https://json-schema.org/draft/2020-12/schema", {"prefixItems": [False]}, True),
    ],
)
def test_draft_is_the_one_that_the_schema_names(errors, draft, rule, is_one_point_zero_an_integer):
    """Drafts differ in what they know, and in what they mean."""
    breaking = [1] if "prefixItems" in rule else {"a": 1}

    assert (errors({"$schema": draft, "type": "integer"}, 1.0) == []) is is_one_point_zero_an_integer
    assert (errors({"$schema": draft, **rule}, breaking) == []) is (rule == {})


def test_schema_without_a_draft_is_of_draft_4(errors, write, tmp_path):
    """That is the draft of Iglu."""
    write(json.dumps({"type": "integer"}))

    assert len(SchemaFolder(tmp_path).errors(URI, 1.0)) == 1


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("", "JSONDecodeError: "),
        ("[]", "ValueError: a schema must be an object, got []"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "ValueError: $schema must name draft 4"),
        ({"$schema": 4}, "ValueError: $schema must name draft 4 of JSON Schema or a later one, got 4"),
        ({"type": "thing"}, "SchemaError: 'thing' is not valid under any of the given schemas"),
        ({"pattern": "("}, ": "),
        ({"$ref": "http://127.0.0.1:1/schema"}, ": "),
        ({"$ref": "#/definitions/missing"}, ": "),
        ({"$ref": "#"}, "RecursionError: "),
    ],
)
def test_broken_schema_is_an_error_of_the_data(errors, schema, reason):
    """Nothing can obey a schema that cannot be used, whatever is wrong with it; no exception ends a server's thread."""
    (error,) = errors(schema, "text")

    assert error.startswith(f"nothing can be checked by {URI}: ")
    assert reason in error


def test_uri_that_is_no_file_name_does_no_harm(tmp_path):
    """A name that is too long for the file system is no schema's, and no reason to stop."""
    assert SchemaFolder(tmp_path).errors(f"iglu:com.acme/{'x' * 5000}/jsonschema/1-0-0", {}) != []


def test_reference_inside_a_schema_is_followed(errors):
    """A schema may refer to its own parts."""
    schema = {"definitions": {"sku": {"type": "string"}}, "properties": {"sku": {"$ref": "#/definitions/sku"}}}

    assert errors(schema, {"sku": "B-7"}) == []
    assert len(errors(schema, {"sku": 7})) == 1


def test_sentence_says_where_and_why(errors):
    """The path of the value, the schema, and what is wrong stand in each sentence."""
    schema = {"properties": {"items": {"items": {"required": ["sku"]}}, "total": {"type": "number"}}}

    assert errors(schema, {"total": "9", "items": [{"sku": 1}, {}]}) == [
        f"'sku' is a required property (at $.items[1] by {URI})",
        f"'9' is not of type 'number' (at $.total by {URI})",
    ]


def test_report_is_of_a_readable_length(errors):
    """Neither many mistakes nor a long value make a report without end."""
    found = errors({"items": {"type": "integer"}}, ["x" * 100_000] * 50)

    assert len(found) == 21
    assert found[-1] == "30 more things are wrong"
    assert len(max(found, key=len)) < 2_000


FORMATS = {
    "uuid": (
        [ID, ID.upper(), "00000000-0000-0000-0000-000000000000"],
        ["", "x", ID[:-1], ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", f"{ID}\n"],
    ),
    "date-time": (
        ["2024-02-29T12:00:00Z", "2024-02-29t23:59:60.123456789z", "2024-02-29T00:00:00+05:30"],
        ["2023-02-29T12:00:00Z", "2024-02-29", "2024-02-29T12:00:00", "2024-02-29 12:00:00Z", "2024-02-29T24:00:00Z"],
    ),
    "date": (["2024-02-29"], ["2023-02-29", "20240229", "2024-W09-4", "29.2.2024", ""]),
    "email": (["jane@example.com"], ["jane", "@example.com", "jane@", "jane doe@example.com", "a@b@c"]),
    "ipv4": (["127.0.0.1"], ["127.0.0", "256.0.0.1", "::1", ""]),
    "ipv6": (["::1", "2001:db8::1"], ["127.0.0.1", ":::", "12345::", ""]),
    "uri": (["https://example.com/?a=b#c", "urn:isbn:1", "iglu:a"], ["example.com", "/a", "http://a b", "", "1:a"]),
    "of-our-own": (["anything"], []),
}


@pytest.mark.parametrize("name", FORMATS)
def test_format_is_checked(errors, name):
    """Formats that a pipeline knows are checked, on each machine the same; others say nothing."""
    right, wrong = FORMATS[name]

    assert [text for text in right if errors({"format": name}, text)] == []
    assert [text for text in wrong if not errors({"format": name}, text)] == []
    assert errors({"format": name}, 5) == errors({"format": name}, None) == []


@pytest.mark.parametrize("amount", [0, 5, 19.99, -0.07, 1e300, 1.1, 4.35, 1e-2, 10**400, True, "text", None])
def test_amount_in_cents_is_a_multiple_of_a_cent(errors, amount):
    """What a number is in binary fractions does not matter, and what is no number is no multiple of anything."""
    assert errors({"multipleOf": 0.01}, amount) == []


@pytest.mark.parametrize("amount", [0.001, 19.999, 1e-300, float("inf")])
def test_fraction_of_a_cent_is_no_multiple_of_a_cent(errors, amount):
    """The rule of a schema that a number must be a multiple of another is checked."""
    assert errors({"multipleOf": 0.01}, amount) == [f"{amount} is not a multiple of 0.01 (at $ by {URI})"]
