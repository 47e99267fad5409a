"""``make prove``: kills at failpoints and at random over all four pairs, every acknowledged message accounted for.

    python -m tests.proof.prove [--fired 200] [--random 200] [--rounds 4] [--seed N] [--keep DIR]

A round is one server, one history, its share of the kills. After each round the checker says what it found; the first
violation ends it all: its plan is made smaller, and history, log, database and plan stay in DIR. Environment:
``PROVE_SECONDS`` ends the rounds after that time, ``COMITY_SEED`` is the seed (default: by chance, printed).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec

from tests.proof import checker
from tests.proof.nemesis import Life, make_plan
from tests.proof.run import Run, run, smaller
from tests.proof.workload import Size
from tests.proof.world import make_template

FULL = Size(conversations=72, sip_tcp=6, sip_udp=4, xmpp=8, apex=8, rate=400.0)


def say(text: str) -> None:
    """Progress, for people."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def share(total: int, rounds: int, number: int) -> int:
    """Part of ``total`` that round ``number`` has."""
    return total * (number + 1) // rounds - total * number // rounds


def keep(found: Run, plan: Sequence[Life], template: Path, seed: int, size: Size) -> None:
    """Make the plan of a broken run smaller, and write down how to see it again."""
    best = smaller(found.directory, template, seed, plan, size, say)
    (found.directory / "plan.json").write_bytes(
        msgspec.json.format(msgspec.json.encode({"seed": seed, "size": asdict(size), "plan": list(map(asdict, best))}))
    )
    say(f"seed {seed}, {len(best)} of {len(plan)} lives; history, log, database and plan.json are in {found.directory}")


def table(runs: Sequence[Run], seconds: float) -> str:
    """What the rounds gave, in Jepsen's manner, as a table and a line of sums."""
    names = ["round", "at failpoints", "at random", "acked", "delivered", "failed", "recovered", "repeats", "lost"]
    rows = [names]
    sums: Counter[str] = Counter()
    for number, found in enumerate(runs, 1):
        v = found.verdict
        lost = v.lost_prefix + v.lost_middle + v.lost_postfix
        repeats = sum(v.duplicates.values())
        values = [found.fired, found.killed, v.acked, v.ok, v.reported, v.recovered, repeats, lost]
        sums.update(dict(zip(names[1:], values, strict=True)))
        rows.append([str(number), *map(str, values)])
    rows.append(["all", *(str(sums[name]) for name in names[1:])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    broken = Counter(violation.invariant for found in runs for violation in found.verdict.violations)
    attempts, refused = (sum(getattr(found.verdict, name) for found in runs) for name in ("attempts", "refused"))
    missed = Counter(name.partition(":")[0] for found in runs for name in found.missed)
    lines.append(
        f"attempts {attempts}, refused {refused} (impostors), {seconds:.0f} s; broken: {dict(broken) or 'none'}"
    )
    if missed:
        lines.append(f"failpoints not passed in time, killed at random instead: {dict(missed)}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.prove", description=__doc__.splitlines()[0])
    parser.add_argument("--fired", type=int, default=200, help="kills at failpoints")
    parser.add_argument("--random", type=int, default=200, help="kills at random")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("COMITY_SEED", random.randrange(2**32))))
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "comity-prove")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + float(os.environ.get("PROVE_SECONDS", "inf"))
    began = time.monotonic()
    say(f"seed {options.seed}")
    options.keep.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f"{options.seed}-", dir=options.keep))
    template = make_template(place, FULL.users())
    runs: list[Run] = []
    for number in range(options.rounds):
        if time.monotonic() > deadline:
            say("PROVE_SECONDS are over")
            break
        seed = options.seed + number
        kills = (share(each, options.rounds, number) for each in (options.fired, options.random))
        plan = make_plan(seed, *kills)
        found = run(place / f"round-{number + 1}", template, seed, plan, FULL, quiet_seconds=10.0, progress=say)
        runs.append(found)
        say(f"round {number + 1}:\n{checker.as_text(found.verdict)}")
        if not found.is_kept:
            keep(found, plan, template, seed, FULL)
            break
        shutil.rmtree(found.directory)
    print(table(runs, time.monotonic() - began))
    if not all(found.is_kept for found in runs):
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
