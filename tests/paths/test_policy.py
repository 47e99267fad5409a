"""A person's policy over real sockets: comity listen refuses, and the sender hears it in the sender's protocol (SEED-37, T8)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comity.client import text_object
from comity.cpim.operations import MimeObject, Reason, Requirement
from comity.secure import KeyStore, LocalCa, new_identity, sign
from tests.paths.kit import ALICE, BOB, PASSWORD, ServerProcess, Via
from tests.paths.secured import told
from tests.paths.test_protection import failure_of
from tests.paths.test_requirements import run

VIAS: list[Via] = ["sip", "xmpp", "apex"]
pairs = pytest.mark.parametrize(("source", "sink"), [(a, b) for a in VIAS for b in VIAS])


class Bob:
    """``comity listen`` with a home of its own."""

    def __init__(self, home: Path, policy: str, people: LocalCa) -> None:
        self.home = home
        KeyStore(home).put("anchors", people.certificate)
        (home / "policy.toml").write_text(policy, "utf-8")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, server: ServerProcess, via: Via, count: int) -> None:
        host, port = server.port(via, "tls")
        command = ["listen", BOB.uri, "--via", via, "--server", f"{host}:{port}", "--transport", "tls", "--json"]
        command += ["--ca", str(server.authority), "--count", str(count), "--timeout", "60"]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "comity", *command),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "COMITY_HOME": str(self.home), "COMITY_PASSWORD": PASSWORD},
        )
        assert self._process.stderr is not None
        line = await self._process.stderr.readline()
        if b"listening as" not in line:
            rest = await self._process.communicate()
            raise AssertionError((line + rest[1]).decode())

    async def lines(self) -> list[dict[str, object]]:
        """What it printed, once it ended."""
        assert self._process is not None
        out, err = await self._process.communicate()
        assert self._process.returncode == 0, err
        return [json.loads(line) for line in out.splitlines()]


@pairs
def test_what_the_recipient_refuses_is_not_shown_and_its_sender_told(
    server: ServerProcess, tmp_path: Path, source: Via, sink: Via
) -> None:
    when = datetime.now(UTC)
    people = LocalCa.create("People", when=when)
    alice = new_identity(ALICE, ca=people, when=when)
    bob = Bob(tmp_path, 'require = ["signed"]\n[verdicts]\nbad-signature = "refuse"\n', people)
    good = sign(text_object(ALICE, BOB, "hello"), alice, when=when)
    broken = MimeObject(good.header_block, good.octets.replace(b"hello", b"HELLO"))

    async def story() -> None:
        await bob.start(server, sink, 3)
        async with server.client(source, ALICE, "tls") as sender:
            reason, text = await failure_of(sender, broken)
            assert reason is told(Reason.SIGNATURE, source, sink)
            assert "signature" in text
            reason, text = await failure_of(sender, text_object(ALICE, BOB, "unsigned"))
            assert reason is told(Reason.PROTECTION, source, sink)
            assert "must be signed" in text
            await sender.send(good, BOB, requirements={Requirement.SIGNED})
            lines = await bob.lines()
            assert [line["requirements"] for line in lines] == [[], [], ["signed"]]
            said = [(line["action"], line["verdict"], line["text"]) for line in lines]
            assert said == [
                ("refuse", "bad-signature", None),
                ("refuse", "unsigned", None),
                ("deliver", "valid", "hello"),
            ]

    run(story())


def test_a_policy_that_cannot_be_read_keeps_it_from_listening(server: ServerProcess, tmp_path: Path) -> None:
    """Without the rules the person wrote nothing is shown at all."""
    people = LocalCa.create("People", when=datetime.now(UTC))
    bob = Bob(tmp_path, '[verdicts]\nstale = "drop"\n', people)

    async def story() -> None:
        with pytest.raises(AssertionError, match="stale is followed by one of"):
            await bob.start(server, "sip", 1)

    run(story())
