"""kill -9 while watchers subscribe, end and are refused (F-K18, G9): a real store, real processes.

What was answered with yes is there again and hears within 60 s that nobody is there (N-17); what had ended, or was refused, is told
nothing ever again; what was not answered may be either.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.testing.presence import PresenceBench
from comity.testing.service import settle
from tests.service.presence.watch_acts import BOB, opened

ROOT = Path(__file__).parents[3]


def tell(directory: Path, failpoint: str) -> tuple[int, list[list[str]]]:
    """Tell the story in another process until it dies: its end, and all that was told."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "COMITY_FAILPOINT": failpoint}
    command = [sys.executable, "-m", "tests.service.presence.watch_acts", str(directory)]
    ended = subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode, [line.split() for line in ended.stdout.splitlines()]


def watching(bench: PresenceBench) -> set[str]:
    """Ids of what is there."""
    return {one.id for one in bench.presence.watchers(Address.parse(BOB))}


async def hear(bench: PresenceBench) -> dict[str, str]:
    """By id, the last state told, when everybody who is there was told; the store takes real time."""
    heard: dict[str, str] = {}
    async with asyncio.timeout(20):
        while True:
            for one in bench.sip.take():
                assert one.word != "pending"
                heard[one.subscription.id] = one.state if one.word == "notify" else one.word
            if watching(bench) <= set(heard):
                return {id: state for id, state in heard.items() if state != "ended"}
            await settle()


async def check(directory: Path, said: list[list[str]]) -> None:
    """Start anew over what is left, and see who hears what."""
    stands = {"a", "b", "c"} & {line[1] for line in said if line[0] == "yes"}
    ended = {line[1] for line in said if line[0] == "ended"}
    bench, store = await opened(directory)
    await bench.advance(60)
    heard = await hear(bench)
    bench.publish(BOB, "dnd")
    await bench.advance(10)
    later = await hear(bench)
    there = watching(bench)
    bench.presence.stop()
    await bench.pipeline.stop()
    await store.close()
    assert not ended & {*heard, *later, *there}
    assert stands - ended - under_way(said) <= there
    assert set(heard) == there
    assert set(heard.values()) <= {"offline"}
    assert later == dict.fromkeys(there, "dnd")


def under_way(said: list[list[str]]) -> set[str]:
    """What may have been ended without having heard of it: in the story alice ends after her refresh, then carol is refused."""
    if ["ended", "a"] in said:
        return {"c"}
    return {"a"} if said.count(["yes", "a"]) == 2 else set()


@pytest.mark.parametrize(
    ("failpoint", "times"),
    [("presence.before-commit", 5), ("presence.after-commit", 5), ("presence.begin", 5), ("presence.revoke", 1)],
)
def test_what_was_answered_holds_over_a_kill(tmp_path: Path, failpoint: str, times: int) -> None:
    """Each subscribe, refresh, end and refusal of the story in turn."""
    for nth in range(1, times + 1):
        directory = tmp_path / str(nth)
        code, said = tell(directory, f"{failpoint}:{nth}")
        assert code == -signal.SIGKILL
        asyncio.run(check(directory, said))


@pytest.mark.parametrize("part", range(3))
def test_a_kill_after_any_commit_brings_no_revoked_subscription_back(tmp_path: Path, part: int) -> None:
    """G9, F-K18: each commit of the story in turn."""
    ends = set()
    for nth in range(1 + part, 40, 3):
        directory = tmp_path / str(nth)
        code, said = tell(directory, f"store.after-commit:{nth}")
        asyncio.run(check(directory, said))
        ends.add(len(said))
        if code == 0:
            break
    assert len(ends) >= 3


def test_the_story_ends_with_one_watcher_left(tmp_path: Path) -> None:
    """Without a kill: alice's other device hears of the last change, nobody else does."""
    code, said = tell(tmp_path, "")
    assert code == 0
    assert said[-1] == ["told", "b", "notify", "away"]
    assert ["told", "c", "ended"] in [line[:3] for line in said]
    asyncio.run(check(tmp_path, said))
