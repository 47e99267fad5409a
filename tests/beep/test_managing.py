"""``beep/managing.py`` and ``table.py``: greeting, channels, release (RFC 3080 sections 2.3 and 2.4)."""

from __future__ import annotations

import pytest

from comity.beep import (
    BeepOptions,
    BeepSession,
    ChannelClosed,
    ChannelRefused,
    ChannelStarted,
    ChannelWanted,
    CloseRefused,
    CloseWanted,
    GreetingReceived,
    GreetingRefused,
    ProfileOffer,
    ReplyReceived,
    SessionEnded,
)
from comity.errors import LocalProtocolError

from .wires import (
    GREETING,
    URI,
    XML,
    Pair,
    Raw,
    data_frames,
    element,
    ended,
    events,
    listening,
    msg,
    sent,
    start,
)


class TestGreeting:
    """RFC 3080 sections 2.3.1.1 and 2.4."""

    def test_both_sides_greet_at_once(self) -> None:
        """APEX-4."""
        for role in ("initiator", "listener"):
            session = BeepSession(role, BeepOptions((URI,), ("x-f",), ("de", "en")), 0.0)
            (frame,) = data_frames(sent(session))
            greeting = element(frame.payload)
            assert (frame.keyword, frame.channel, frame.msgno, frame.more, frame.seqno) == ("RPY", 0, 0, ".", 0)
            assert greeting.attrib == {"features": "x-f", "localize": "de en"}
            assert [child.attrib["uri"] for child in greeting] == [URI]

    def test_it_is_read(self) -> None:
        session = BeepSession("initiator", BeepOptions(), 0.0)
        text = (
            b"<greeting features='a x-b' localize='de-AT i-default'><profile uri='u:1'/><profile uri='u:2'/></greeting>"
        )
        session.receive_data(Raw("RPY", 0, 0, ".", 0, XML + text).octets, 0.0)
        assert events(session) == [GreetingReceived(("u:1", "u:2"), ("a", "x-b"), ("de-AT", "i-default"))]

    @pytest.mark.parametrize(
        "octets",
        [
            start(1, URI, seqno=0),
            Raw("RPY", 0, 1, ".", 0, XML + b"<greeting/>").octets,
            Raw("RPY", 0, 0, ".", 0, XML + b"<ok/>").octets,
            Raw("RPY", 0, 0, ".", 0, b"\r\n<greeting/>").octets,
            Raw("RPY", 0, 0, ".", 0, XML + b"<!DOCTYPE greeting><greeting/>").octets,
            Raw("RPY", 0, 0, ".", 0, XML + b"<?xml version='1.0'?><greeting/>").octets,
            Raw("RPY", 0, 0, ".", 0, XML + b"<greeting>").octets,
            Raw("RPY", 0, 0, ".", 0, XML + b"<greeting xmlns='u'/>").octets,
            Raw("RPY", 0, 0, ".", 0, XML.replace(b"\r\n\r\n", b"; charset=utf-16\r\n\r\n") + b"<greeting/>").octets,
            Raw("RPY", 0, 0, ".", 0, b"x" * 4097).octets,
            GREETING.replace(b"RPY 0", b"RPY 1"),
            GREETING + GREETING,
        ],
    )
    def test_anything_else_ends_the_session(self, octets: bytes) -> None:
        """P-14."""
        session = BeepSession("listener", BeepOptions(), 0.0)
        sent(session)
        session.receive_data(octets, 0.0)
        ended(session)

    def test_a_greeting_of_a_megabyte_ends_the_session(self) -> None:
        """P-14; at 64 KiB, of which the peer sees 4,096 octets of window at a time."""
        session = BeepSession("listener", BeepOptions(), 0.0)
        session.receive_data(Raw("RPY", 0, 0, "*", 0, XML).octets, 0.0)
        total = len(XML)
        while not session.is_ended:
            session.receive_data(Raw("RPY", 0, 0, "*", total, b"x" * 2048).octets, 0.0)
            total += 2048
            sent(session)
        ended(session)
        assert total < 70_000

    def test_no_greeting_in_time_ends_the_session(self) -> None:
        """P-20: 30 s, however the octets trickle."""
        session = BeepSession("listener", BeepOptions(), 100.0)
        session.receive_data(GREETING[:1], 120.0)
        assert session.next_timer() == 130.0
        session.handle_timer(129.9)
        assert not session.is_ended
        session.handle_timer(130.0)
        ended(session)

    def test_a_listener_that_is_unavailable_says_so(self) -> None:
        """RFC 3080 section 2.4, 421."""
        pair = Pair.of()
        pair.listener = BeepSession("listener", BeepOptions(unavailable=(421, "service not available")), 0.0)
        pair.run()
        refused, end = pair.take("initiator")
        assert refused == GreetingRefused(421, "service not available")
        assert end == SessionEnded("the peer is not available (421)", True), "the peer's words are not for our log"
        assert [type(event) for event in pair.take("listener")] == [SessionEnded]


