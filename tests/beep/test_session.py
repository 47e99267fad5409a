"""``beep/session.py``: poor frames, deadlines, the tuning reset (RFC 3080 sections 2.2.1.1 and 3)."""

from __future__ import annotations

import pytest

from comity.beep import (
    BeepOptions,
    BeepSession,
    ChannelStarted,
    GreetingReceived,
    MessageReceived,
    ProfileOffer,
    SessionEnded,
)

from .wires import (
    GREETING,
    URI,
    XML,
    Pair,
    Raw,
    ended,
    events,
    listening,
    msg,
    sent,
)


class TestPoorFrames:
    """RFC 3080 section 2.2.1.1, "the session is terminated without generating a response"."""

    @pytest.mark.parametrize(
        "octets",
        [
            msg(3, 0, 0, b"\r\n"),  # P-03
            msg(1, 0, 0, b"\r\n") + msg(1, 0, 2, b"\r\n"),  # P-04
            Raw("RPY", 1, 0, ".", 0, b"\r\n").octets,  # P-05
            Raw("RPY", 0, 0, ".", 140, XML + b"<ok/>").octets,  # P-05
            msg(1, 1, 0, b"a", "*") + Raw("RPY", 1, 1, ".", 1, b"b").octets,  # P-06
            msg(1, 1, 0, b"a", "*") + Raw("ERR", 1, 1, ".", 1, b"b").octets,
            msg(1, 1, 0, b"a", "*") + msg(1, 2, 1, b"b"),  # P-07
            msg(1, 1, 1, b"\r\n"),  # P-08
            msg(1, 1, 0, b"\r\n") + msg(1, 2, 3, b"\r\n"),
            msg(1, 1, 4294967295, b"\r\n"),
            msg(1, 1, 0, b"x" * 4097),  # P-09
            msg(1, 1, 0, b"x" * 4096) + msg(1, 2, 4096, b"x"),
            b"MSG 1 0 . 0 2147483647\r\n0123456789",
            b"SEQ 3 0 4096\r\n",  # RFC 3081 section 3.1.3
            b"SEQ 1 1 4096\r\n",
            b"SEQ 0 4294967295 4096\r\n",
        ],
    )
    def test_a_poor_frame_ends_the_session_without_a_word(self, octets: bytes) -> None:
        """P-03 to P-09: however it is cut."""
        for cut in (len(octets), 1, 5):
            session, _ = listening()
            for begin in range(0, len(octets), cut):
                session.receive_data(octets[begin : begin + cut], 0.0)
            ended(session)
            session.receive_data(msg(1, 0, 0, b"\r\n"), 0.0)
            assert events(session) == []

    def test_what_came_before_a_poor_frame_is_still_reported(self) -> None:
        session, _ = listening()
        session.receive_data(msg(1, 0, 0, b"\r\na") + b"XXX", 0.0)
        first, last = events(session)
        assert first == MessageReceived(1, 0, b"\r\na")
        assert isinstance(last, SessionEnded)
        session.reply(1, 0, b"\r\n")  # the caller may not have seen the end yet

    def test_replies_that_break_the_rules(self) -> None:
        """P-05, P-06, P-11: seen from the side that asked."""
        poor: list[list[tuple[str, int, str, bytes, int | None]]] = [
            [("RPY", 0, ".", b"a", None), ("RPY", 0, ".", b"a", None)],
            [("RPY", 0, "*", b"a", None), ("ERR", 0, ".", b"a", None)],
            [("RPY", 1, ".", b"a", None)],  # out of order (section 2.6.1)
            [("ANS", 0, ".", b"a", 0), ("RPY", 0, ".", b"a", None)],
            [("ANS", 0, "*", b"a", 0), ("NUL", 0, ".", b"", None)],
            [("ANS", 0, "*", b"a", 0), ("RPY", 1, ".", b"", None)],
            [("NUL", 0, ".", b"", None), ("ANS", 0, ".", b"a", 0)],
            [("RPY", 0, "*", b"a", None), ("NUL", 0, ".", b"", None)],
            [("RPY", 7, ".", b"a", None)],
        ]
        for frames in poor:
            session = BeepSession("initiator", BeepOptions(), 0.0)
            session.start_channel([ProfileOffer(URI)])
            sent(session)
            session.receive_data(
                GREETING + Raw("RPY", 0, 1, ".", 52, XML + b"<profile uri='%b'/>" % URI.encode()).octets, 0.0
            )
            session.send_message(1, b"\r\na")
            session.send_message(1, b"\r\nb")
            sent(session)
            seqno = 0
            for keyword, msgno, more, payload, ansno in frames:
                session.receive_data(Raw(keyword, 1, msgno, more, seqno, payload, ansno).octets, 0.0)
                seqno += len(payload)
            ended(session)

    def test_the_end_of_the_connection_is_an_error_without_release(self) -> None:
        session, _ = listening()
        session.receive_eof(0.0)
        ended(session)


class TestDeadlines:
    """P-20."""

    def test_a_frame_must_end_in_time_however_it_trickles(self) -> None:
        session, _ = listening()
        octets = msg(1, 0, 0, b"x" * 100)
        for count in range(7):
            session.receive_data(octets[count : count + 1], 1000.0 + 20 * count)
            assert session.next_timer() == 1120.0
            session.handle_timer(1000.0 + 20 * count)
        ended(session)

    def test_a_message_must_go_on_in_time(self) -> None:
        session, _ = listening()
        session.receive_data(msg(1, 0, 0, b"x", "*"), 1000.0)
        session.receive_data(msg(1, 0, 1, b"x", "*"), 1100.0)
        assert session.next_timer() == 1220.0
        session.handle_timer(1220.0)
        ended(session)

    def test_silence_between_messages_has_no_limit(self) -> None:
        session, _ = listening()
        session.receive_data(msg(1, 0, 0, b"x"), 1000.0)
        assert session.next_timer() is None

    def test_a_peer_that_we_hold_back_is_not_late(self) -> None:
        """Neither while it has no window nor when it gets one: its time begins then."""
        session, _ = listening()
        session.hold(1)
        session.receive_data(msg(1, 0, 0, b"x" * 4096, "*"), 1000.0)
        assert session.next_timer() is None
        session.resume(1)
        assert sent(session, 5000.0)
        assert session.next_timer() == 5120.0


def test_reset_begins_anew() -> None:
    """RFC 3080 section 3: all channels are closed, both sides greet again, numbers start over."""
    pair = Pair.of()
    pair.run()
    pair.open()
    for session in (pair.initiator, pair.listener):
        session.suspend()
        assert session.next_timer() is None
        assert sent(session) == b""
        session.reset(50.0, BeepOptions(profiles=("urn:new",)))
    pair.take("initiator")
    pair.run()
    assert pair.take("initiator") == [GreetingReceived(("urn:new",), (), ())]
    assert pair.initiator.start_channel([ProfileOffer("urn:new")]) == 1
    pair.run()
    assert pair.take("initiator") == [ChannelStarted(1, "urn:new", b"")]


def test_octets_behind_the_switch_to_tls_end_the_session() -> None:
    """P-12: nothing of them is parsed."""
    for behind in (b"R", GREETING, b"SEQ 0 0 1\r\n"):
        session, _ = listening()
        session.suspend()
        session.receive_data(behind, 0.0)
        ended(session)
