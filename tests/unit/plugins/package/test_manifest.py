from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.package.manifest import MAX_MANIFEST, Permission, Protocol, Type, parse_manifest
from plugins.package.refusal import PackageRefused

GOOD = """
id = "greet"
version = "1.2.0"
type = "step"
protocol = "simple"
permissions = ["network"]
minimum_agent = "0.1.0"
[entry_points]
any = "main.sh"
"linux/arm64" = "bin/greet"
[parameters]
type = "object"
[parameters.properties.name]
"$ref" = "#/$defs/name"
[parameters."$defs".name]
type = "string"
"""


def violations(text):
    with pytest.raises(PackageRefused) as refused:
        parse_manifest(text.encode())
    return dict(refused.value.violations)


def test_manifest_says_what_a_plugin_is():
    manifest = parse_manifest(GOOD.encode())

    assert (manifest.id, str(manifest.version)) == ("greet", "1.2.0")
    assert (manifest.type, manifest.protocol) == (Type.STEP, Protocol.SIMPLE)
    assert manifest.permissions == {Permission.NETWORK}
    assert manifest.entry_point("linux/arm64") == "bin/greet"
    assert manifest.entry_point("linux/amd64") == "main.sh"
    assert manifest.parameters["properties"] == {"name": {"$ref": "#/$defs/name"}}


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ('id = "greet"', 'id = "../greet"', "id"),
        ('id = "greet"', 'id = ""', "id"),
        ('id = "greet"', "id = 3", "id"),
        ('"1.2.0"', '"1.2"', "version"),
        ('"1.2.0"', '"v1.2.0"', "version"),
        ('"1.2.0"', '""', "version"),
        ('"1.2.0"', '"1.2.٣"', "version"),
        ('"1.2.0"', f'"1.2.{"9" * 5000}"', "version"),
        ('"step"', '"stepp"', "type"),
        ('type = "step"', "", "type"),
        ('"simple"', '"http"', "protocol"),
        ('["network"]', '["all"]', "permissions"),
        ('["network"]', '[["network"]]', "permissions"),
        ('["network"]', "[{" + "a." * 150 + "a = 1}]", "permissions"),
        ("any = ", "any." + "a." * 150 + "a = ", "entry_points.any"),
        ('type = "object"', 'type = "object"\n' + "a." * 150 + "a = 1", "parameters"),
        ('["network"]', '"network"', "permissions"),
        ('"main.sh"', '"../main.sh"', "entry_points.any"),
        ('"main.sh"', '"/bin/sh"', "entry_points.any"),
        ("any = ", "everywhere = ", "entry_points.everywhere"),
        ("permissions", 'description = "one\\ntwo"\npermissions', "description"),
        ('type = "object"', f'type = "object"\ndefault = 0x{"F" * 6000}', "parameters"),
        ('type = "object"', 'type = "string"', "parameters"),
        ('type = "object"', 'type = "object"\nminProperties = "x"', "parameters"),
        ('type = "object"', 'type = "object"\nmaxProperties = inf', "parameters"),
        ('type = "object"', 'type = "object"\ndefault = 2020-01-01', "parameters"),
        ('"#/$defs/name"', '"https://example.org/schema"', "parameters"),
        ('id = "greet"', 'id = "greet"\ncolour = "red"', "colour"),
    ],
)
def test_wrong_field_is_named(before, after, field):
    assert before in GOOD

    found = violations(GOOD.replace(before, after, 1))

    assert f"plugin.toml: {field}" in found


def test_all_that_is_missing_is_named_at_once():
    found = violations("")

    assert sorted(found) == [
        f"plugin.toml: {field}" for field in ("entry_points", "id", "protocol", "type", "version")
    ]


@pytest.mark.parametrize(
    "text", ["id =", "a." * 30_000 + "a = 1", "a = " + "[" * 5000, "x = " + "1" * 5000]
)
def test_what_is_no_toml_is_refused(text):
    assert "plugin.toml" in violations(text)


def test_manifest_has_an_end():
    assert "larger" in violations("#" * (MAX_MANIFEST + 1))["plugin.toml"]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_refused(data):
    with pytest.raises(PackageRefused):
        parse_manifest(data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
).filter(lambda value: "None" not in repr(value))
FIELDS = ["id", "version", "type", "protocol", "permissions", "minimum_agent", "description"]


@given(field=st.sampled_from([*FIELDS, "entry_points", "parameters"]), value=VALUES)
def test_any_value_of_a_field_is_taken_or_refused(field, value):
    fields = {"id": '"greet"', "version": '"1.0.0"', "type": '"step"', "protocol": '"simple"'}
    fields["entry_points"] = '{any = "main.sh"}'
    fields[field] = toml(value)
    text = "\n".join(f"{name} = {value}" for name, value in fields.items())

    with suppress(PackageRefused):
        parse_manifest(text.encode())


def toml(value):
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case str():
            return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case dict():
            pairs = (f"{toml(key)} = {toml(each)}" for key, each in value.items())
            return "{" + ", ".join(pairs) + "}"
