"""The embedded store's own promises: start, damage, locks, full disks (reliability.md section 6.1 item 10, F-04 to F-33)."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from comity.errors import StoreDamaged, StoreError
from comity.service.interfaces import Ack, Add, Delete, Done, Put, Repeat, Wake
from comity.store import SqliteStore, checks, files, schema
from comity.store import writer as writing
from tests.disks import small_disk
from tests.store import audit
from tests.store.audit import ROOT, said
from tests.store.child import make


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def opened(directory: Path, **options: Any) -> SqliteStore:
    return await SqliteStore.open(directory, **{"min_free": 0, **options})


async def filled(directory: Path, count: int = 100) -> SqliteStore:
    store = await opened(directory)
    await store.commit([Add(make(number)) for number in range(count)])
    return store


def connection_of(store: SqliteStore) -> sqlite3.Connection:
    assert store._writer is not None
    assert store._writer._connection is not None
    return store._writer._connection


def stopped(directory: Path, count: int = 100) -> None:
    """Make a store that was closed in order."""

    async def main() -> None:
        await (await filled(directory, count)).close()

    asyncio.run(main())


def killed(directory: Path, count: int = 100, *options: str) -> None:
    """Make a store whose process was killed, everything still in the log."""
    child = audit.start(directory, 0, count, "single", *options, failpoint="store.before-insert:" + str(count))
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL


def refusal(directory: Path) -> StoreError:
    """Open, expect a refusal, and prove that it changed nothing."""

    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in directory.glob("comity.db*") if not path.name.endswith("-shm")}

    before = content()
    with pytest.raises(StoreError) as caught:
        asyncio.run(opened(directory))
    assert content() == before
    return caught.value


class TestStart:
    """reliability.md section 6.1 item 10, B-01, F-32, F-33."""

    def test_directory_and_files_are_private_whatever_the_umask(self, data: Path) -> None:
        before = os.umask(0)

        async def main() -> None:
            store = await filled(data)
            look()
            await store.close()

        def look() -> None:
            assert data.stat().st_mode & 0o777 == 0o700
            assert {path.stat().st_mode & 0o777 for path in data.iterdir()} == {0o600}

        try:
            asyncio.run(main())
        finally:
            os.umask(before)

    def test_a_directory_open_to_others_is_refused(self, data: Path) -> None:
        data.mkdir()
        data.chmod(0o750)
        with pytest.raises(StoreError, match=r"open to others.*chmod 700"):
            asyncio.run(opened(data))

    def test_a_network_file_system_is_refused_in_a_sentence(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "file_system", lambda directory: "nfs4")
        with pytest.raises(StoreError, match=r"on a network file system \(nfs4\).*Choose a directory on a local disk"):
            asyncio.run(opened(data))

    def test_the_innermost_and_latest_mount_names_the_file_system(self, tmp_path: Path) -> None:
        mounts = tmp_path / "mountinfo"
        inner = tmp_path / "a b"
        inner.mkdir()
        escaped = str(inner).replace(" ", "\\040")
        mounts.write_text(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
            f"2 1 0:40 / {escaped} rw,relatime shared:1 - ext4 /dev/sdb rw\n"
            f"3 1 0:41 / {escaped} rw - nfs4 host:/x rw\n"
            f"4 1 0:42 / {escaped}c rw - tmpfs tmpfs rw\n"
            "broken line\n"
        )
        assert files.file_system(inner, mounts) == "nfs4"
        assert files.file_system(tmp_path, mounts) == "ext4"
        assert files.file_system(tmp_path, tmp_path / "absent") == ""
        assert files.file_system(tmp_path) != ""

    def test_a_second_instance_is_refused_naming_pid_and_path(self, data: Path) -> None:
        """F-32: another process, and the same one."""
        child = audit.start(data, 0, 10**9)
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            with pytest.raises(StoreError, match=f"in use by process {child.pid} .*store.lock"):
                asyncio.run(opened(data))
        finally:
            child.kill()
            child.communicate()

        async def twice() -> None:
            store = await opened(data)
            with pytest.raises(StoreError, match=f"in use by process {os.getpid()} "):
                await opened(data)
            await store.close()
            await (await opened(data)).close()

        asyncio.run(twice())

    def test_a_newer_schema_is_refused_naming_the_version_needed(self, data: Path) -> None:
        """F-33."""
        stopped(data)
        with closing(sqlite3.connect(data / "comity.db")) as connection:
            connection.execute("PRAGMA user_version = 9")
            connection.execute("UPDATE meta SET value = '7.5' WHERE key = 'needs'")
            connection.commit()
        error = refusal(data)
        assert "schema 9" in str(error)
        assert "Use Comity 7.5 or later" in str(error)
        assert not isinstance(error, StoreDamaged)

    def test_a_migration_runs_once_and_a_failing_one_changes_nothing(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stopped(data)
        known = list(schema.migrations())
        next_one = known[-1][0] + 1
        bad = [*known, (next_one, "CREATE TABLE more (x);\nCREATE TABLE more (x);\n")]
        monkeypatch.setattr(schema, "migrations", lambda: bad)
        with pytest.raises(StoreError, match=f"could not be brought from {known[-1][0]} to {next_one}"):
            asyncio.run(opened(data))
        good = [*known, (next_one, "CREATE TABLE more (x);\nINSERT INTO more VALUES (1);\n")]
        monkeypatch.setattr(schema, "migrations", lambda: good)
        for _ in range(2):
            stopped(data, 1)
        with closing(sqlite3.connect(data / "comity.db")) as connection:
            assert connection.execute("SELECT count(*) FROM more").fetchone() == (1,)
            assert connection.execute("PRAGMA user_version").fetchone() == (next_one,)

    def test_an_unclean_stop_is_followed_by_integrity_check(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        killed(data)
        asked: list[bool] = []
        monkeypatch.setattr(checks, "CLEAN_BELOW", 0)
        original = checks.check_pages

        def check_pages(connection: sqlite3.Connection, path: Path) -> None:
            asked.append(True)
            original(connection, path)

        monkeypatch.setattr(checks, "check_pages", check_pages)
        asyncio.run(run_empty(data))
        assert asked == [True]
        asyncio.run(run_empty(data))
        assert asked == [True]


async def run_empty(directory: Path) -> None:
    await (await opened(directory)).close()


def truncate(path: Path, size: Callable[[int], int]) -> None:
    os.truncate(path, size(path.stat().st_size))


def overwrite(path: Path, offset: int, octets: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(octets)


class TestDamage:
    """F-07: refused with the exact finding, nothing overwritten, never empty in silence."""

    @pytest.mark.parametrize("make_store", [stopped, killed])
    @pytest.mark.parametrize(
        ("spoil", "finding"),
        [
            (lambda path: overwrite(path, 0, bytes(100)), "overwritten with zeros"),
            (lambda path: path.write_bytes(b"#!/bin/sh\necho hello\n" * 500), "not an SQLite database"),
            (lambda path: truncate(path, lambda size: 0), "empty"),
            (lambda path: truncate(path, lambda size: 60), "cut off after 60 octets"),
            (lambda path: path.unlink(), "gone"),
            (lambda path: overwrite(path, 68, b"ABCD"), "another program"),
            (lambda path: overwrite(path, 4096 * 2, os.urandom(4096)), "malformed|check says"),
            (lambda path: overwrite(path, 100, bytes(60)), "malformed|SQLite says|check says"),
        ],
        ids=["zeroed", "foreign", "empty", "cut short", "deleted", "other database", "random page", "zeroed root"],
    )
    def test_a_spoiled_main_file_is_refused(
        self, data: Path, make_store: Callable[[Path], None], spoil: Callable[[Path], None], finding: str
    ) -> None:
        make_store(data)
        spoil(data / "comity.db")
        if make_store is killed and finding.startswith("malformed"):
            # The log may hold a whole copy of that page; then nothing is lost and the start may go on.
            try:
                asyncio.run(run_empty(data))
            except StoreDamaged:
                return
            audit.check(data, set(range(30)), set())
            return
        error = refusal(data)
        assert isinstance(error, StoreDamaged)
        assert re.search(finding, error.finding), error.finding
        assert error.cure

    def test_a_file_cut_after_a_clean_stop_is_refused(self, data: Path) -> None:
        stopped(data, 1000)
        truncate(data / "comity.db", lambda size: size // 2)
        error = refusal(data)
        assert isinstance(error, StoreDamaged)
        assert "cut off" in error.finding

    def test_every_page_of_zeros_is_found(self, data: Path, tmp_path: Path) -> None:
        """One page of each b-tree and overflow kind, zeroed one at a time."""
        stopped(data, 60)
        whole = (data / "comity.db").read_bytes()
        missed = []
        for page in range(1, len(whole) // 4096):
            (data / "comity.db").write_bytes(whole[: page * 4096] + bytes(4096) + whole[(page + 1) * 4096 :])
            try:
                checks.inspect(data / "comity.db")
            except StoreDamaged:
                continue
            missed.append(page)
        assert missed == []

    def test_a_deleted_log_is_noticed(self, data: Path) -> None:
        """The main file says it is in use, so its log has to be there."""
        killed(data)
        (data / "comity.db-wal").unlink()
        error = refusal(data)
        assert isinstance(error, StoreDamaged)
        assert "log comity.db-wal is gone" in error.finding

    def test_a_log_broken_in_its_middle_is_noticed(self, data: Path) -> None:
        """SQLite alone would take the break for the log's end and forget what follows."""
        killed(data)
        log = data / "comity.db-wal"
        overwrite(log, 32 + 4120 * 20 + 500, b"\xde\xad")
        error = refusal(data)
        assert isinstance(error, StoreDamaged)
        assert "only, although" in error.finding

    @pytest.mark.parametrize("octets", [bytes(32), b"\xff" * 4, b"7\x7f\x06\x82\x00\x2d\xe2\x19"])
    def test_a_log_with_a_spoiled_header_is_noticed(self, data: Path, octets: bytes) -> None:
        killed(data)
        overwrite(data / "comity.db-wal", 0 if len(octets) != 8 else 16, octets)
        error = refusal(data)
        assert isinstance(error, StoreDamaged)
        assert "log's header" in error.finding

    def test_a_torn_last_transaction_is_no_damage(self, data: Path) -> None:
        """F-01: half a write at the log's end was never acknowledged."""
        killed(data)
        with (data / "comity.db-wal").open("ab") as log:
            log.write(os.urandom(3000))
        audit.check(data, set(range(70)), set())

    def test_an_older_copy_is_refused(self, data: Path, tmp_path: Path) -> None:
        """B-03, F-02: detected by epoch."""
        stopped(data, 1)
        shutil.copy(data / "comity.db", tmp_path / "old")
        stopped(data, 1)
        shutil.copy(tmp_path / "old", data / "comity.db")
        error = refusal(data)
        assert isinstance(error, StoreDamaged)
        assert "older copy (epoch 1, but epoch 2" in error.finding
        (data / "store.epoch").unlink()
        asyncio.run(run_empty(data))


