"""The memory of accepted messages on disk (SEC-25, reliability.md T10, R-03); its contract is in test_freshness.py."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from comity.errors import SecurityError
from comity.secure import StoredReplayCache, VerdictKind, sign
from comity.secure.freshness import REPLAY_WINDOW
from comity.secure.replay import FILE, TRIM_EVERY
from tests.secure.kit import NOW, cpim, identity, judged

BOB = "im:bob@b.test xmpp"
#: Accepts numbers as fast as it can and says each, durable by then.
WRITER = """
import sys
from datetime import UTC, datetime
from comity.secure import StoredReplayCache
cache, now = StoredReplayCache({owner!r}, sys.argv[1]), datetime(2026, 3, 1, 12, tzinfo=UTC)
for number in range({first}, {last}):
    if cache.accept("a", str(number), None, now):
        print(number, flush=True)
"""


def writer(path: Path, first: int, last: int, owner: str = BOB) -> subprocess.Popen[str]:
    script = WRITER.format(owner=owner, first=first, last=last)
    return subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)


def test_a_replay_is_told_after_a_restart(tmp_path: Path) -> None:
    """R-03: the whole way, with a signature."""
    obj = sign(cpim(), identity(), when=NOW)
    first = StoredReplayCache(BOB, tmp_path)
    assert judged(obj, replay=first).is_valid
    assert judged(obj, replay=first).verdict is VerdictKind.REPLAYED
    first.close()
    second = StoredReplayCache(BOB, tmp_path)
    assert judged(obj, replay=second).verdict is VerdictKind.REPLAYED
    earlier = sign(cpim(content=b"1", when=NOW - timedelta(seconds=1)), identity(), when=NOW)
    assert judged(earlier, replay=second).freshness == "decreasing timestamp"
    second.close()


def test_another_person_or_device_gets_the_same_object_too(tmp_path: Path) -> None:
    obj = sign(cpim(), identity(), when=NOW)
    for owner in (BOB, "im:bob@b.test sip", "im:carol@b.test xmpp"):
        cache = StoredReplayCache(owner, tmp_path)
        assert judged(obj, replay=cache).is_valid
        assert len(cache) == 1
        cache.close()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """T30."""
    home = tmp_path / "home"
    cache = StoredReplayCache(BOB, home)
    cache.accept("a", "1", NOW, NOW)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in home.iterdir()} == {0o600}
    cache.close()


@pytest.mark.parametrize("damage", [b"this is no database" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_file_is_said(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE).write_bytes(damage)
    with pytest.raises(SecurityError, match="cannot be used"):
        StoredReplayCache(BOB, tmp_path)


def test_a_directory_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(SecurityError, match="cannot be used"):
        StoredReplayCache(BOB, tmp_path)


def test_what_was_accepted_outlives_a_kill(tmp_path: Path) -> None:
    """Whatever was told accepted is known to the next process; the one under way may be, too."""
    process = writer(tmp_path, 0, 1_000_000)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(100)]
    os.kill(process.pid, signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().split()]
    process.wait()
    process.stdout.close()
    cache = StoredReplayCache(BOB, tmp_path)
    assert all(cache.check("a", str(number), None, NOW) is VerdictKind.REPLAYED for number in said)
    assert len(cache) in (len(said), len(said) + 1)
    cache.close()


def test_two_processes_never_both_say_yes(tmp_path: Path) -> None:
    StoredReplayCache(BOB, tmp_path).close()
    processes = [writer(tmp_path, 0, 200) for _ in range(3)]
    said = [line for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(map(int, said)) == list(range(200))


def test_it_is_bounded_in_number_and_age(tmp_path: Path) -> None:
    cache = StoredReplayCache(BOB, tmp_path, limit=300)
    for number in range(300 + TRIM_EVERY):
        cache.accept("a", str(number), None, NOW + timedelta(seconds=number))
    assert len(cache) <= 300 + TRIM_EVERY
    later = NOW + timedelta(seconds=300 + TRIM_EVERY)
    assert cache.check("a", str(300 + TRIM_EVERY - 1), None, later) is VerdictKind.REPLAYED
    cache.accept("a", "new", None, later + REPLAY_WINDOW)
    assert len(cache) == 1
    cache.close()


def test_what_is_accepted_and_not_kept_is_shown_again(tmp_path: Path) -> None:
    """At least once: a crash before the message was shown, and told to the server, must not make it a replay."""
    obj = sign(cpim(), identity(), when=NOW)
    first = StoredReplayCache(BOB, tmp_path, is_deferred=True)
    assert judged(obj, replay=first).is_valid
    assert judged(obj, replay=first).verdict is VerdictKind.REPLAYED
    first.close()
    second = StoredReplayCache(BOB, tmp_path, is_deferred=True)
    assert judged(obj, replay=second).is_valid
    second.drop()
    assert judged(obj, replay=second).is_valid
    second.keep()
    assert judged(obj, replay=second).verdict is VerdictKind.REPLAYED
    second.close()
    third = StoredReplayCache(BOB, tmp_path, is_deferred=True)
    assert judged(obj, replay=third).verdict is VerdictKind.REPLAYED
    third.close()
