"""One signed message sent again by another protocol, over real sockets through a real server (SEC-25, R-03, T10).

The same octets a second time the server itself drops (``tests/service/test_pipeline.py``); here they are put together
anew around the same signature, as any server on the way could, so that only the recipient can tell.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from comity.client import text_object
from comity.cpim.operations import MimeObject
from comity.secure import (
    KeyStore,
    LocalCa,
    StoredReplayCache,
    TrustStore,
    VerdictKind,
    encrypt,
    new_identity,
    sign,
    verify,
)
from tests.paths.kit import ALICE, BOB, PASSWORD, ServerProcess, Via
from tests.paths.test_stories import exchange, pairs, run


@pairs
@pytest.mark.parametrize("how", ["plain", "encrypted"])
def test_the_same_signed_message_by_another_protocol_is_a_replay(
    server: ServerProcess, source: Via, sink: Via, how: str, tmp_path: Path
) -> None:
    """By ``source`` to a device on SIP first, then from XMPP to one on ``sink``: one memory, one message."""

    async def story() -> None:
        when = datetime.now(UTC)
        ca = LocalCa.create("Test authority", when=when)
        alice, bob = new_identity(ALICE, ca=ca, when=when), new_identity(BOB, ca=ca, when=when)
        trust = TrustStore(anchors=(ca.certificate,))
        signed = sign(text_object(ALICE, BOB, f"once, {source} to {sink}, {how}"), alice, when=when)
        first = encrypt(signed, [bob.certificate]) if how == "encrypted" else signed
        again = (
            encrypt(signed, [bob.certificate])
            if how == "encrypted"
            else MimeObject(signed.header_block, b"not part of it\r\n" + signed.octets)
        )
        assert again.fingerprint != first.fingerprint
        verdicts = []
        for via_in, via_out, obj in ((source, "sip", first), ("xmpp", sink, again)):
            [received] = await exchange(server, via_in, via_out, [obj])  # type: ignore[arg-type]  # a table of Via
            assert received.object.octets == obj.octets
            memory = StoredReplayCache(str(BOB), tmp_path)  # each time a new process could open it
            verdicts.append(
                verify(
                    received.object,
                    trust,
                    now=datetime.now(UTC),
                    keys=(bob,),
                    replay=memory,
                    expected_from=received.from_,
                    expected_to=received.to,
                )
            )
            memory.close()
        assert [verdict.verdict for verdict in verdicts] == [VerdictKind.VALID, VerdictKind.REPLAYED]
        assert "accepted before" in verdicts[1].reason

    run(story())


@pytest.mark.parametrize("via", ["sip", "xmpp"])
def test_the_command_tells_a_replay_after_a_restart(server: ServerProcess, tmp_path: Path, via: Via) -> None:
    """R-03: two runs of ``comity listen`` with one COMITY_HOME; between them nothing but the file."""
    when = datetime.now(UTC)
    ca = LocalCa.create("Test authority", when=when)
    signed = sign(text_object(ALICE, BOB, f"once by {via}"), new_identity(ALICE, ca=ca, when=when), when=when)
    again = MimeObject(signed.header_block, b"not part of it\r\n" + signed.octets)
    home = tmp_path / "home"
    KeyStore(home).import_file(ca.certificate.public_bytes(Encoding.PEM), is_anchor=True)
    password = tmp_path / "password"
    password.write_text(PASSWORD, "utf-8")
    host, port = server.port(via, "tls")
    command = [sys.executable, "-m", "comity", "listen", BOB.uri, "--via", via, "--server", f"{host}:{port}"]
    command += ["--transport", "tls", "--ca", str(server.authority), "--password-file", str(password)]
    command += ["--count", "1", "--timeout", "30", "--json"]

    async def send(obj: MimeObject) -> None:
        async with server.client("xmpp", ALICE, receive=False) as alice:
            await alice.send(obj, BOB)

    said = []
    for obj in (signed, again):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COMITY_HOME": str(home)}
        )
        run(send(obj))
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 0
        said.append(json.loads(output))
    assert [(one["verdict"], one["action"]) for one in said] == [("valid", "deliver"), ("replayed", "refuse")]
    assert said[1]["text"] is None
    assert stat.S_IMODE((home / "replay.sqlite").stat().st_mode) == 0o600
