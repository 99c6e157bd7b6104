"""YAML to a tree with positions."""

from __future__ import annotations

import pytest

from specs.errors import SpecError
from specs.parsing import parse
from specs.source import Source, format_path


def tree(text: str) -> object:
    root = parse(Source("t.yaml", text))[0].root
    return root.plain() if root is not None else None


def complaint(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse(Source("t.yaml", text))
    return str(caught.value)


def test_every_value_knows_its_file_line_and_column() -> None:
    root = parse(Source("t.yaml", "a:\n  b: [x, y]\n"))[0].root
    assert root is not None
    node = root.find(("a", "b", 1))
    assert node.value == "y"
    assert node.mark is not None
    assert (node.mark.source.name, node.mark.line, node.mark.column) == ("t.yaml", 2, 10)
    key = root.find(("a", "b")).key_mark
    assert key is not None and (key.line, key.column) == (2, 3)


def test_find_stops_at_the_deepest_value_that_exists() -> None:
    root = parse(Source("t.yaml", "a: {b: 1}\n"))[0].root
    assert root is not None
    assert root.find(("a", "c", "d")).plain() == {"b": 1}


def test_an_anchor_that_is_set_again_counts_from_there_on() -> None:
    text = "a: &x {v: 1}\nb: *x\nc: &x {v: '2', w: !!int '3'}\nd: *x\n"
    assert tree(text) == {
        "a": {"v": 1},
        "b": {"v": 1},
        "c": {"v": "2", "w": 3},
        "d": {"v": "2", "w": 3},
    }


def test_faults_beside_an_anchor_that_is_set_again_are_told_as_elsewhere() -> None:
    twice = "a: &x 1\nb: &x 2\n"
    assert complaint(twice + "c: *y\n").startswith("t.yaml:3:4: found undefined alias")
    assert complaint(twice + "c: &x [*x]\n").startswith("t.yaml:3:4: c[0]: alias refers to")
    assert "nested too deeply" in complaint(twice + "c: " + "[" * 900 + "]" * 900)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("22:22", "22:22"),
        ("2001-01-01", "2001-01-01"),
        ("true", True),
        ("0440", 288),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ('!!int "7"', 7),
        ("!mine x", "x"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert tree(f"a: {text}\n") == {"a": value}


def test_merge_keys_give_way_to_keys_that_are_written_and_to_earlier_mappings() -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  c: 3\n  <<: [*x, *y]\n"
    document = tree(text)
    assert isinstance(document, dict)
    assert document["z"] == {"a": 1, "b": 1, "c": 3}


def test_documents_are_read_one_by_one() -> None:
    documents = parse(Source("t.yaml", "a: 1\n---\nb: 2\n"))
    assert [d.root.plain() if d.root else None for d in documents] == [{"a": 1}, {"b": 2}]


def test_reset_drops_the_value_and_override_keeps_it_and_both_are_noted() -> None:
    document = parse(Source("t.yaml", "a: {b: !reset 1, c: !override [2]}\n"))[0]
    assert document.root is not None
    assert document.root.plain() == {"a": {"c": [2]}}
    assert document.resets == (("a", "b"), ("a", "c"))


def test_a_duplicate_key_is_refused_at_its_second_place() -> None:
    assert complaint("a: 1\nb: 2\na: 3\n").startswith("t.yaml:3:1: a: key 'a' is already set at")


def test_every_duplicate_key_is_told_in_one_pass() -> None:
    assert complaint("a: 1\na: 2\nb: 1\nb: 2\n").count("is already set") == 2


def test_a_key_that_is_no_string_is_refused() -> None:
    assert "t.yaml:2:3: a: non-string key 1" in complaint("a:\n  1: x\n")


@pytest.mark.parametrize(
    ("text", "place"), [("a: [1,\n", "2:1"), ("a:\n\t- b\n", "2:1"), ("a: 'x\n", "1:4")]
)
def test_a_syntax_error_has_a_line_and_a_column(text: str, place: str) -> None:
    assert complaint(text).startswith(f"t.yaml:{place}: ")


def test_a_recursive_alias_is_refused() -> None:
    assert "contains it" in complaint("a: &a\n  b: *a\n")


def test_aliases_may_not_explode() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for previous, name in zip("abcdef", "bcdefg", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{previous}'] * 10)}]")
    assert "aliases expand to more than" in complaint("\n".join(lines))


def test_paths_are_written_as_compose_writes_them() -> None:
    assert format_path(("services", "web", "ports", 0, "target")) == "services.web.ports[0].target"
