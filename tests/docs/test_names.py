"""What the pages name is there, and what is there is named."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loku_exp.config.groups import conf_dir
from loku_exp.results import schema
from tests.docs.pages import (
    CHANGELOG,
    CONTRIBUTING,
    DOCS,
    EXAMPLES,
    PAGES,
    README,
    ROOT,
    SPAN,
    SPANS,
    TYPED,
)


def yaml_files() -> Iterator[tuple[str, Path]]:
    """The yaml of the program and of the examples, each with its group."""
    for conf in (conf_dir(), *EXAMPLES.glob("*/conf")):
        for file in conf.rglob("*.yaml"):
            yield (file.parent.name if file.parent != conf else ""), file


def keys_of(node: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")


def keys() -> set[str]:
    """Everything that may be set on a command line, whatever is chosen."""
    found = set()
    for group, file in yaml_files():
        text = file.read_text()
        prefix = f"{group}." if group and "@package _global_" not in text else ""
        found |= set(keys_of(yaml.safe_load(text) or {}, prefix))
    return found


OPTIONS: dict[str, set[str]] = {}
for _group, _file in yaml_files():
    OPTIONS.setdefault(_group, set()).add(_file.stem)
GROUPS = sorted(OPTIONS.keys() - {"", "help"})


def named_in_a_table() -> set[tuple[str, str]]:
    """Groups and options of the README's table: ``| `loss=` | `ga` `gd` |``, further rows without group."""
    found, group = set(), ""
    for line in README.splitlines():
        cells = line.split("|")[1:]
        group = "" if not cells else (SPAN.findall(cells[0]) or [group])[0]
        found |= {(group, option) for cell in cells[1:2] for option in SPAN.findall(cell)}
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_is_named(group):
    everything, table = "\n".join(PAGES.values()), named_in_a_table()
    for name in OPTIONS[group]:
        typed = re.search(rf"\b{group}=\[?(?:[\w,]+,)?{name}\b", everything)
        assert typed or (f"{group}=", name) in table, f"{group}={name}"


def test_what_is_set_in_a_sentence_is_a_key_or_an_option():
    found = [
        word
        for span in SPANS
        if not re.match(rf"{TYPED}|--", span)
        for word in span.split()
        if re.match(r"[a-z_.]+=(?!=)", word)
    ]
    assert len(found) > 50
    known = keys()
    for word in found:
        key, _, value = word.partition("=")
        if key in GROUPS:
            assert set(value.strip("[]").split(",")) <= OPTIONS[key] | {"", "..."}, word
        else:
            assert key in known, word


def test_files_named_in_a_sentence_exist():
    places = r"(?:loku_exp|conf|docs|examples|benchmarks|tests)/[\w./-]*"
    beside = (ROOT / "benchmarks/README.md").read_text()
    found = [span for span in [*SPANS, *SPAN.findall(beside)] if re.fullmatch(places, span)]
    assert len(found) > 20
    assert [span for span in found if not (ROOT / span).exists()] == []


def test_every_room_has_its_line():
    rooms = [
        path.name for path in (ROOT / "loku_exp").iterdir() if (path / "__init__.py").is_file()
    ]
    assert [room for room in rooms if f"`{room}/`" not in CONTRIBUTING] == []


def test_every_key_of_a_record_is_explained():
    page = DOCS["run_folder.md"]
    parts = (schema.Record, schema.RunPart, schema.ModelPart, schema.CurvePoint)
    keys = {field for part in parts for field in part.model_fields} - {"schema_version"}
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_new_import_paths_exist():
    rows = re.findall(r"^\| `[^|]+\| (`[^|]+`) \|$", CHANGELOG, flags=re.MULTILINE)
    names = [name for row in rows for name in SPAN.findall(row)]
    assert len(names) > 20
    assert [name for name in names if not importlib.util.find_spec(f"loku_exp.{name}")] == []
