"""``beep/channel.py``: exchanges in order and windows (RFC 3080 section 2.6, RFC 3081 section 3.1), and what a peer may cost."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest

from comity.beep import (
    AnswerReceived,
    AnswersEnded,
    BeepOptions,
    BeepSession,
    ErrorReceived,
    MessageReceived,
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
    read_frames,
    sent,
)


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

    def test_what_a_peer_may_cost_can_change(self) -> None:
        """Before its sign-in it may cost less than behind it, on the channels that it has already too."""
        session, _ = listening(message=1000, window_max=4096, channels=1)
        session.receive_data(msg(1, 0, 0, b"x" * 1001), 0.0)
        assert [frame.keyword for frame in data_frames(sent(session))] == ["ERR"]
        session.allow(BeepOptions(message=5000, window_max=16_384, channels=2))
        session.receive_data(msg(1, 1, 1001, b"x" * 3000), 0.0)
        assert events(session) == [MessageReceived(1, 1, b"x" * 3000)]
        assert (1, 4001, 8192) in list(read_frames(sent(session)))
        assert session.start_channel([ProfileOffer(URI)]) == 2

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

    def test_a_wider_first_window_is_told_at_once(self) -> None:
        """RFC 3081 section 3.1.1: "after channel creation, a BEEP peer may update the window size"."""
        pair = Pair.of(window=32_768)
        pair.run()
        number = pair.open()
        for session in (pair.initiator, pair.listener):
            assert session._channels[number].edge_in == session._channels[number].edge_out == 32_768

    def test_no_window_is_wider_than_a_frame_may_be(self) -> None:
        session, _ = listening(frame=8192)
        for seqno in range(0, 40_960, 4096):
            session.receive_data(msg(1, seqno, seqno, b"x" * 4096), 0.0)
            session.reply(1, seqno, b"")
            told = [frame for frame in read_frames(sent(session)) if isinstance(frame, tuple)]
            assert told == [(1, seqno + 4096, 8192)]

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
