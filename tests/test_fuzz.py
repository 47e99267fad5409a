"""Every fuzz target over its corpus, its regressions and mutations of both (reliability.md 2.17, G6, G7).

``scripts/fuzz`` is the long run; here nothing found before may come back, and no target may rot.
"""

from __future__ import annotations

import importlib
import random
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent.parent / "fuzz"
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py"))
CPU_SECONDS = 0.05
"""Computing time of any one input (G7); every target reads its input several times over."""
READINGS = 8
MUTATIONS = 300
PIECES = [b"\r\n", b"\n", b"\r", b"\0", b"<", b">", b"'", b'"', b";", b":", b"@", b"\xff", b"\xc3", b"=", b"&", b"]]>"]


@pytest.fixture(scope="module", autouse=True)
def _fuzz_on_path() -> Iterator[None]:
    sys.path.insert(0, str(FUZZ))
    yield
    sys.path.remove(str(FUZZ))


def target(name: str) -> Callable[[bytes], None]:
    one_input: Callable[[bytes], None] = importlib.import_module(f"fuzz_{name}").one_input
    return one_input


def corpus(name: str) -> list[bytes]:
    with zipfile.ZipFile(FUZZ / "corpus" / f"{name}.zip") as archive:
        return [archive.read(entry) for entry in archive.namelist()]


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=f"{path.parent.name}-{path.name}") for path in sorted(FUZZ.glob("regressions/*/*"))]
)
def test_what_was_found_once_stays_fixed(path: Path) -> None:
    target(path.parent.name)(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_holds_and_no_input_is_dear(name: str) -> None:
    """G6, G7."""
    one_input = target(name)
    for data in [b"", *corpus(name)]:
        spent = min(_cpu(one_input, data) for _ in range(2))
        if spent > CPU_SECONDS * READINGS:
            spent = min(_cpu(one_input, data) for _ in range(5))
        assert spent <= CPU_SECONDS * READINGS, f"{spent:.3f} s for {data[:200]!r}"


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_of_the_corpus_hold(name: str) -> None:
    """G6."""
    one_input, seeds, dice = target(name), corpus(name), random.Random(20261123)
    for _ in range(MUTATIONS):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(data) + 1)
            match dice.randrange(4):
                case 0:
                    data[at : at + dice.randint(0, 8)] = dice.choice(PIECES)
                case 1:
                    del data[at : at + dice.randint(1, 40)]
                case 2:
                    data[at:at] = data[at : at + dice.randint(1, 40)]
                case _:
                    data[at : at + 1] = bytes([dice.randrange(256)])
        one_input(bytes(data))


def _cpu(one_input: Callable[[bytes], None], data: bytes) -> float:
    begun = time.thread_time()
    one_input(data)
    return time.thread_time() - begun
