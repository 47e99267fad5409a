"""The disk fails under a real server: no false "yes", no silence, delivery goes on, no restart needed (F-04…F-06, F-29, F-31…F-33).

Full disks are small tmpfs mounts; errors of write and sync are injected into the server's own system calls by strace.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from comity.client import Client, text_object
from comity.cpim.operations import Reason, Response, Status
from tests.disks import fill, small_disk
from tests.paths.kit import ALICE, BOB, ServerProcess, Via
from tests.store.recording import needs_strace

VIAS: list[Via] = ["sip", "xmpp", "apex"]
RATES = "user_messages = 100000\nuser_message_burst = 100000\nuser_stanzas = 100000\nuser_octets = 1000000000\n"


def run(work: Coroutine[Any, Any, None], seconds: float = 60) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await work

    asyncio.run(bounded())


async def say(client: Client, text: str) -> Response:
    return await client.send(text_object(ALICE, BOB, text), BOB)


async def until(client: Client, text: str, status: Status) -> int:
    """Send until the answer has that status; how many had another."""
    others = 0
    while (await say(client, text)).status is not status:
        others += 1
    return others


async def receive(server: ServerProcess, count: int, via: Via = "xmpp", left: int = 0) -> list[str]:
    """Bob signs in and takes ``count`` messages, which is all there is but ``left`` for others; their texts."""
    async with server.client(via, BOB) as bob:
        messages = bob.messages()
        texts = [(await anext(messages)).text or "" for _ in range(count)]
        following = asyncio.ensure_future(anext(messages))  # takes the last one
        while await asyncio.to_thread(server.waiting) != left:
            pass
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        return texts


def is_not_now(response: Response, via: Via) -> bool:
    """SIP 503 with Retry-After, XMPP wait/resource-constraint, APEX 450."""
    if via == "apex":
        return response.reason is Reason.AWAY and "stored" in response.text
    return response.reason is Reason.OVERLOAD and (via == "xmpp" or response.retry_after is not None)


def test_on_a_full_disk_nothing_new_is_taken_and_what_is_stored_is_delivered(tmp_path: Path) -> None:
    """F-04: data, SQLite's log and the server's own on one disk that fills to the last octet, and has room again."""
    limits = RATES + "disk_warn = 99\ndisk_refuse = 100\ndisk_free = 1\n"
    with small_disk(tmp_path / "disk", 48) as disk, ServerProcess(disk, limits) as server:
        server.start()

        async def story() -> None:
            async with (
                server.client("sip", ALICE, "tcp", receive=False) as phone,
                server.client("xmpp", ALICE, receive=False) as desk,
                server.client("apex", ALICE, receive=False) as board,
            ):
                texts = [f"kept {n}" for n in range(40)]
                for text in texts:
                    assert (await say(phone, text)).status is Status.INDETERMINANT
                fill(disk / "ballast")
                texts += ["x" * 8_000] * await until(phone, "x" * 8_000, Status.FAILURE)
                assert is_not_now(await say(phone, "x" * 8_000), "sip")
                assert is_not_now(await say(desk, "x" * 8_000), "xmpp")
                assert is_not_now(await say(board, "x" * 8_000), "apex")  # P-34: no ok before it
                assert await receive(server, len(texts)) == texts
                (disk / "ballast").unlink()
                await until(phone, "room", Status.INDETERMINANT)
                assert (await say(desk, "again")).status is not Status.FAILURE
                assert (await say(board, "again")).status is not Status.FAILURE

        run(story())
        assert server.stop() == 0
        server.start()
        assert server.waiting() == 3
        assert server.stop() == 0


def test_near_a_full_disk_no_message_is_taken_but_registrations_and_deliveries_go_on(tmp_path: Path) -> None:
    """reliability.md section 6.2: warn at 80 %, refuse at 90 %, both keys of [limits]."""
    with small_disk(tmp_path / "disk", 64) as disk, ServerProcess(disk, RATES + 'disk_free = "1 MiB"\n') as server:
        server.start()
        ballast = disk / "ballast"

        async def story() -> None:
            async with server.client("sip", ALICE, "tcp", receive=False) as phone:
                texts = ["at half"]
                assert (await say(phone, texts[0])).status is Status.INDETERMINANT
                fill(ballast, leave=9 << 20)
                while "from 90 % on nothing new is accepted" not in server.log.read_text("utf-8"):
                    assert (await say(phone, "warned")).status is Status.INDETERMINANT
                    texts.append("warned")
                    assert await asyncio.to_thread(server.waiting) == len(texts)
                fill(ballast, leave=5 << 20)
                texts += ["refused"] * await until(phone, "refused", Status.FAILURE)
                assert is_not_now(await say(phone, "refused"), "sip")
                assert await receive(server, len(texts), "sip") == texts
                ballast.unlink()
                await until(phone, "room", Status.INDETERMINANT)

        run(story())
        assert "messages are accepted again" in server.log.read_text("utf-8")
        assert server.stop() == 0


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """F-04: stderr on a full disk; messages pass, certificates are reloaded, the end is orderly."""
    with ServerProcess(tmp_path, RATES) as server:
        server.log = Path("/dev/full")
        server.start()
        assert server.process is not None

        async def story() -> None:
            async with server.client("xmpp", ALICE, receive=False) as desk:
                assert (await say(desk, "before")).status is not Status.FAILURE
                assert server.process is not None
                server.process.send_signal(signal.SIGHUP)
                assert (await say(desk, "after")).status is not Status.FAILURE
            assert await receive(server, 2) == ["before", "after"]

        run(story())
        assert server.stop() == 0


@needs_strace
@pytest.mark.parametrize(
    ("call", "error", "when"),
    [("fdatasync", "EIO", "12"), ("pwrite64", "EROFS", "60..62"), ("pwrite64", "EACCES", "60..62")],
    ids=["F-05", "F-06-read-only", "F-06-permission"],
)
def test_after_an_error_of_the_disk_the_group_is_refused_and_the_store_verified(
    tmp_path: Path, call: str, error: str, when: str
) -> None:
    """F-05, F-06: no "yes" for what could not be synced; the database is reopened and checked; no restart."""
    with ServerProcess(tmp_path, RATES) as server:
        inject = f"inject={call}:error={error}:when={when}"
        server.tracer = ["strace", "-D", "-f", "-o", os.devnull, "-e", f"trace={call}", "-e", inject]
        server.start()

        async def story() -> None:
            async with server.client("sip", ALICE, "tcp", receive=False) as phone:
                texts: list[str] = []
                refused = 0
                while not refused or len(texts) < 40 or texts[-1] != f"message {len(texts) + refused - 1}":
                    text = f"message {len(texts) + refused}"
                    answer = await say(phone, text)
                    if answer.status is Status.FAILURE:
                        assert is_not_now(answer, "sip")
                        refused += 1
                    else:
                        texts.append(text)
                assert await receive(server, len(texts)) == texts

        run(story())
        assert "reopened and verified" in server.log.read_text("utf-8")
        assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("via", VIAS)
def test_a_database_locked_by_another_program_is_refused_after_five_seconds(tmp_path: Path, via: Via) -> None:
    """F-31: twice in a row, then unlocked; nobody has to be restarted."""
    with ServerProcess(tmp_path, RATES) as server:
        server.start()

        async def story() -> None:
            async with server.client(via, ALICE, receive=False) as alice:
                assert (await say(alice, "before")).status is Status.INDETERMINANT
                with closing(sqlite3.connect(server.directory / "data" / "comity.db", isolation_level=None)) as other:
                    other.execute("BEGIN EXCLUSIVE")
                    for _ in range(2):
                        began = time.monotonic()
                        assert is_not_now(await say(alice, "locked"), via)
                        assert 4.5 < time.monotonic() - began < 8
                    assert await asyncio.to_thread(server.waiting) == 1
                    other.execute("ROLLBACK")
                assert (await say(alice, "after")).status is Status.INDETERMINANT
                assert await receive(server, 2) == ["before", "after"]

        run(story())
        assert server.stop() == 0


def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path) -> None:
    """F-32: the first goes on."""
    with ServerProcess(tmp_path, RATES) as server:
        server.start()
        config = server.directory / "second.toml"
        config.write_text('[server]\ndomains = ["a.test"]\n[sip]\nlisten = []\n[xmpp]\nclient = []\n')
        said = refused_start(config)
        assert "is in use by process" in said
        assert str(server.directory / "data") in said

        async def story() -> None:
            async with server.client("xmpp", ALICE, receive=False) as desk:
                assert (await say(desk, "still here")).status is Status.INDETERMINANT

        run(story())
        assert server.stop() == 0


@needs_strace
@pytest.mark.parametrize("name", ["data/tls/server.key", "data/tls/server.pem", "data/comity.db"])
def test_what_may_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    """F-29: the exact path; EACCES is injected, since tests may run as root."""
    with ServerProcess(tmp_path, RATES) as server:
        path = server.directory / name
        assert path.exists()
        inject = ["-P", str(path), "-e", "trace=openat", "-e", "inject=openat:error=EACCES"]
        said = refused_start(server.config, "strace", "-D", "-f", "-o", os.devnull, *inject)
        assert str(path) in said
        server.start()
        assert server.stop() == 0


def test_a_database_of_a_newer_version_is_refused_with_the_version_needed(tmp_path: Path) -> None:
    """F-33."""
    with ServerProcess(tmp_path, RATES) as server:
        with closing(sqlite3.connect(server.directory / "data" / "comity.db")) as connection:
            connection.execute("UPDATE meta SET value = '9.8' WHERE key = 'needs'")
            connection.execute("PRAGMA user_version = 99")
            connection.commit()
        assert "Use Comity 9.8 or later" in refused_start(server.config)


def refused_start(config: Path, *tracer: str) -> str:
    """Start a server that must not start; what it says."""
    command = [*tracer, sys.executable, "-m", "comity", "serve", "-c", str(config)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2, ended
    assert "Traceback" not in ended.stderr
    return ended.stderr
