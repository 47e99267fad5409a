"""The fuzz target runs over its corpus, so that it cannot rot."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CORPUS = sorted((ROOT / "tests" / "conformance" / "rfc4475").glob("*.dat"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_fuzz_target_takes_its_corpus(path: Path) -> None:
    spec = importlib.util.spec_from_file_location("fuzz_sip", ROOT / "fuzz" / "fuzz_sip.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.one_input(path.read_bytes())
    module.one_input(path.read_bytes()[:-7])
