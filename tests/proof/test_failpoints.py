"""kill -9 at every failpoint (reliability.md section 3.2, F-K1 … F-K20): each fires, and the promise of its row is kept.

Here each failpoint meets one pair of protocols with the recipient there and one with the recipient away, the pairs in
turn; ``COMITY_ALL_PAIRS=1`` (``make prove``) takes all of them, SIP over TCP and UDP.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.proof import checker
from tests.proof.history import read
from tests.proof.ledger import Ledger
from tests.proof.points import ELSEWHERE, POINTS, Point
from tests.proof.run import run
from tests.proof.workload import PAIRS, Pair, Size
from tests.proof.world import ProofServer

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "comity"
IS_ALL = bool(os.environ.get("COMITY_ALL_PAIRS"))
Recipient = Literal["there", "late", "refusing"]


def cases_of(name: str, point: Point) -> Iterator[tuple[Pair, Recipient, bool]]:
    """(pair, recipient, whether SIP is over datagrams) of one failpoint."""
    pairs = [pair for pair in PAIRS if point.sinks in ("any", "none", pair[1])]
    if point.special == "resuming":
        pairs = [("xmpp", "xmpp")]
    if point.sinks == "none" and not IS_ALL:
        pairs = [pairs[len(name) % len(pairs)]]
    recipients: list[Recipient] = ["there", "late"] if point.has_stored else ["there"]
    if point.special == "refusing":
        recipients = ["refusing"]
    for recipient in recipients:
        for pair in pairs:
            for is_udp in (False, True):
                if not (is_udp and ("sip" not in pair or point.needs_stream)):
                    yield pair, recipient, is_udp


def cases() -> Iterator[object]:
    """All of them; or for each failpoint and recipient one, another pair each time."""
    turn = 0
    for name, point in POINTS.items():
        chosen = list(cases_of(name, point))
        if point.is_for_all and not IS_ALL:
            continue
        if not IS_ALL:
            by_recipient = {recipient: [case for case in chosen if case[1] == recipient] for _, recipient, _ in chosen}
            turn += 1
            chosen = [few[(turn * 3 + n) % len(few)] for n, few in enumerate(by_recipient.values())]
        for pair, recipient, is_udp in chosen:
            sip = "sip-udp" if is_udp else "sip-tcp"
            ends = "-to-".join(sip if via == "sip" else via for via in pair)
            yield pytest.param(name, pair, recipient, is_udp, id=f"{name}-{ends}-{recipient}")


def size_of(point: Point, pair: Pair, recipient: Recipient, is_udp: bool) -> Size:
    """One conversation over one pair, nobody else."""
    return Size(
        conversations=1,
        sip_tcp=0 if is_udp else 2,
        sip_udp=2 if is_udp else 0,
        xmpp=2,
        apex=2,
        rate=60,
        impostors_every=0,
        always_there=True,
        pairs=(pair,),
        levels=point.levels,
        recipients=recipient,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pair", "recipient", "is_udp"), list(cases()))
def test_the_promise_is_kept_over_a_kill_at(
    name: str, pair: Pair, recipient: Recipient, is_udp: bool, template: Path, tmp_path: Path
) -> None:
    point = POINTS[name]
    size = size_of(point, pair, recipient, is_udp)
    found = run(tmp_path / "run", template, 1, point.plan, size, quiet_seconds=0.5, recoveries=1)
    assert (found.fired, found.missed) == (point.fires, ()), "it did not die there"
    ledger = Ledger(read(tmp_path / "run" / "history.jsonl"))
    died = [event.note for _, event in ledger.marks["died"]]
    assert [note.partition(":")[0] for note in died].count(name) == point.fires
    assert found.is_kept, f"{point.row}, {point.kept_if}: {checker.as_text(found.verdict)}"
    assert found.verdict.acked > 1
    assert (found.verdict.reported > 0) == (point.special == "refusing"), "F-K11: reported, once"
    assert not came_twice(ledger), "what no device had before the kill comes once (F-K1 to F-K7)"


def came_twice(ledger: Ledger) -> list[str]:
    """Messages sent before the kill that reached a device only afterwards, and then more than once."""
    died = ledger.marks["died"][0][0]
    next_life = next(at for at, _ in ledger.marks["ready"] if at > died)
    new = [m for m in ledger.sent if m.attempts[0].at < died and m.deliveries and m.deliveries[0][0] > next_life]
    return [m.id for m in new if len(m.deliveries) > 1]


def test_a_kill_in_the_first_migration_leaves_nothing_half_made(template: Path, tmp_path: Path) -> None:
    """F-K14, on the real server; tests/store/test_crash.py has a later migration."""
    server = ProofServer(tmp_path, template)
    for file in server.data.iterdir():
        if file.is_file():
            file.unlink()
    server.launch("store.migration")
    assert server.reap() == -signal.SIGKILL
    assert not (server.data / "comity.db").exists()
    server.start()
    assert server.stop() == 0


def test_every_failpoint_of_the_program_is_in_the_table() -> None:
    """A place that can kill has a row that says what is promised there."""
    placed = {
        name
        for path in SOURCE.rglob("*.py")
        for name in re.findall(r'failpoint\(\s*"([a-z.-]+)"', path.read_text(encoding="utf-8"))
    }
    assert placed == {*POINTS, *ELSEWHERE, "store.migration"}
    for name, test in ELSEWHERE.items():
        assert f'"{name}' in (ROOT / test).read_text(encoding="utf-8"), name
    rows = {row for point in POINTS.values() for row in point.row.split()} | {"F-K14"}
    assert rows == {f"F-K{n}" for n in (*range(1, 16), 19, 20)}
