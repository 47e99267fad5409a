#!/usr/bin/env python3
"""A BEEP peer's octets, SEQ frames and channel 0 included: the same events and the same answers however they are cut."""

from __future__ import annotations

from run import run

from comity.beep import (
    BeepOptions,
    BeepSession,
    ChannelWanted,
    CloseWanted,
    MessageReceived,
    ProfileOffer,
    SessionEnded,
)

OPTIONS = BeepOptions(profiles=("urn:p",), message=20_000, unfinished=30_000)
XML = b"Content-Type: application/beep+xml\r\n\r\n"


def frame(head: bytes, payload: bytes) -> bytes:
    return b"%b %d\r\n%bEND\r\n" % (head, len(payload), payload)


GREETING = frame(b"RPY 0 0 . 0", XML + b"<greeting localize='de'/>")
START = frame(b"MSG 0 1 . 63", XML + b"<start number='1'><profile uri='urn:p'/></start>")
PROFILE = frame(b"RPY 0 1 . 63", XML + b"<profile uri='urn:p'/>")


def story(role: str, before: list[bytes], chunks: list[bytes]) -> tuple[list[str], dict[bytes, list[bytes]]]:
    session = BeepSession("initiator" if role == "initiator" else "listener", OPTIONS, 0.0)
    seen: list[str] = []
    said = b""
    if role == "initiator":
        session.start_channel([ProfileOffer("urn:p", b"<a/>")])
        said += b"".join(session.data_to_send(0.0))
    for chunk in before:
        hear(session, chunk, seen)
        said += b"".join(session.data_to_send(0.0))
    if before:
        session.send_message(1, b"\r\nquestion")
        said += b"".join(session.data_to_send(0.0))
    # Nothing is written in between: what we say, windows above all, changes what the peer may say.
    for chunk in chunks:
        hear(session, chunk, seen)
    return seen, by_channel(said + b"".join(session.data_to_send(0.0)))


def by_channel(said: bytes) -> dict[bytes, list[bytes]]:
    """Frames of each channel in order; between channels there is none (RFC 3080 section 2.6.2)."""
    found: dict[bytes, list[bytes]] = {}
    while said:
        head, _, rest = said.partition(b"\r\n")
        words = head.split(b" ")
        size = 0 if words[0] == b"SEQ" else int(words[5]) + len(b"END\r\n")
        found.setdefault(words[1], []).append(head + rest[:size])
        said = rest[size:]
    return found


def hear(session: BeepSession, chunk: bytes, seen: list[str]) -> None:
    session.receive_data(chunk, 0.0)
    while (event := session.next_event()) is not None:
        seen.append("ended" if isinstance(event, SessionEnded) else repr(event))
        match event:
            case ChannelWanted(number=number, profiles=profiles):
                session.accept_channel(number, profiles[-1].uri, profiles[-1].content)
            case MessageReceived(channel=channel, msgno=msgno, payload=payload):
                session.reply(channel, msgno, payload[:3000])
            case CloseWanted(channel=channel):
                session.accept_close(channel)
    session.next_timer()


def one_input(data: bytes) -> None:
    """The first octet says how the others are cut."""
    size, octets = (data[0] % 64 + 1, data[1:]) if data else (1, b"")
    pieces = [octets[start : start + size] for start in range(0, len(octets), size)]
    stages: list[tuple[str, list[bytes]]] = [
        ("listener", []),
        ("listener", [GREETING, START]),
        ("initiator", [GREETING, PROFILE]),
    ]
    for role, before in stages:
        whole, cut = story(role, before, [octets]), story(role, before, pieces)
        assert cut == whole, (size, cut, whole)


if __name__ == "__main__":
    run(one_input)