class TestTrouble:
    """F-04, F-05, F-06, F-31: no silence, no false yes, no restart needed."""

    def test_a_full_database_refuses_records_keeps_acks_and_recovers(self, data: Path) -> None:
        """SQLITE_FULL made by SQLite itself (max_page_count)."""

        async def main() -> None:
            store = await filled(data)
            connection = connection_of(store)
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages + 3}")
            results = await asyncio.gather(
                *(store.commit([Add(make(1000 + number))]) for number in range(200)),
                store.commit([Ack("inbox/0", 1, b"done")]),
                store.commit([Wake("x")]),
                return_exceptions=True,
            )
            refused = [result for result in results[:200] if isinstance(result, StoreError)]
            assert refused
            assert "disk is full" in str(refused[0])
            assert results[200:] == [[Done(1)], [Done(0)]]
            assert len(await store.read("inbox/1", 100)) >= 12
            connection.execute(f"PRAGMA max_page_count = {pages * 100}")
            (again,) = await store.commit([Add(make(1199))])
            assert isinstance(again, Done)
            await store.close()

        asyncio.run(main())
        audit.check(data, set(range(1, 100)), {0})

    def test_a_small_disk_fills_is_watched_and_recovers(self, tmp_path: Path) -> None:
        """F-04 on a real full file system; below the watermark Acks still have room."""
        with small_disk(tmp_path / "disk", 6) as disk:

            async def main() -> None:
                store = await opened(disk / "data")
                ballast = [disk / "first", disk / "second"]
                for path in ballast:
                    path.write_bytes(bytes(1 << 20))
                accepted = await fill(store)
                assert len(accepted) > 100
                assert len(await store.read("inbox/0", 10)) == 10
                ballast[0].unlink()
                assert isinstance((await store.commit([Add(make(800_000))]))[0], Done)
                ballast[1].unlink()
                await store.close()
                store = await opened(disk / "data", min_free=10**9)
                with pytest.raises(StoreError, match="nearly full"):
                    await store.commit([Add(make(900_000), quota=(10**6, 10**9))])
                assert isinstance((await store.commit([Add(make(900_001))]))[0], Done), "a report of our own"
                assert isinstance((await store.commit([Put("contact", "phone", b"")]))[0], Done)
                item = (await store.read("inbox/0", 1))[0]
                assert await store.commit([Ack("inbox/0", item.seq, b""), Delete("setting", "k")]) == [
                    Done(item.seq),
                    Done(0),
                ]
                await store.close()

            asyncio.run(main())

    def test_after_an_io_error_the_store_is_verified_and_goes_on(self, data: Path) -> None:
        """F-05, F-06 by RLIMIT_FSIZE: write fails with EFBIG, which SQLite takes for an I/O error."""
        program = (
            "import asyncio, resource, sys\n"
            "from pathlib import Path\n"
            "from comity.errors import StoreError\n"
            "from comity.service.interfaces import Add, Done\n"
            "from comity.store import SqliteStore\n"
            "from comity.store import writer\n"
            "from tests.store.child import make\n"
            "writer.REOPEN_AFTER = 0.0\n"
            "async def main():\n"
            "    store = await SqliteStore.open(Path(sys.argv[1]), min_free=0)\n"
            "    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, -1))\n"
            "    for number in range(500):\n"
            "        try:\n"
            "            await store.commit([Add(make(number))])\n"
            "            print('acked', number)\n"
            "        except StoreError as error:\n"
            "            print('refused', number, error)\n"
            "            assert len(await store.read('inbox/1', 1)) == 1\n"
            "            if number > 450: resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
            "    await store.close()\n"
            "asyncio.run(main())\n"
        )
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-c", program, str(data)]
        ended = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        acked, refused = said(ended.stdout, "acked"), said(ended.stdout, "refused")
        assert "disk I/O error" in ended.stdout
        assert "reopened and verified" in ended.stderr
        assert refused
        assert acked[-1] == 499
        assert sorted(acked + refused) == list(range(500))
        audit.check(data, set(acked), set())

    def test_a_database_locked_by_another_program_refuses_in_time_and_goes_on(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F-31, with 1 s for the 5 s: and who comes second does not wait again."""
        assert schema.BUSY == 5.0
        monkeypatch.setattr(schema, "BUSY", 1.0)

        async def main() -> None:
            store = await filled(data)
            with closing(sqlite3.connect(data / "comity.db", isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                began = time.monotonic()
                first = store.commit([Add(make(1000))])
                await asyncio.sleep(0.05)
                results = await asyncio.gather(first, store.commit([Add(make(1001))]), return_exceptions=True)
                assert time.monotonic() - began < 2.0
                assert [str(result) for result in results] == [str(results[0])] * 2
                assert "locked" in str(results[0])
                assert len(await store.read("inbox/0", 5)) == 5
                other.execute("ROLLBACK")
            assert isinstance((await store.commit([Add(make(1000))]))[0], Done)
            await store.close()

        asyncio.run(main())

    def test_one_call_that_cannot_be_kept_does_not_fail_its_group(self, data: Path) -> None:
        async def main() -> None:
            store = await filled(data)
            impossible = Put("setting", "k", cast(bytes, 2**70))  # what a buggy caller might hand in
            calls = [store.commit([Add(make(1000))]), store.commit([impossible]), store.commit([Add(make(1001))])]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [isinstance(result, StoreError) for result in results] == [False, True, False]
            assert isinstance((await store.commit([Add(make(1001))]))[0], Repeat)
            await store.close()

        asyncio.run(main())

    def test_a_cancelled_wait_does_not_disturb_the_others(self, data: Path) -> None:
        async def main() -> None:
            store = await opened(data)
            futures = [store.commit([Add(make(number))]) for number in range(10)]
            futures[3].cancel()
            done = await asyncio.gather(*futures, return_exceptions=True)
            assert sum(isinstance(result, list) for result in done) == 9
            await store.close()

        asyncio.run(main())
        audit.check(data, set(range(10)), set())

    def test_many_waiting_calls_cost_few_transactions(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Group commit: the next group gathers while one is committed; one wake-up of the loop per group."""

        async def main() -> None:
            store = await opened(data)
            assert store._writer is not None
            groups: list[int] = []
            resolve = store._writer._resolve

            def count(outcomes: list[Any], woken: dict[str, None]) -> None:
                groups.append(len(outcomes))
                resolve(outcomes, woken)

            monkeypatch.setattr(store._writer, "_resolve", count)
            await asyncio.gather(*(store.commit([Add(make(number))]) for number in range(1000)))
            assert sum(groups) == 1000
            assert len(groups) < 20
            await store.close()

        asyncio.run(main())

    def test_the_log_does_not_grow_without_end(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writing, "CHECKPOINT_CHANGES", 500)

        async def main() -> None:
            store = await opened(data)
            for start in range(0, 6000, 100):
                await store.commit([Add(make(number)) for number in range(start, start + 100)])
            assert (data / "comity.db-wal").stat().st_size < 8 * 1024 * 1024
            await store.close()
            assert not (data / "comity.db-wal").exists()

        asyncio.run(main())


async def fill(store: SqliteStore) -> list[int]:
    """Add until the store refuses."""
    accepted: list[int] = []
    for number in range(100_000):
        try:
            await store.commit([Add(make(number))])
        except StoreError:
            return accepted
        accepted.append(number)
    raise AssertionError("the disk never filled")
