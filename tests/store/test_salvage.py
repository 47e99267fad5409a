"""F-07: what `comity recover` saves of a damaged store, on real files damaged in every way the catalogue names."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from comity.errors import StoreDamaged, StoreError
from comity.service.interfaces import Ack, Add, Mark, Put, Record
from comity.store import SqliteStore, files
from comity.store.salvage import Salvage, salvage
from tests.store import audit
from tests.store.child import LANES, make

COUNT = 300
ENDED = set(range(0, COUNT, 3))
WAITING = set(range(COUNT)) - ENDED


def is_whole(record: Record) -> bool:
    """As the test's records are made: the fingerprint is over the entity, which tells the lane."""
    if hashlib.sha256(record.entity).hexdigest() != record.fingerprint:
        return False
    if record.lane == "inbox/large":
        return True
    made = make(int(record.entity.partition(b"\r\n\r\n")[2].partition(b" ")[0]))
    return (record.lane, record.id, record.envelope) == (made.lane, made.id, made.envelope)


async def fill(directory: Path) -> SqliteStore:
    """A store with waiting and ended messages, large ones too, accounts and marks."""
    store = await SqliteStore.open(directory, min_free=0)
    for number in range(COUNT):
        (result,) = await store.commit([Add(make(number), marks=(Mark("last", str(number).encode()),))])
        if number in ENDED:
            await store.commit([Ack(make(number).lane, result.rev, b"delivered")])  # type: ignore[union-attr]  # Done
    large = b"Content-Type: message/cpim\r\n\r\n" + b"0123456789abcdef" * 4096
    await store.commit([Add(Record("large", "inbox/large", large, b"", hashlib.sha256(large).hexdigest(), 4e9))])
    for name in range(40):
        await store.commit([Put(space, f"im:{name}@a.test", b"x" * 200) for space in ("account", "scram", "ha1")])
    return store


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped in order: all in the main file."""
    directory = tmp_path_factory.mktemp("stopped") / "data"

    async def main() -> None:
        await (await fill(directory)).close()

    asyncio.run(main())
    return directory


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As kill -9 leaves it: all in the log."""
    home = tmp_path_factory.mktemp("killed")

    async def main() -> None:
        store = await fill(home / "running")
        shutil.copytree(home / "running", home / "data")
        await store.close()

    asyncio.run(main())
    return home / "data"


def saved(original: Path, tmp_path: Path, damage: Callable[[Path], None]) -> tuple[Salvage, set[int]]:
    """Damage a copy, see it refused, save it; what was found, and the numbers of messages that wait in the new store."""
    data, target = tmp_path / "data", tmp_path / "saved"
    shutil.copytree(original, data)
    damage(data)
    before = evidence(data)
    with pytest.raises(StoreDamaged) as refusal:
        asyncio.run(SqliteStore.open(data, min_free=0))
    found = salvage(data, target, is_whole)
    assert found.finding == refusal.value.finding
    assert evidence(data) == before
    assert sorted(path.name for path in target.iterdir()) == ["comity.db"]
    # As the command says: what was saved goes where the damaged one was, beside its witness.
    for name in ("comity.db", "comity.db-wal", "comity.db-shm"):
        (data / name).unlink(missing_ok=True)
    (target / "comity.db").rename(data / "comity.db")
    numbers = asyncio.run(waiting(data))
    audit.check_rows(data / "comity.db")
    return found, numbers


def evidence(data: Path) -> dict[str, bytes]:
    """Everything but the lock and the index, which SQLite makes anew of the log."""
    names = [path for path in data.iterdir() if path.name not in ("store.lock", "comity.db-shm")]
    return {path.name: path.read_bytes() for path in names}


async def waiting(data: Path, *, is_exact: bool = True) -> set[int]:
    """Open the saved store; its waiting messages, which are whole.

    Times, keys and numbers are under no digest: after damage at random they may be others, else they are exact.
    """
    store = await SqliteStore.open(data, min_free=0)
    numbers: list[int] = []
    for lane in range(LANES):
        items = await store.read(f"inbox/{lane}", 10_000)
        order = [int(item.record.id.removeprefix("id-")) for item in items]
        assert all(is_whole(item.record) for item in items)
        if is_exact:
            assert order == sorted(order)
            assert [item.record for item in items] == [make(number) for number in order]
        numbers += order
    await store.close()
    return set(numbers)


def zero(start: int, length: int) -> Callable[[Path], None]:
    def damage(data: Path) -> None:
        with (data / "comity.db").open("r+b") as file:
            file.seek(start)
            file.write(bytes(length))

    return damage


def test_a_zeroed_header_costs_nothing(stopped: Path, tmp_path: Path) -> None:
    found, numbers = saved(stopped, tmp_path, zero(0, 100))
    assert numbers == WAITING
    assert (found.waiting, found.ended) == (len(WAITING) + 1, len(ENDED))
    assert found.values["account"] == found.values["scram"] == found.values["ha1"] == 40
    assert found.is_complete


