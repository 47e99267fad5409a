"""F-07 as an operator meets it: the server refuses to start, `comity recover` saves, the printed steps are followed, it runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from comity.client import text_object
from comity.cpim.operations import Status
from tests.paths.kit import ALICE, BOB, ServerProcess
from tests.paths.test_disk import receive, refused_start, run

TEXTS = [f"message {n}" for n in range(30)]


def recover(server: ServerProcess, *options: str) -> subprocess.CompletedProcess[str]:
    target = str(server.directory / "saved")
    command = [sys.executable, "-m", "comity", "recover", "--to", target, "-c", str(server.config), *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def damage_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def damage_page(path: Path) -> None:
    """Something in the middle that is not empty."""
    with path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 4096)


def damage_octets(path: Path) -> None:
    """Octets of one message, which no check of SQLite sees: found when it is delivered, or by recover."""
    octets = path.read_bytes()
    assert b"message 17" in octets
    path.write_bytes(octets.replace(b"message 17", b"message 71"))


@pytest.mark.parametrize("damage", [damage_header, damage_page])
def test_a_damaged_store_is_refused_saved_and_taken_into_use(tmp_path: Path, damage: object) -> None:
    with ServerProcess(tmp_path) as server:
        server.start()
        run(send(server))
        assert "in use by process" in recover(server).stderr
        assert server.stop() == 0
        data, saved = server.directory / "data", server.directory / "saved"
        assert callable(damage)
        damage(data / "comity.db")
        said = refused_start(server.config)
        assert f"{data / 'comity.db'} is damaged: " in said
        assert "comity recover" in said
        done = recover(server)
        assert done.returncode in (0, 1), done.stderr
        assert "Nothing was changed" not in done.stderr
        finding = done.stdout.splitlines()[0].removeprefix("finding: ")
        assert finding in said
        assert f"saved: {len(TEXTS)} waiting messages" in done.stdout
        assert "2 of account" in done.stdout
        steps = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
        assert len(steps) == 2
        for step in steps:
            subprocess.run(step, shell=True, check=True)
        assert not any(saved.iterdir())
        server.start()
        run(take_all(server))
        assert server.stop() == 0


def test_octets_no_check_of_sqlite_sees_are_named_by_recover(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        server.start()
        run(send(server))
        assert server.stop() == 0
        damage_octets(server.directory / "data" / "comity.db")
        done = recover(server, "--json")
        assert done.returncode == 1, done.stderr
        result = json.loads(done.stdout)
        assert (result["waiting"], result["complete"], result["finding"]) == (len(TEXTS) - 1, False, "")
        assert len(result["damaged"]) == 1
        assert result["damaged"][0].endswith("in inbox/im:bob@a.test")


async def send(server: ServerProcess) -> None:
    async with server.client("sip", ALICE, receive=False) as alice:
        for text in TEXTS:
            assert (await alice.send(text_object(ALICE, BOB, text), BOB)).status is Status.INDETERMINANT


async def take_all(server: ServerProcess) -> None:
    """Bob's messages in order, and Alice can sign in and send another."""
    assert await receive(server, len(TEXTS)) == TEXTS
    async with server.client("xmpp", ALICE, receive=False) as alice:
        assert (await asyncio.wait_for(alice.send(text_object(ALICE, BOB, "x"), BOB), 10)).status is not Status.FAILURE
