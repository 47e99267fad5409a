"""``beep/session.py`` and ``beep/channel.py``: the rules of RFC 3080 and 3081 that need a memory, and what a peer may cost."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest

from comity.beep import (
    AnswerReceived,
    AnswersEnded,
    BeepOptions,
    BeepSession,
    ChannelClosed,
    ChannelRefused,
    ChannelStarted,
    ChannelWanted,
    CloseRefused,
    CloseWanted,
    ErrorReceived,
    GreetingReceived,
    GreetingRefused,
    MessageReceived,
    ProfileOffer,
    ReplyReceived,
    SessionEnded,
)
from comity.errors import LocalProtocolError

from .wires import GREETING, URI, XML, Pair, Raw, data_frames, element, events, listening, read_frames, sent, start


def msg(channel: int, msgno: int, seqno: int, payload: bytes, more: str = ".") -> bytes:
    return Raw("MSG", channel, msgno, more, seqno, payload).octets


def ended(session: BeepSession) -> SessionEnded:
    """How the session ended: without a word (C° of reliability.md section 2.11)."""
    assert session.data_to_send(0.0) == []
    last = events(session)[-1]
    assert isinstance(last, SessionEnded)
    assert last.is_error
    assert last.reason
    assert "\n" not in last.reason
    return last


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
        assert isinstance(end, SessionEnded)
        assert [type(event) for event in pair.take("listener")] == [SessionEnded]


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


class TestExchanges:
    """RFC 3080 sections 2.1.1 and 2.6."""

    def test_replies_go_out_in_the_order_of_the_messages(self) -> None:
        """APEX-5: however they are given; channels are independent of each other."""
        for order in itertools.permutations(range(4)):
            session, _ = listening(2)
            for msgno in range(4):
                session.receive_data(msg(1, msgno, 3 * msgno, b"\r\n?"), 0.0)
            session.receive_data(msg(3, 9, 0, b"\r\n?"), 0.0)
            session.reply(3, 9, b"\r\nother")
            for msgno in order:
                if msgno == 1:
                    session.reply_error(1, msgno, b"\r\n1")
                elif msgno == 2:
                    session.answer(1, msgno, b"\r\n2a")
                    session.answer(1, msgno, b"\r\n2b")
                    session.end_answers(1, msgno)
                else:
                    session.reply(1, msgno, b"\r\n%d" % msgno)
            frames = data_frames(sent(session))
            assert [f.payload for f in frames if f.channel == 3] == [b"\r\nother"]
            mine = [(f.keyword, f.msgno, f.payload) for f in frames if f.channel == 1]
            assert mine == [
                ("RPY", 0, b"\r\n0"),
                ("ERR", 1, b"\r\n1"),
                ("ANS", 2, b"\r\n2a"),
                ("ANS", 2, b"\r\n2b"),
                ("NUL", 2, b""),
                ("RPY", 3, b"\r\n3"),
            ]

    def test_one_to_many(self) -> None:
        pair = Pair.of()
        pair.run()
        number = pair.open()
        pair.echoes = False
        msgno = pair.initiator.send_message(number, b"\r\n?")
        pair.run()
        pair.take("initiator")
        for count in range(3):
            pair.listener.answer(number, msgno, b"\r\n" + bytes([65 + count]) * 5000)
        pair.listener.end_answers(number, msgno)
        pair.run()
        assert pair.take("initiator") == [
            *(AnswerReceived(number, msgno, b"\r\n" + bytes([65 + count]) * 5000) for count in range(3)),
            AnswersEnded(number, msgno),
        ]
        assert pair.initiator.send_message(number, b"\r\n?") == 1
        with pytest.raises(LocalProtocolError):
            pair.listener.reply(number, msgno, b"\r\n")

    def test_an_early_refusal_cuts_our_message_short(self) -> None:
        """APEX-5, RFC 3080 section 2.6.3: the rest is one empty frame."""
        session = BeepSession("initiator", BeepOptions(), 0.0)
        session.start_channel([ProfileOffer(URI)])
        sent(session)
        session.receive_data(
            GREETING + Raw("RPY", 0, 1, ".", 52, XML + b"<profile uri='%b'/>" % URI.encode()).octets, 0.0
        )
        session.send_message(1, b"\r\n" + b"x" * 10_000)
        session.send_message(1, b"\r\nnext")
        assert [frame.more for frame in data_frames(sent(session))] == ["*"]
        session.receive_data(Raw("ERR", 1, 0, ".", 0, XML + b"<error code='554'/>").octets, 0.0)
        assert isinstance(events(session)[-1], ErrorReceived)
        session.receive_data(b"SEQ 1 4096 4096\r\n", 0.0)
        frames = data_frames(sent(session))
        assert [(f.msgno, f.more, f.payload) for f in frames] == [(0, ".", b""), (1, ".", b"\r\nnext")]

    def test_a_message_without_end_is_refused_with_554_then_ends_the_session(self) -> None:
        """P-17: at 1 MiB; the next message is still taken if the peer stops as it must."""
        for goes_on in (False, True):
            session, _ = listening(message=20_000)
            total = 0
            answers: list[Raw] = []
            while not answers:
                session.receive_data(msg(1, 0, total, b"x" * 2048, "*"), 0.0)
                total += 2048
                answers = data_frames(sent(session))
            assert 20_000 < total < 25_000
            assert (answers[0].keyword, element(answers[0].payload).attrib["code"]) == ("ERR", "554")
            if goes_on:
                for _ in range(12):
                    session.receive_data(msg(1, 0, total, b"x" * 2048, "*"), 0.0)
                    total += 2048
                    sent(session)
                ended(session)
            else:
                session.receive_data(msg(1, 0, total, b"") + msg(1, 0, total, b"\r\nnext"), 0.0)
                assert events(session) == [MessageReceived(1, 0, b"\r\nnext")]

    def test_a_message_in_one_frame_can_be_too_long_too(self) -> None:
        session, _ = listening(message=1000)
        session.receive_data(msg(1, 0, 0, b"x" * 1001) + msg(1, 1, 1001, b"x" * 1000), 0.0)
        (frame,) = data_frames(sent(session))
        assert (frame.keyword, frame.msgno, element(frame.payload).attrib["code"]) == ("ERR", 0, "554")
        assert events(session) == [MessageReceived(1, 1, b"x" * 1000)]

    def test_a_reply_without_end_ends_the_session(self) -> None:
        pair = Pair.of(message=20_000)
        pair.run()
        number = pair.open()
        pair.echoes = False
        pair.initiator.send_message(number, b"\r\n")
        pair.run()
        pair.listener.reply(number, 0, b"x" * 30_000)
        pair.run()
        assert isinstance(pair.take("initiator")[-1], SessionEnded)

    def test_sequence_numbers_wrap_around(self) -> None:
        """APEX-2, P-08: 2**32 - 1 is followed by 0, in both directions and in windows."""
        pair = Pair.of()
        pair.run()
        number = pair.open()
        # 2**32 - 5000 octets have been exchanged; nobody can wait for that.
        for one, other in ((pair.initiator, pair.listener), (pair.listener, pair.initiator)):
            out, into = one._channels[number], other._channels[number]
            out.next_out = out.acknowledged = into.next_in = 2**32 - 5000
            out.edge_out = into.edge_in = out.next_out + 4096
        sizes = [1000, 4000, 3000, 8000, 2]
        for size in sizes:
            pair.initiator.send_message(number, b"\r\n" + b"x" * (size - 2))
        pair.run()
        replies = [event for event in pair.take("initiator") if isinstance(event, ReplyReceived)]
        assert [len(reply.payload) for reply in replies] == sizes
        assert pair.initiator._channels[number].next_out > 2**32

    def test_verbs_that_make_no_sense_raise(self) -> None:
        session, _ = listening()
        session.receive_data(msg(1, 0, 0, b"\r\n"), 0.0)
        session.reply(1, 0, b"\r\n")
        for verb in (
            lambda: session.reply(1, 0, b"\r\n"),
            lambda: session.reply(1, 7, b"\r\n"),
            lambda: session.reply(0, 0, b"\r\n"),
            lambda: session.send_message(5, b"\r\n"),
            lambda: session.send_message(0, b"\r\n"),
            lambda: session.accept_channel(7, URI),
            lambda: session.accept_close(1),
            lambda: session.refuse_close(0, 550),
            lambda: session.close_channel(9),
        ):
            with pytest.raises(LocalProtocolError):
                verb()


class TestWindows:
    """RFC 3081 section 3.1."""

    def test_nothing_goes_beyond_the_peer_s_window(self) -> None:
        """APEX-6, P-09: 4,096 octets, then what SEQ allows, and none for a peer that opens nothing."""
        session, _ = listening()
        session.send_message(1, b"\r\n" + b"x" * 9998)
        assert sum(len(f.payload) for f in data_frames(sent(session))) == 4096
        assert session.waiting(1) == 10_000 - 4096
        assert sent(session) == b""
        session.receive_data(b"SEQ 1 4096 0\r\n", 0.0)
        assert sent(session) == b""
        session.receive_data(b"SEQ 1 4096 1\r\n", 0.0)
        assert [len(f.payload) for f in data_frames(sent(session))] == [1]
        session.receive_data(b"SEQ 1 4097 100000\r\n", 0.0)
        frames = data_frames(sent(session))
        assert [len(f.payload) for f in frames] == [4096, 10_000 - 2 * 4096 - 1]
        assert frames[-1].more == "."

    def test_a_window_may_shrink_but_not_take_back_what_it_acknowledged(self) -> None:
        """RFC 1122 section 4.2.2.16 by RFC 3081 section 3.1.4."""
        session, _ = listening()
        session.send_message(1, b"\r\n" + b"x" * 9998)
        sent(session)
        session.receive_data(b"SEQ 1 2000 1000\r\n", 0.0)
        assert sent(session) == b""
        session.receive_data(b"SEQ 1 2000 4000\r\n", 0.0)
        assert [len(f.payload) for f in data_frames(sent(session))] == [1904]
        session.receive_data(b"SEQ 1 1999 4000\r\n", 0.0)
        ended(session)

    def test_a_peer_that_never_opens_its_window_is_left(self) -> None:
        session, _ = listening(window_deadline=300.0)
        session.send_message(1, b"\r\n" + b"x" * 9998)
        session.data_to_send(1000.0)
        assert session.next_timer() == 1300.0
        session.receive_data(b"SEQ 1 4096 0\r\n", 1299.0)
        session.handle_timer(1300.0)
        assert ended(session).reason == "the peer does not open its window"

    def test_a_window_that_opens_in_time_is_no_stall(self) -> None:
        session, _ = listening(window_deadline=300.0)
        session.send_message(1, b"\r\n" + b"x" * 4998)
        session.data_to_send(1000.0)
        session.receive_data(b"SEQ 1 4096 4096\r\n", 1299.0)
        session.data_to_send(1299.0)
        assert session.next_timer() is None

    def test_a_message_cut_short_is_no_stall(self) -> None:
        """RFC 3080 section 2.6.3: its last frame is empty and needs no window."""
        session, _ = listening(window_deadline=300.0)
        session.send_message(1, b"\r\n" + b"x" * 9998)
        session.data_to_send(1000.0)
        session.receive_data(Raw("ERR", 1, 0, ".", 0, XML + b"<error code='554'/>").octets, 1001.0)
        assert [frame.payload for frame in data_frames(sent(session, 1001.0))] == [b""]
        assert session.next_timer() is None

    def test_our_window_grows_while_the_channel_is_busy(self) -> None:
        """APEX-6: from 4 KiB to 64 KiB, told when half of it is used up."""
        session, _ = listening()
        told, seqno, edge = [], 0, 4096
        for count in range(400):
            assert seqno + 512 <= edge
            session.receive_data(msg(1, count, seqno, b"\r\n" + b"x" * 510), 0.0)
            session.reply(1, count, b"")
            seqno += 512
            for frame in read_frames(sent(session)):
                if isinstance(frame, tuple):
                    assert frame[:2] == (1, seqno)
                    told.append(frame[2])
                    edge = seqno + frame[2]
        assert told[:6] == [8192, 16384, 32768, 65536, 65536, 65536]
        assert len(told) < 12

    def test_a_held_channel_tells_no_window_until_it_is_resumed(self) -> None:
        session, _ = listening(2)
        session.hold(1)
        for channel in (1, 3):
            session.receive_data(msg(channel, 0, 0, b"x" * 4096), 0.0)
        assert [seq for seq in read_frames(sent(session)) if isinstance(seq, tuple)] == [(3, 4096, 8192)]
        session.resume(1)
        assert list(read_frames(sent(session))) == [(1, 4096, 8192)]

    def test_a_peer_that_reads_no_replies_gets_no_more_window(self) -> None:
        """Its messages stop at 64 and what it may still send; when the replies are taken, it goes on."""
        session, _ = listening(messages=64)
        seqno, edge, msgno = 0, 4096, 0
        while seqno + 256 <= edge:
            session.receive_data(msg(1, msgno, seqno, b"\r\n" + b"q" * 254), 0.0)
            session.reply(1, msgno, b"\r\n" + b"r" * 1000)
            seqno, msgno = seqno + 256, msgno + 1
            for frame in read_frames(sent(session)):
                if isinstance(frame, tuple):
                    edge = frame[1] + frame[2]
        assert 64 <= msgno < 64 + 65536 / 256
        waiting = session.waiting(1)
        assert waiting < 400_000
        session.receive_data(b"SEQ 1 4096 2000000\r\n", 0.0)
        frames = list(read_frames(sent(session)))
        assert session.waiting(1) == 0
        assert isinstance(frames[-1], tuple), "a window behind the last reply"

    def test_pipelining_without_any_window_ends_at_last(self) -> None:
        """Messages without octets use up no window; 2,048 of them are enough."""
        session, _ = listening()
        for msgno in range(2048):
            session.receive_data(msg(1, msgno, 0, b""), 0.0)
        assert not session.is_ended
        session.receive_data(msg(1, 2048, 0, b""), 0.0)
        assert session.is_ended

    def test_empty_frames_without_end_are_not_borne(self) -> None:
        session, _ = listening()
        for _ in range(65):
            session.receive_data(msg(1, 0, 0, b"", "*"), 0.0)
        ended(session)

    def test_channels_take_turns(self) -> None:
        """APEX-6: round-robin, and a channel without window holds nobody up."""
        session, _ = listening(3)
        for channel in (1, 3, 5):
            if channel != 3:
                session.receive_data(b"SEQ %d 0 65536\r\n" % channel, 0.0)
            session.send_message(channel, b"\r\n" + b"x" * 19_998)
        frames = data_frames(sent(session))
        assert [f.channel for f in frames] == [1, 3, 5, 1, 5, 1, 5, 1, 5, 1, 5]
        assert max(len(f.payload) for f in frames) == 4096

    def test_a_megabyte_passes_a_slow_reader_while_others_move(self) -> None:
        """APEX-6."""
        pair = Pair.of()
        pair.run()
        large, small = pair.open(), pair.open()
        octets = b"\r\n" + bytes(range(256)) * 4095
        pair.initiator.send_message(large, octets)
        pair.listener.hold(large)
        pair.run()
        for count in range(50):
            pair.initiator.send_message(small, b"\r\n%d" % count)
            pair.run()
            assert pair.take("initiator")[-1] == ReplyReceived(small, count, b"\r\n%d" % count)
        assert pair.initiator.waiting(large) > 1_000_000
        pair.listener.resume(large)
        pair.run()
        assert pair.take("initiator")[-1] == ReplyReceived(large, 0, octets)

    def test_single_octet_frames_are_taken_at_a_bounded_cost(self) -> None:
        """P-16: they are kept as one buffer, not as so many objects."""
        session, _ = listening()
        tracemalloc.start()
        edge = 4096
        for seqno in range(30_000):
            if seqno == edge:
                for frame in read_frames(sent(session)):
                    if isinstance(frame, tuple):
                        edge = frame[1] + frame[2]
            session.receive_data(b"MSG 1 0 * %d 1\r\nxEND\r\n" % seqno, 0.0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert not session.is_ended
        assert peak < 200_000

    def test_unfinished_messages_of_all_channels_together_are_bounded(self) -> None:
        session, _ = listening(8, unfinished=50_000)
        total = 0
        for seqno in range(0, 65536, 2048):
            for channel in range(1, 17, 2):
                session.receive_data(msg(channel, 0, seqno, b"x" * 2048, "*"), 0.0)
                if session.is_ended:
                    break
                total += 2048
                sent(session)
            if session.is_ended:
                break
        ended(session)
        assert total <= 50_000


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
        session, _ = listening()
        session.hold(1)
        session.receive_data(msg(1, 0, 0, b"x" * 4096, "*"), 1000.0)
        assert session.next_timer() is None
        session.resume(1)
        sent(session, 5000.0)
        assert session.next_timer() is not None


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


def test_refused_channel_is_told() -> None:
    session = BeepSession("initiator", BeepOptions(), 0.0)
    session.start_channel([ProfileOffer(URI)])
    sent(session)
    session.receive_data(GREETING + Raw("ERR", 0, 1, ".", 52, XML + b"<error code='550'>no</error>").octets, 0.0)
    assert events(session)[-1] == ChannelRefused(1, 550, "no")
