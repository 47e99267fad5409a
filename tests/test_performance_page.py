"""No figure between the markers of docs/reference/performance.md is typed by hand: a script makes them of a measured run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "reference"


def test_the_tables_are_those_of_the_published_run() -> None:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "bench" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    found = json.loads((DOCS / "performance.json").read_text(encoding="utf-8"))
    assert tables.page(found, page) == page, "run scripts/bench --tables"
    assert found["machine"]["configuration"] == (ROOT / "bench" / "comity.toml").read_text(encoding="utf-8")
    if "presence_machine" in found:
        expected = (ROOT / "bench" / "comity-pres.toml").read_text(encoding="utf-8")
        assert found["presence_machine"]["configuration"] == expected
    if "apex_machine" in found:
        expected = (ROOT / "bench" / "comity-apex.toml").read_text(encoding="utf-8")
        assert found["apex_machine"]["configuration"] == expected
