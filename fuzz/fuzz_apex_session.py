#!/usr/bin/env python3
"""An APEX session at three stages, in both roles: the same events and the same octets out, however what comes in is cut."""

from __future__ import annotations

import re

from run import run

from comity.beep.sasl_server import SaslOptions
from comity.bindings.apex import events
from comity.bindings.apex.elements import Ok
from comity.bindings.apex.session import ApexSession
from comity.bindings.apex.signing_in import Role, SessionOptions
from comity.sasl import ScramSecret

SECRETS = {"sha-256": ScramSecret(b"s", 1, b"k" * 32, b"k" * 32)}
OPTIONS = SessionOptions(has_tls=True, sign_in=SaslOptions(b"key", ("sha-256",), 1, allow_clear=True))
HEAD = b"Content-Type: application/beep+xml\r\n\r\n"


def frame(kind: bytes, channel: int, msgno: int, seqno: int, xml: bytes) -> bytes:
    payload = HEAD + xml
    return b"%b %d %d . %d %d\r\n%bEND\r\n" % (kind, channel, msgno, seqno, len(payload), payload)


GREETING = frame(b"RPY", 0, 0, 0, b"<greeting><profile uri='http://iana.org/beep/APEX'/></greeting>")
START = frame(
    b"MSG",
    0,
    1,
    len(GREETING) - len(b"RPY 0 0 . 0 108\r\nEND\r\n"),
    b"<start number='1'><profile uri='http://iana.org/beep/APEX'/></start>",
)
ATTACH = frame(b"MSG", 1, 0, 0, b"<attach endpoint='a@a.test' transID='1'/>")
#: How far a window was told to be open depends on when what came was looked at.
WINDOWS = re.compile(rb"SEQ \d+ \d+ \d+\r\n")


def story(role: Role, chunks: list[bytes]) -> tuple[list[str], bytes]:
    session = ApexSession(role, OPTIONS, lambda: None, lambda size: b"r" * size, 0.0)
    seen: list[str] = []
    out = b""
    for chunk in chunks:
        session.receive_data(chunk, 0.0)
        while (event := session.next_event()) is not None:
            seen.append("ended" if isinstance(event, events.SessionEnded) else repr(event))
            if isinstance(event, events.CredentialsWanted):
                session.credentials(SECRETS)
            elif isinstance(event, events.ExternalCheckWanted):
                session.external_checked(None)
            elif isinstance(event, events.ElementReceived):
                session.answer(event.channel, event.msgno, Ok())
        out += b"".join(session.data_to_send(0.0))
    return seen, WINDOWS.sub(b"", out)


def one_input(data: bytes) -> None:
    """The first octet says how the others are cut."""
    size, octets = (data[0] % 64 + 1, data[1:]) if data else (1, b"")
    pieces = [octets[start : start + size] for start in range(0, len(octets), size)] or [b""]
    for role, prefix in (
        ("listener", []),
        ("listener", [GREETING]),
        ("listener", [GREETING, START]),
        ("initiator", [GREETING]),
    ):
        whole_seen, whole_out = story(role, [*prefix, octets])
        seen, out = story(role, [*prefix, *pieces])
        if whole_seen[-1:] == ["ended"]:
            # Who runs ahead of our answers is cut off; in pieces they may have come in time.
            assert seen[: len(whole_seen) - 1] == whole_seen[:-1], (size, seen, whole_seen)
            assert out.startswith(whole_out), (size, out, whole_out)
        else:
            assert (seen, out) == (whole_seen, whole_out), (size, seen, whole_seen, out, whole_out)


if __name__ == "__main__":
    run(one_input)
