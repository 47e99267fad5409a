"""The fuzz target over a small corpus, so that it cannot rot."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from comity.secure import sign
from tests.secure import kit

ROOT = Path(__file__).parents[2]


def load() -> object:
    spec = importlib.util.spec_from_file_location("fuzz_cms", ROOT / "fuzz" / "fuzz_cms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ONE_INPUT = load().one_input  # type: ignore[attr-defined]  # a script, loaded by its path
SEEDS = [
    sign(kit.cpim(), kit.identity(), when=kit.NOW, form="signed-data").octets,
    sign(kit.cpim(), kit.identity(), when=kit.NOW).entity,
    bytes.fromhex((ROOT / "tests/conformance/rfc8591/10.1-signed-with-certificate.hex").read_text()),
    b"\x30\x80" * 2000,
    b"",
]


def test_seeds_give_verdicts() -> None:
    for seed in SEEDS:
        ONE_INPUT(seed)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4),
    st.integers(0, 4000),
)
def test_changed_seeds_give_verdicts(seed: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(seed)
    for at, value in changes:
        if data:
            data[at % len(data)] = value
    ONE_INPUT(bytes(data))
    ONE_INPUT(bytes(data[:cut]))