class TestChannels:
    """RFC 3080 sections 2.3.1.2 and 2.3.1.3."""

    def answer(self, octets: bytes, **changes: object) -> tuple[BeepSession, Raw]:
        session, seqno = listening(0, **changes)
        session.receive_data(octets.replace(b" 52 ", b" %d " % seqno, 1), 0.0)
        (frame,) = data_frames(sent(session))[1:]
        assert not session.is_ended
        return session, frame

    @pytest.mark.parametrize(
        ("inside", "code"),
        [
            ("<start number='2'><profile uri='u'/></start>", 501),  # APEX-4, as RFC 3080 section 2.3.1.2 prints it
            ("<start number='0'><profile uri='u'/></start>", 501),
            ("<start number='-1'><profile uri='u'/></start>", 501),
            ("<start number='2147483649'><profile uri='u'/></start>", 501),
            ("<start><profile uri='u'/></start>", 501),
            ("<start number='1'/>", 501),
            ("<start number='1'><profile/></start>", 501),
            ("<start number='1' x='y'><profile uri='u'/></start>", 501),
            ("<start number='1'>text<profile uri='u'/></start>", 501),
            ("<start number='1'><profile uri='u' encoding='base64'>*</profile></start>", 501),
            ("<start number='1'><profile uri='u' encoding='hex'/></start>", 501),
            ("<close number='9' code='200'/>", 550),  # P-19
            ("<close number='0'/>", 501),
            ("<close number='0' code='99'/>", 501),
            ("<greeting/>", 501),
            ("<ok/>", 501),
            ("<nonsense/>", 501),
            ("<start number='1'>", 500),
            ("", 500),
        ],
    )
    def test_what_cannot_be_done_is_answered_with_its_code(self, inside: str, code: int) -> None:
        _, frame = self.answer(Raw("MSG", 0, 1, ".", 52, XML + inside.encode()).octets)
        assert (frame.keyword, frame.msgno) == ("ERR", 1)
        assert element(frame.payload).attrib["code"] == str(code)

    def test_an_initialization_message_has_4096_octets(self) -> None:
        """APEX-4."""
        for size, keyword in ((4096, None), (4097, "ERR")):
            session, _ = listening(0)
            payload = XML + f"<start number='1'><profile uri='u'>{'x' * size}</profile></start>".encode()
            first, rest = payload[:3000], payload[3000:]
            session.receive_data(Raw("MSG", 0, 1, "*", 52, first).octets, 0.0)
            sent(session)
            session.receive_data(Raw("MSG", 0, 1, ".", 3052, rest).octets, 0.0)
            found = [frame.keyword for frame in data_frames(sent(session))]
            assert found == ([keyword] if keyword else [])
            assert len(events(session)) == (0 if keyword else 1)

    def test_initialization_messages_travel_whatever_their_octets(self) -> None:
        pair = Pair.of()
        pair.run()
        for content in (b"<a/>", b"\0\xff", b"a\r\nb", b"]]>", b" ", "ä".encode(), b"x" * 4096):
            number = pair.initiator.start_channel([ProfileOffer("urn:other"), ProfileOffer(URI, content)], "b.test")
            pair.step(pair.initiator, pair.listener)
            wanted = [event for event in pair.take("listener") if isinstance(event, ChannelWanted)]
            if not wanted:  # it took more than a window
                pair.run()
                wanted = [event for event in pair.take("listener") if isinstance(event, ChannelWanted)]
            assert wanted == [ChannelWanted(number, "b.test", (ProfileOffer("urn:other"), ProfileOffer(URI, content)))]
            pair.run()
            assert isinstance(pair.take("initiator")[-1], ChannelStarted)
            assert pair.listener.server_name == "b.test"
        with pytest.raises(LocalProtocolError):
            pair.initiator.start_channel([ProfileOffer(URI, b"x" * 4097)])

    def test_the_33rd_channel_is_refused_with_450(self) -> None:
        """P-13."""
        pair = Pair.of(channels=32)
        pair.run()
        for count in range(32):
            assert pair.initiator.start_channel([ProfileOffer(URI)]) == 2 * count + 1
        pair.run()
        assert len([event for event in pair.take("initiator") if isinstance(event, ChannelStarted)]) == 32
        session, seqno = listening(32)
        session.receive_data(start(65, URI, msgno=40, seqno=seqno), 0.0)
        (frame,) = data_frames(sent(session))
        assert element(frame.payload).attrib["code"] == "450"
        with pytest.raises(LocalProtocolError):
            pair.initiator.start_channel([ProfileOffer(URI)])

    def test_a_thousand_starts_in_a_row_cost_no_more_than_their_answers(self) -> None:
        """P-13: those that nobody answered yet count too."""
        session, seqno = listening(0)
        refused = 0
        for count in range(1000):
            octets = start(2 * count + 1, URI, msgno=count + 1, seqno=seqno)
            seqno += len(data_frames(octets)[0].payload)
            session.receive_data(octets, 0.0)
            refused += len(data_frames(sent(session)))
            if session.is_ended:
                break
        wanted = [event for event in events(session) if isinstance(event, ChannelWanted)]
        assert len(wanted) == 32

    def test_257_channels_can_be_open(self) -> None:
        """APEX-4: RFC 3080 section 2.3, "at least 257 concurrent channels", where the limit allows it."""
        pair = Pair.of(channels=257)
        pair.run()
        numbers = [pair.initiator.start_channel([ProfileOffer(URI)]) for _ in range(257)]
        pair.run()
        for number in numbers:
            pair.initiator.send_message(number, b"\r\n%d" % number)
        pair.run()
        replies = [event for event in pair.take("initiator") if isinstance(event, ReplyReceived)]
        assert {event.channel: event.payload for event in replies} == {n: b"\r\n%d" % n for n in numbers}

    def test_a_channel_that_exists_is_not_made_again(self) -> None:
        session, seqno = listening()
        session.receive_data(start(1, URI, msgno=5, seqno=seqno), 0.0)
        (frame,) = data_frames(sent(session))
        assert element(frame.payload).attrib["code"] == "550"

    def test_refusal_and_its_language(self) -> None:
        """I18N-2: localize='de' gives a German diagnostic with its tag; what nobody speaks gives English with its own."""
        for localize, language, text in (
            ("de-CH fr", "de", "Keines der verlangten Profile wird unterstützt"),
            ("fr de", "de", "Keines der verlangten Profile wird unterstützt"),
            ("en de", "en", "all requested profiles are unsupported"),
            ("fr", "en", "all requested profiles are unsupported"),
        ):
            session = BeepSession("listener", BeepOptions(), 0.0)
            greeting = Raw("RPY", 0, 0, ".", 0, XML + f"<greeting localize='{localize}'/>".encode()).octets
            session.receive_data(greeting + start(1, URI, seqno=len(greeting) - 21), 0.0)
            sent(session)
            events(session)
            assert session.is_ended is False
            session.refuse_channel(1, 550, "all requested profiles are unsupported")
            (frame,) = data_frames(sent(session))
            error = element(frame.payload)
            assert (error.attrib["{http://www.w3.org/XML/1998/namespace}lang"], error.text) == (language, text)

    def test_translations_of_the_caller_count_too(self) -> None:
        session = BeepSession("listener", BeepOptions(translations={"fr": {"no": "non"}}), 0.0)
        session.receive_data(Raw("RPY", 0, 0, ".", 0, XML + b"<greeting localize='fr'/>").octets, 0.0)
        assert session.localized("no") == ("non", "fr")
        assert session.localized("yes") == ("yes", "en")

    def test_closing_waits_for_every_answer(self) -> None:
        """RFC 3080 section 2.3.1.3, both sides."""
        pair = Pair.of()
        pair.run()
        number = pair.open()
        pair.echoes = False
        pair.initiator.send_message(number, b"\r\na")
        pair.initiator.close_channel(number)
        with pytest.raises(LocalProtocolError):
            pair.initiator.send_message(number, b"\r\nb")
        pair.listener.send_message(number, b"\r\nfrom the other side")
        pair.run()
        assert not any(isinstance(event, ChannelClosed) for event in pair.take("initiator"))
        pair.listener.reply(number, 0, b"\r\n")
        pair.run()
        assert not any(isinstance(event, ChannelClosed) for event in pair.take("initiator")), (
            "we owe an answer ourselves"
        )
        pair.initiator.reply(number, 0, b"\r\n")
        pair.run()
        assert pair.take("initiator") == [ChannelClosed(number)]
        assert pair.take("listener")[-1] == ChannelClosed(number)
        pair.echoes = True
        again = pair.open()
        assert again == number + 2

    def test_both_sides_close_at_once(self) -> None:
        for number in (1, 0):
            pair = Pair.of()
            pair.run()
            assert pair.open() == 1
            pair.take("initiator"), pair.take("listener")
            pair.initiator.close_channel(number)
            pair.listener.close_channel(number)
            crossing = sent(pair.initiator), sent(pair.listener)
            pair.listener.receive_data(crossing[0], 0.0)
            pair.initiator.receive_data(crossing[1], 0.0)
            pair.run()
            for role in ("initiator", "listener"):
                assert pair.take(role) == [ChannelClosed(1) if number else SessionEnded("", False)]

    def test_what_comes_too_late_for_a_channel_is_not_sent(self) -> None:
        """Its end was agreed to and not written yet: no message can be lost behind it unnoticed."""
        for number in (1, 0):
            session, seqno = listening()
            close = f"<close number='{number}' code='200'/>".encode()
            session.receive_data(Raw("MSG", 0, 2, ".", seqno, XML + close).octets, 0.0)
            session.accept_close(number)
            assert session.send_message(1, b"\r\n") == -1
            assert [frame.channel for frame in data_frames(sent(session))] == [0]
            assert isinstance(events(session)[-1], ChannelClosed if number else SessionEnded)

    def test_nothing_new_is_said_while_we_release(self) -> None:
        pair = Pair.of()
        pair.run()
        number = pair.open()
        pair.initiator.close_channel(0)
        assert pair.initiator.send_message(number, b"\r\n") == -1
        pair.run()
        assert pair.take("initiator")[-1] == pair.take("listener")[-1] == SessionEnded("", False)

    def test_a_message_behind_its_own_close_ends_the_session(self) -> None:
        """RFC 3080 section 2.3.1.3: "that BEEP peer must not send any more "MSG" messages on that channel"."""
        session, seqno = listening()
        close = Raw("MSG", 0, 2, ".", seqno, XML + b"<close number='1' code='200'/>").octets
        session.receive_data(close + msg(1, 0, 0, b"\r\n"), 0.0)
        ended(session)

    def test_a_channel_is_not_closed_in_the_middle_of_a_message(self) -> None:
        session, seqno = listening()
        session.receive_data(msg(1, 0, 0, b"\r\n", "*"), 0.0)
        session.receive_data(Raw("MSG", 0, 2, ".", seqno, XML + b"<close number='1' code='200'/>").octets, 0.0)
        (frame,) = data_frames(sent(session))
        assert element(frame.payload).attrib["code"] == "550"

    def test_agreeing_to_our_close_with_questions_open_ends_the_session(self) -> None:
        session = BeepSession("initiator", BeepOptions(), 0.0)
        session.start_channel([ProfileOffer(URI)])
        sent(session)
        made = Raw("RPY", 0, 1, ".", 52, XML + b"<profile uri='%b'/>" % URI.encode())
        session.receive_data(GREETING + made.octets, 0.0)
        session.close_channel(1)
        sent(session)
        session.receive_data(msg(1, 0, 0, b"\r\n"), 0.0)
        session.receive_data(Raw("RPY", 0, 2, ".", 52 + len(made.payload), XML + b"<ok/>").octets, 0.0)
        ended(session)

    def test_a_declined_close_leaves_the_channel_as_it_was(self) -> None:
        for number in (1, 0):
            pair = Pair.of()
            pair.run()
            assert pair.open() == 1
            pair.listener.close_channel(number)
            octets = sent(pair.listener)
            pair.initiator.receive_data(octets, 0.0)
            assert events(pair.initiator)[-1] == CloseWanted(number, 200)
            pair.initiator.refuse_close(number, 550, "still working")
            pair.run()
            assert pair.take("listener")[-1] == CloseRefused(number, 550, "still working")
            pair.listener.send_message(1, b"\r\nstill here")
            pair.run()
            assert pair.take("listener")[-1] == ReplyReceived(1, 0, b"\r\nstill here")

    def test_release_while_an_answer_is_owed_is_declined(self) -> None:
        """P-19: ERR 550, and the answer still goes out."""
        session, seqno = listening()
        close = Raw("MSG", 0, 2, ".", seqno, XML + b"<close code='200'/>").octets
        session.receive_data(msg(1, 0, 0, b"\r\n?") + close, 0.0)
        (frame,) = data_frames(sent(session))
        assert element(frame.payload).attrib["code"] == "550"
        session.reply(1, 0, b"\r\n!")
        (frame,) = data_frames(sent(session))
        assert (frame.keyword, frame.payload) == ("RPY", b"\r\n!")

    def test_release_closes_the_connection_behind_ok(self) -> None:
        session, seqno = listening()
        session.receive_data(Raw("MSG", 0, 2, ".", seqno, XML + b"<close code='200'/>").octets, 0.0)
        assert events(session) == [CloseWanted(0, 200)]
        session.accept_close(0)
        ok, half_close = session.data_to_send(0.0)
        assert element(data_frames(ok)[0].payload).tag == "ok"
        assert half_close == b""
        assert events(session) == [SessionEnded("", False)]

    def test_last_windows_of_a_closed_channel_are_passed_over(self) -> None:
        """The peer may have sent them before it read our agreement."""
        session, seqno = listening()
        session.receive_data(msg(1, 0, 0, b"\r\n?"), 0.0)
        session.reply(1, 0, b"\r\n!")
        session.receive_data(Raw("MSG", 0, 2, ".", seqno, XML + b"<close number='1' code='200'/>").octets, 0.0)
        session.accept_close(1)
        sent(session)
        session.receive_data(b"SEQ 1 3 4096\r\n", 0.0)
        assert not session.is_ended
        session.receive_data(msg(1, 1, 3, b"\r\n?"), 0.0)
        ended(session)

    def test_nothing_overtakes_the_reply_that_makes_the_channel(self) -> None:
        session, seqno = listening(0)
        session.receive_data(start(1, URI, seqno=seqno), 0.0)
        session.accept_channel(1, URI)
        session.send_message(1, b"\r\nfirst")
        frames = data_frames(sent(session))
        assert [(frame.keyword, frame.channel) for frame in frames[-2:]] == [("RPY", 0), ("MSG", 1)]


def test_refused_channel_is_told() -> None:
    session = BeepSession("initiator", BeepOptions(), 0.0)
    session.start_channel([ProfileOffer(URI)])
    sent(session)
    session.receive_data(GREETING + Raw("ERR", 0, 1, ".", 52, XML + b"<error code='550'>no</error>").octets, 0.0)
    assert events(session)[-1] == ChannelRefused(1, 550, "no")
