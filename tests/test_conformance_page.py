"""The conformance page against its requirements and the tests it names: no row is missing, none names what is not there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/reference/conformance.md").read_text(encoding="utf-8")
IDS = (ROOT / "tests/conformance/requirement_ids.txt").read_text(encoding="utf-8").split()
STATES = ("done", "partial", "not")
#: ID, state, tests, note.
ROWS = re.findall(r"^\| ([A-Z0-9]+-\d+) \| ([^|]*) \| ([^|]*) \| ([^|]*)\|$", PAGE, re.MULTILINE)


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@cache
def names_in(path: str) -> frozenset[str]:
    """Every test of a file as pytest names it: ``test_name`` or ``Class::test_name``."""
    found: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                collect(node.body, f"{prefix}{node.name}::")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(prefix + node.name)

    if (ROOT / path).is_file():
        collect(ast.parse((ROOT / path).read_text(encoding="utf-8")).body, "")
    return frozenset(found)


def test_every_requirement_has_exactly_one_row() -> None:
    assert len(IDS) == len(set(IDS)) > 300
    assert [row[0] for row in ROWS] == IDS


def test_every_state_is_one_of_three() -> None:
    assert not [row for row in ROWS if row[1] not in STATES]


def test_every_named_test_exists() -> None:
    names = re.findall(r"`(tests/[^`]*)`", PAGE.split("\n## ", 1)[1])
    assert len(names) > 300
    missing = {name for name in names if name.partition("::")[2] not in names_in(name.partition("::")[0])}
    assert not missing


def test_what_is_done_or_partial_names_a_test_and_what_is_missing_a_reason() -> None:
    for id, state, tests, note in ROWS:
        assert all("::" in name for name in named(tests)), id
        assert bool(named(tests)) is (state != "not"), id
        assert state == "done" or note.strip(), id


def test_the_counts_are_those_of_the_rows() -> None:
    counted = Counter((row[0].rsplit("-", 1)[0], row[1]) for row in ROWS)
    stated = re.findall(r"^\| \[(\w+)\]\(#\w+\) \|[^|]*\| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert {(name, state): int(n) for name, *numbers in stated for state, n in zip(STATES, numbers, strict=True)} == {
        (row[0], state): counted[row[0], state] for row in stated for state in STATES
    }
    assert {row[0] for row in stated} == {id.rsplit("-", 1)[0] for id in IDS}
    [total] = re.findall(r"^\| all \| \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert [int(n) for n in total] == [sum(row[1] == state for row in ROWS) for state in STATES]


def test_every_row_of_the_catalogue_stands_once() -> None:
    """Merges that keep both sides' lines would say a thing twice."""
    catalogue = PAGE.partition("\n## Catalogue of bad input\n")[2]
    ids = [id for cell in re.findall(r"^\| ([A-Z]+-\d[^|]*)\|", catalogue, re.MULTILINE) for id in cell.split()]
    named = Counter(id for id in ids if re.fullmatch(r"[A-Z]+-\d+", id))
    assert len(named) > 100
    assert not [id for id, count in named.items() if count > 1]
