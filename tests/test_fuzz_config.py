"""The fuzz target of the configuration file runs over its seeds, so that it cannot rot (reliability.md 2.17)."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

from comity.admin.template import configuration_text
from tests.test_config import MISTAKES

TARGET = Path(__file__).parent.parent / "fuzz" / "fuzz_config.py"


def test_the_target_takes_every_seed_and_many_mutations_of_it() -> None:
    spec = importlib.util.spec_from_file_location("fuzz_config", TARGET)
    assert spec
    assert spec.loader
    target = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(target)
    seeds = [configuration_text(["example.org"], None).encode(), *(text.encode() for text, _, _ in MISTAKES)]
    dice = random.Random(20260101)
    for seed in seeds:
        target.one_input(seed)
        for _ in range(20):
            octets = bytearray(seed)
            for _ in range(dice.randint(1, 4)):
                octets[dice.randrange(len(octets))] = dice.choice(b'"[]=.:/\n\\ 0aZ-\xff')
            target.one_input(bytes(octets))
