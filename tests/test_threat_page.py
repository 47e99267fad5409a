"""The page of threats: every threat has a section, names tests that exist or says what is not shown yet (SEED-40)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_conformance_page import names_in

PAGE = (Path(__file__).parent.parent / "docs/topics/threat-model.md").read_text(encoding="utf-8")
THREATS = [f"T{number}" for number in range(1, 35)]
#: Number, title, attackers, body.
SECTIONS = re.findall(r"^### (T\d+): ([^(\n]+?)(?: \(([A0-9, ]+)\))?\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
ATTACKERS = re.findall(r"^\| (A\d+) \|", PAGE, re.MULTILINE)


def shown_by(body: str) -> str:
    return " ".join(next(part for part in body.strip().split("\n\n") if part.startswith("Shown by: ")).split())


def test_every_threat_has_one_section_in_order() -> None:
    assert [section[0] for section in SECTIONS] == THREATS
    assert [f"A{number}" for number in range(1, 12)] == ATTACKERS


@pytest.mark.parametrize(("threat", "who", "body"), [(s[0], s[2], s[3]) for s in SECTIONS], ids=THREATS)
def test_a_threat_names_its_tests_or_what_is_missing_and_what_remains(threat: str, who: str, body: str) -> None:
    shown = shown_by(body)
    names = re.findall(r"`([^`]+)`", shown)
    missing = {name for name in names if name.partition("::")[2] not in names_in(name.partition("::")[0])}
    assert not missing
    assert names or re.search(r"not yet \((issue \d|no issue of its own so far)\)", shown)
    assert re.search(r"^Remains: .+", body, re.MULTILINE)
    assert set(filter(None, who.split(", "))) <= set(ATTACKERS), threat