def test_a_zeroed_first_page_costs_nothing(stopped: Path, tmp_path: Path) -> None:
    found, numbers = saved(stopped, tmp_path, zero(0, 4096))
    assert numbers == WAITING
    assert found.values["account"] == 40


def test_each_page_in_turn_costs_only_what_was_in_it(stopped: Path, tmp_path: Path) -> None:
    """Every kind of page there is: interior, leaf, overflow, index, schema."""
    size = (stopped / "comity.db").stat().st_size // 4096
    lost: list[int] = []
    for page in range(1, size + 1, 3):
        where = tmp_path / str(page)
        where.mkdir()
        try:
            _, numbers = saved(stopped, where, zero((page - 1) * 4096, 4096))
        except pytest.fail.Exception:
            continue  # a page that holds nothing any more: the store opens
        assert numbers <= WAITING, "nothing that had ended waits again"
        lost.append(len(WAITING) - len(numbers))
    assert len(lost) > size // 6
    assert max(lost) <= 40, "a page of 4 KiB holds no more"


def test_a_file_cut_in_half_gives_its_first_half(stopped: Path, tmp_path: Path) -> None:
    def cut(data: Path) -> None:
        path = data / "comity.db"
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2 + 77)

    found, numbers = saved(stopped, tmp_path, cut)
    assert len(numbers) > len(WAITING) // 4
    assert numbers <= WAITING
    assert not found.is_complete


def test_a_deleted_log_is_said(killed: Path, tmp_path: Path) -> None:
    found, numbers = saved(killed, tmp_path, lambda data: (data / "comity.db-wal").unlink())
    assert numbers == set()
    assert not found.is_complete
    assert "the log is gone" in found.notes[0]


def test_a_deleted_main_file_gives_what_the_log_has(killed: Path, tmp_path: Path) -> None:
    found, numbers = saved(killed, tmp_path, lambda data: (data / "comity.db").unlink())
    assert numbers == WAITING
    assert not found.is_complete


def test_a_log_broken_in_the_middle_gives_the_messages_behind_the_break(killed: Path, tmp_path: Path) -> None:
    def break_log(data: Path) -> None:
        with (data / "comity.db-wal").open("r+b") as file:
            file.seek((data / "comity.db-wal").stat().st_size // 2)
            file.write(b"\xff" * 64)

    found, numbers = saved(killed, tmp_path, break_log)
    assert len(WAITING - numbers) <= 5
    assert numbers <= WAITING
    assert not found.is_complete


def test_a_message_with_other_octets_is_not_saved_and_is_named(stopped: Path, tmp_path: Path) -> None:
    def spoil(data: Path) -> None:
        path = data / "comity.db"
        octets = path.read_bytes()
        assert make(101).entity[-60:] in octets
        octets = octets.replace(make(101).entity[-60:], b"?" * 60)
        path.write_bytes(bytes(100) + octets[100:])

    found, numbers = saved(stopped, tmp_path, spoil)
    assert numbers == WAITING - {101}
    assert found.damaged == ["id-000000101 in inbox/5"]
    assert not found.is_complete


def test_random_damage_is_answered_and_never_brings_an_ended_message_back(stopped: Path, tmp_path: Path) -> None:
    """Bit flips, zeros and noise at random places, 60 times: refused as damaged or opened, and saved as far as it goes."""
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    octets = (stopped / "comity.db").read_bytes()
    for turn in range(60):
        spoilt = bytearray(octets)
        for _ in range(dice.choice((1, 5, 50))):
            place = dice.randrange(len(spoilt) - 600)
            length = dice.choice((1, 16, 512))
            spoilt[place : place + length] = dice.choice((bytes(length), dice.randbytes(length)))
        data = tmp_path / f"{turn}" / "data"
        data.mkdir(parents=True, mode=0o700)
        (data / "comity.db").write_bytes(spoilt)
        try:
            found = salvage(data, tmp_path / f"{turn}" / "saved", is_whole)
        except StoreError as error:
            assert "another program" in str(error)  # noqa: PT017 - the others go on
            continue
        numbers = asyncio.run(waiting(tmp_path / f"{turn}" / "saved", is_exact=False))
        assert numbers <= WAITING
        assert found.waiting in (len(numbers), len(numbers) + 1)


def test_what_is_not_ours_or_in_use_or_in_the_way_is_refused(stopped: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    with closing(sqlite3.connect(data / "comity.db")) as connection:
        connection.execute("PRAGMA application_id = 7")
        connection.execute("CREATE TABLE notes (x)")
        connection.commit()
    with pytest.raises(StoreError, match="another program"):
        salvage(data, tmp_path / "saved", is_whole)
    with pytest.raises(StoreError, match="not empty"):
        salvage(stopped, data, is_whole)
    with pytest.raises(StoreError, match="nothing can be saved"):
        salvage(tmp_path / "nowhere", tmp_path / "saved2", is_whole)
    lock = files.ProcessLock(stopped)
    try:
        with pytest.raises(StoreError, match="in use"):
            salvage(stopped, tmp_path / "saved3", is_whole)
    finally:
        lock.release()
