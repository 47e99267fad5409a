"""kill -9 while accounts decide (F-K13, F-K18): a real store, real processes. Answered holds for ever; unanswered is old or new."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from comity.store import SqliteStore
from tests.service.presence.acts import STORY, picture
from tests.service.presence.desk import Desk

ROOT = Path(__file__).parents[3]
#: The first writes are those of the store's own opening and of ``ready``.
MOST_COMMITS = 60


def tell(directory: Path, failpoint: str) -> tuple[int, int]:
    """Tell the story in another process until it dies; its end and the last act it answered."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "COMITY_FAILPOINT": failpoint}
    command = [sys.executable, "-m", "tests.service.presence.acts", str(directory)]
    ended = subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode, ended.stdout.count("done")


async def pictures() -> list[list[object]]:
    """How things stand after none, one, two … acts."""
    desk = await Desk().start()
    stands = [await picture(desk)]
    for act in STORY:
        await act(desk)
        stands.append(await picture(desk))
    return stands


async def check(directory: Path, answered: int) -> None:
    """What was answered is there; the next act is done or not; done again, it comes to the same."""
    stands = await pictures()
    for _ in range(2):
        store = await SqliteStore.open(directory)
        desk = await Desk(store).start()
        stand = await picture(desk)
        assert await store.scan("relation", "owed/") == await store.scan("relation", "settle/") == []
        if answered < len(STORY):
            assert stand in (stands[answered], stands[answered + 1])
        else:
            assert stand == stands[answered]
        await store.close()
    if answered < len(STORY):
        store = await SqliteStore.open(directory)
        desk = await Desk(store).start()
        await STORY[answered](desk)
        assert await picture(desk) == stands[answered + 1]
        await store.close()


@pytest.mark.parametrize("part", range(4))
def test_a_kill_after_any_commit_leaves_both_halves_as_they_were_or_will_be(tmp_path: Path, part: int) -> None:
    """F-K18: each commit of the story in turn; what is between two people is never cut in half."""
    died = set()
    for nth in range(1 + part, MOST_COMMITS, 4):
        directory = tmp_path / str(nth)
        code, answered = tell(directory, f"store.after-commit:{nth}")
        asyncio.run(check(directory, answered))
        if code == 0:
            break
        died.add(answered)
    assert len(died) >= len(STORY) // 4


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_kill_between_the_halves_is_made_good_at_the_next_start(tmp_path: Path, nth: int) -> None:
    """The actor's half is durable, the other's is owed: it is delivered before anything listens."""
    code, answered = tell(tmp_path, f"presence.between-halves:{nth}")
    assert code == -signal.SIGKILL
    asyncio.run(check(tmp_path, answered))


def test_a_kill_in_the_recovery_itself_changes_nothing(tmp_path: Path) -> None:
    """F-K13: three times running, then it is done once."""
    _, answered = tell(tmp_path, "presence.between-halves:2")
    for _ in range(3):
        code, told = tell(tmp_path, "presence.recovery")
        assert (code, told) == (-signal.SIGKILL, 0)
    asyncio.run(check(tmp_path, answered))
