"""The control socket: who may ask, what a bad line does, and that an act is never carried out twice or by two."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from comity.admin.access import ask
from comity.admin.commands import Commands, PlainRecords
from comity.admin.control import MAX_LINE, Answer, ControlServer, NotRunning, call
from comity.admin.requests import AddAccount, ListAccounts, Request
from comity.config import read
from comity.errors import StoreError
from comity.service.interfaces import Store
from comity.store.memory import MemoryStore
from comity.store.sqlite import SqliteStore
from tests.loop import in_loop


@asynccontextmanager
async def serving(path: Path, store: Store | None = None) -> AsyncIterator[ControlServer]:
    commands = Commands(store or MemoryStore(), ["example.org"], PlainRecords("example.org"))
    server = ControlServer(commands, path)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def exchange(path: Path, octets: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(octets)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


@in_loop
async def test_a_request_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        added = await call(path, AddAccount("alice@example.org", "secret"))
        assert (added.error, added.exit_code) == ("", 0)
        listed = await call(path, ListAccounts())
        assert json.loads(bytes(listed.result))[0]["address"] == "alice@example.org"


@in_loop
async def test_a_refusal_keeps_its_sentence_and_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        answer = await call(path, AddAccount("alice@example.net", "secret"))
        assert answer.exit_code == 2
        assert "is not served here" in answer.error
        assert (await call(path, AddAccount("alice@example.org", ""))).error.startswith("The password is empty")


@in_loop
async def test_the_socket_is_the_owners_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    with pytest.raises(NotRunning):
        await call(path, ListAccounts())


@in_loop
async def test_another_user_is_refused_whatever_the_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SO_PEERCRED: the server's own user and root only. The kernel's answer is changed, since a test has one user."""
    path = tmp_path / "control.sock"
    monkeypatch.setattr("comity.admin.control.struct.unpack", lambda *_: (1, 12345, 12345))
    async with serving(path):
        with pytest.raises(StoreError, match="broke off"):
            await call(path, ListAccounts())


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b"null\n",
        b"\xff\n",
        b'{"type":"shutdown"}\n',
        b'{"type":"queue.list","x":1}\n',
        b"[" * 9999 + b"\n",
    ],
)
def test_a_bad_line_gets_an_error_and_the_next_is_answered(tmp_path: Path, line: bytes) -> None:
    """W-09."""

    @in_loop
    async def story() -> None:
        path = tmp_path / "control.sock"
        async with serving(path):
            answers = (await exchange(path, line + b'{"type":"account.list"}\n')).splitlines()
            assert len(answers) == 2
            assert json.loads(answers[0])["exit_code"] == 2
            assert json.loads(answers[1])["result"] == []

    story()


@in_loop
async def test_a_line_without_end_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        reader, writer = await asyncio.open_unix_connection(str(path))
        with pytest.raises((ConnectionError, AssertionError)):
            for _ in range(100):
                writer.write(b"x" * (MAX_LINE // 4))
                await writer.drain()
            assert await reader.read() != b""
        writer.close()
        assert (await call(path, ListAccounts())).error == ""


@in_loop
async def test_a_socket_left_by_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    with pytest.raises(NotRunning):
        await call(path, ListAccounts())
    async with serving(path):
        assert (await call(path, ListAccounts())).error == ""


@in_loop
async def test_a_data_directory_too_deep_for_a_socket_name_works(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    async with serving(folder / "control.sock"):
        assert (await call(folder / "control.sock", ListAccounts())).error == ""
    assert not (folder / "control.sock").exists()


@in_loop
async def test_an_act_is_finished_although_its_caller_and_the_server_go(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    store = MemoryStore()
    began, may_go_on = asyncio.Event(), asyncio.Event()

    class Slow(Commands):
        async def run(self, request: Request) -> object:
            began.set()
            await may_go_on.wait()
            return await super().run(request)

    server = ControlServer(Slow(store, ["example.org"], PlainRecords("example.org")), path)
    await server.start()
    _, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b'{"type":"account.add","address":"alice@example.org","password":"secret"}\n')
    await began.wait()
    writer.close()
    stopping = asyncio.ensure_future(server.stop())
    await asyncio.sleep(0)
    may_go_on.set()
    await stopping
    assert await store.get("account", "im:alice@example.org") is not None


class TestNeverBoth:
    """design.md section 4: by the socket when the server runs, on the store under its lock when not; never both."""

    def config(self, tmp_path: Path) -> Any:
        (tmp_path / "comity.toml").write_text('[server]\ndomains = ["example.org"]\n')
        return read(tmp_path / "comity.toml")

    @in_loop
    async def test_without_a_server_the_store_is_opened_and_closed_again(self, tmp_path: Path) -> None:
        config = self.config(tmp_path)
        assert (await ask(config, AddAccount("alice@example.org", "secret"))).error == ""
        store = await SqliteStore.open(config.server.data, min_free=0)
        assert await store.get("ha1", "im:alice@example.org") is not None
        await store.close()

    @in_loop
    async def test_with_a_server_the_socket_is_used(self, tmp_path: Path) -> None:
        config = self.config(tmp_path)
        store = await SqliteStore.open(config.server.data, min_free=0)
        async with serving(config.control_socket, store):
            answer: Answer = await ask(config, AddAccount("alice@example.org", "secret"))
            assert answer.error == ""
            assert await store.get("account", "im:alice@example.org") is not None
        await store.close()

    @in_loop
    async def test_a_store_held_without_a_socket_is_left_alone(self, tmp_path: Path) -> None:
        config = self.config(tmp_path)
        store = await SqliteStore.open(config.server.data, min_free=0)
        with pytest.raises(StoreError, match="in use by process"):
            await ask(config, ListAccounts())
        await store.close()

    @in_loop
    async def test_another_user_leaves_no_files_in_the_store(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = self.config(tmp_path)
        config.server.data.mkdir(mode=0o700)
        monkeypatch.setattr("os.geteuid", lambda: 54321)
        with pytest.raises(StoreError, match="sudo -u"):
            await ask(config, ListAccounts())
        assert list(config.server.data.iterdir()) == []
