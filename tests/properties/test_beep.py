"""Two BEEP sessions on a wire that cuts octets anywhere: every message arrives whole, once, in order, whatever the windows.

And octets of anybody: events or the end of the session, never an exception, the same however they are cut.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from comity.beep import (
    AnswerReceived,
    AnswersEnded,
    BeepSession,
    ErrorReceived,
    Event,
    MessageReceived,
    ReplyReceived,
    SessionEnded,
)
from tests.beep.wires import GREETING, URI, Pair, events, listening, sent, start

SIZES = st.integers(0, 40) | st.integers(4000, 4200) | st.integers(0, 30_000)
KINDS = st.sampled_from(["RPY", "ERR", "ANS", "later"])
SENDING = st.tuples(st.sampled_from(["initiator", "listener"]), st.integers(0, 2), SIZES, KINDS)


@dataclass
class Exchanging(Pair):
    """Answers as the message itself asks: at once, with several answers, or only when everything has come."""

    later: list[tuple[BeepSession, MessageReceived]] = field(default_factory=list)

    def react(self, session: BeepSession, event: Event) -> None:
        if not isinstance(event, MessageReceived):
            super().react(session, event)
            return
        kind = event.payload[2:5]
        if kind == b"lat":
            self.later.append((session, event))
        else:
            self.answer(session, event, kind)

    def answer(self, session: BeepSession, event: MessageReceived, kind: bytes) -> None:
        if kind == b"ERR":
            session.reply_error(event.channel, event.msgno, event.payload)
        elif kind == b"ANS":
            for _ in range(3):
                session.answer(event.channel, event.msgno, event.payload)
            session.end_answers(event.channel, event.msgno)
        else:
            session.reply(event.channel, event.msgno, event.payload)


@settings(max_examples=60, deadline=None)
@given(st.lists(SENDING, max_size=25), st.lists(st.integers(1, 3000), min_size=1, max_size=12), st.booleans())
def test_every_message_arrives_whole_once_and_in_order(
    sendings: list[tuple[str, int, int, str]], sizes: list[int], at_once: bool
) -> None:
    """APEX-1, APEX-2, APEX-5, APEX-6."""
    pair = Exchanging.of()
    cuts = itertools.cycle(sizes)

    def cut(octets: bytes) -> list[bytes]:
        pieces = []
        while octets:
            size = next(cuts)
            pieces.append(octets[:size])
            octets = octets[size:]
        return pieces

    pair.cut = cut
    pair.run()
    channels = [pair.open() for _ in range(3)]
    pair.seen = {"initiator": [], "listener": []}
    asked: dict[tuple[str, int], list[bytes]] = {}
    answers: dict[tuple[str, int], list[tuple[type[Event], int, bytes]]] = {}
    for role, index, size, kind in sendings:
        session = pair.initiator if role == "initiator" else pair.listener
        payload = b"\r\n" + kind.encode() + bytes(size % 251 for _ in range(size))
        msgno = session.send_message(channels[index], payload)
        asked.setdefault((role, channels[index]), []).append(payload)
        kinds: dict[str, list[tuple[type[Event], bytes]]] = {
            "ERR": [(ErrorReceived, payload)],
            "ANS": [*[(AnswerReceived, payload)] * 3, (AnswersEnded, b"")],
        }
        expected = kinds.get(kind, [(ReplyReceived, payload)])
        answers.setdefault((role, channels[index]), []).extend((type_, msgno, data) for type_, data in expected)
        if not at_once:
            pair.run()
    pair.run()
    while pair.later:
        session, event = pair.later.pop()  # the last first: the session puts them in order
        pair.answer(session, event, b"RPY")
        pair.run()
    for role, other in (("initiator", "listener"), ("listener", "initiator")):
        for channel in channels:
            heard = [e.payload for e in pair.seen[other] if isinstance(e, MessageReceived) and e.channel == channel]
            assert heard == asked.get((role, channel), [])
            told = [
                (type(e), e.msgno, getattr(e, "payload", b""))
                for e in pair.seen[role]
                if isinstance(e, ReplyReceived | ErrorReceived | AnswerReceived | AnswersEnded) and e.channel == channel
            ]
            assert told == answers.get((role, channel), [])
    assert not any(isinstance(e, SessionEnded) for seen in pair.seen.values() for e in seen)
    pair.initiator.close_channel(0)
    pair.run()
    assert [seen[-1] for seen in pair.seen.values()] == [SessionEnded("", False)] * 2


WORDS = st.sampled_from(
    [b"MSG ", b"RPY ", b"ERR ", b"ANS ", b"NUL ", b"SEQ ", b"0 ", b"1 ", b". ", b"* ", b"\r\n", b"END\r\n", GREETING]
) | st.binary(max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=30).map(b"".join), st.integers(1, 40))
def test_octets_of_anybody_never_raise(octets: bytes, size: int) -> None:
    """G6: and mean the same however they are cut."""
    outcomes = []
    for step in (len(octets) or 1, size, 1):
        session, seqno = listening()
        session.receive_data(b"MSG 1 0 . 0 4\r\n\r\nabEND\r\n", 0.0)
        for begin in range(0, len(octets), step):
            session.receive_data(octets[begin : begin + step], 0.0)
        # Which of several faults is named may depend on how much was there when it was seen.
        found = ["ended" if isinstance(event, SessionEnded) else event for event in events(session)]
        outcomes.append((found, sent(session)))
        session.receive_data(start(3, URI, msgno=9, seqno=seqno), 0.0)
    assert outcomes[0] == outcomes[1] == outcomes[2]
