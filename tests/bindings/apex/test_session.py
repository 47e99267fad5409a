"""``bindings/apex/session.py``: an application and a relay in memory, by the exchanges of RFC 3340 section 4."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.apex import events
from comity.bindings.apex.elements import Attach, Bind, Data, Error, Ok, Originator, Part, Recipient, Terminate
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.events import RIDE
from comity.bindings.apex.wire import write_message
from comity.errors import LocalProtocolError
from tests.bindings.apex.pair import PASSWORD, PLAIN, Pair

FRED, BARNEY = Endpoint.parse("fred@example.com"), Endpoint.parse("barney@example.com")
GIF = Part(b"Content-Type: image/gif\r\n", b"GIF89a\r\n--apex\r\nEND\r\n\x00", "1@example.com")
HEAD = b"Content-Type: application/beep+xml\r\n\r\n"


def data(content: Part = GIF) -> Data:
    return Data(Originator(FRED), (Recipient(BARNEY),), content)


def test_tls_then_sign_in_then_attach_riding_on_start() -> None:
    """APEX-7, APEX-8: the greeting is new under TLS, and offers no TLS any more; the answer rides on the reply."""
    pair = Pair()
    first = pair.app.take(events.Greeted)
    assert first.has_apex
    assert first.has_tls
    assert first.mechanisms == (), "nothing without TLS"
    pair.app.session.start_tls()
    pair.run()
    second = pair.app.take(events.Greeted)
    assert not second.has_tls
    assert "SCRAM-SHA-256-PLUS" in second.mechanisms
    assert "PLAIN" in second.mechanisms
    pair.app.session.sign_in("alice@a.test", PASSWORD)
    pair.run()
    assert pair.relay.take(events.SignInSucceeded) == events.SignInSucceeded("alice@a.test", "SCRAM-SHA-256-PLUS")
    assert pair.relay.session.identity == "alice@a.test"
    number = pair.app.session.open(Attach(FRED, 1))
    pair.run()
    came = pair.relay.take(events.ElementReceived)
    assert (came.channel, came.msgno, came.element) == (number, RIDE, Attach(FRED, 1))
    pair.relay.session.answer(number, RIDE, Ok())
    pair.run()
    assert pair.app.take(events.ChannelOpened) == events.ChannelOpened(number, Ok())
    assert pair.relay.session.channels == pair.app.session.channels == {number}


def test_a_ride_may_be_refused_and_the_channel_lives() -> None:
    """RFC 3340 section 4.4.1 with 4.2."""
    pair = Pair(PLAIN)
    number = pair.app.session.open(Bind("example.com", 1))
    pair.run()
    assert pair.relay.take(events.ElementReceived).element == Bind("example.com", 1)
    pair.relay.session.answer(number, RIDE, Error(537, "access denied"))
    pair.run()
    opened = pair.app.take(events.ChannelOpened)
    assert isinstance(opened.answer, Error)
    assert opened.answer.code == 537
    handle = pair.app.session.send(number, Attach(FRED, 2))
    pair.run()
    came = pair.relay.take(events.ElementReceived)
    pair.relay.session.answer(came.channel, came.msgno, Ok())
    pair.run()
    assert pair.app.take(events.Answered) == events.Answered(handle, Ok())


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40))
def test_data_goes_both_ways_however_the_octets_are_cut(size: int) -> None:
    """APEX-10: the same values, the same raw payload; either side may send (RFC 3340 section 2.1)."""
    pair = Pair(PLAIN, size=size)
    channel = pair.open()
    for one, other in ((pair.app, pair.relay), (pair.relay, pair.app)):
        big = data(Part(GIF.header_block, GIF.octets * 2000, GIF.content_id))
        raw = write_message(big)
        handles = [one.session.send(channel, data()), one.session.send(channel, raw)]
        pair.run()
        first, second = other.take(events.ElementReceived), other.take(events.ElementReceived)
        assert (first.element, second.element) == (data(), big)
        assert second.raw == raw
        assert one.session.is_busy
        other.session.answer(channel, second.msgno, Error(450, "not now"))
        other.session.answer(channel, first.msgno, Ok())
        pair.run()
        answers = [one.take(events.Answered), one.take(events.Answered)]
        assert [answer.handle for answer in answers] == handles
        assert answers[0].element == Ok()
        assert isinstance(answers[1].element, Error)
        assert answers[1].element.code == 450


@pytest.mark.parametrize(("octets", "code"), [(b"<data", 500), (b"<data/>", 501), (b"<ok />", 501), (b"", 500)])
def test_what_is_malformed_or_not_valid_is_answered_here_and_the_channel_lives(octets: bytes, code: int) -> None:
    """P-30."""
    pair = Pair(PLAIN)
    channel = pair.open()
    handle = pair.app.session.send(channel, HEAD + octets)
    pair.run()
    answered = pair.app.take(events.Answered)
    assert answered.handle == handle
    assert isinstance(answered.element, Error)
    assert answered.element.code == code
    assert not any(isinstance(event, events.ElementReceived) for event in pair.relay.seen)
    pair.app.session.send(channel, Attach(FRED, 1))
    pair.run()
    pair.relay.take(events.ElementReceived)


@pytest.mark.parametrize("ride", [False, True])
def test_a_document_type_ends_the_session_without_a_word(ride: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-30: C°."""
    pair = Pair(PLAIN)
    poison = b"<!DOCTYPE attach [<!ENTITY a 'b'>]><attach endpoint='&a;@a.test' transID='1'/>"
    if ride:
        monkeypatch.setattr("comity.bindings.apex.session.write_ride", lambda element: poison)
        pair.app.session.open(Attach(FRED, 1))
    else:
        pair.app.session.send(pair.open(), HEAD + poison)
    pair.run()
    assert pair.relay.take(events.SessionEnded).is_error
    assert pair.relay.session.data_to_send(pair.now) == []


@pytest.mark.parametrize(("ride", "code"), [(b"<attach", 500), (b"<attach/>", 501), (b"<terminate transID='1'/>", 501)])
def test_a_poor_ride_is_answered_inside_the_profile(ride: bytes, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 3080 section 3.1.1: the channel is there, what rode on its start failed."""
    pair = Pair(PLAIN)
    with monkeypatch.context() as patch:
        patch.setattr("comity.bindings.apex.session.write_ride", lambda element: ride)
        pair.app.session.open(Attach(FRED, 1))
    pair.run()
    answer = pair.app.take(events.ChannelOpened).answer
    assert isinstance(answer, Error)
    assert answer.code == code


def test_a_wrong_password_fails_and_the_next_attempt_may_succeed() -> None:
    pair = Pair(PLAIN)
    for username, password in (("alice", "wrong"), ("mallory", PASSWORD)):
        pair.app.session.sign_in(username, password)
        pair.run()
        assert pair.app.take(events.SignInFailed).code == 535
        assert pair.relay.take(events.SignInFailed).identity == username
        assert not pair.relay.session.identity
    pair.app.session.sign_in("alice", PASSWORD)
    pair.run()
    assert pair.app.take(events.SignInSucceeded).mechanism == "SCRAM-SHA-256"


def test_nobody_signs_in_without_tls_unless_the_network_is_exempt() -> None:
    """P-18 and the brief: 538."""
    pair = Pair()
    pair.app.session.sign_in_external()
    pair.run()
    assert pair.app.take(events.SignInFailed).code == 538


def test_a_relay_is_proved_by_its_certificate() -> None:
    """RFC 3080 section 4.1.3: EXTERNAL."""
    pair = Pair()
    pair.app.session.start_tls()
    pair.run()
    pair.app.session.sign_in_external("b.test")
    pair.run()
    assert pair.relay.take(events.ExternalCheckWanted).authzid == "b.test"
    pair.relay.session.external_checked("b.test")
    pair.run()
    assert pair.relay.take(events.SignInSucceeded) == events.SignInSucceeded("b.test", "EXTERNAL")
    assert pair.app.take(events.SignInSucceeded).mechanism == "EXTERNAL"


def test_who_does_not_sign_in_in_time_is_let_go_unless_admitted() -> None:
    """P-20."""
    pair, known = Pair(), Pair()
    known.relay.session.admit()
    for one in (pair, known):
        due = one.relay.session.next_timer()
        assert due is None or due >= 30.0
        one.relay.session.handle_timer(30.0)
        one.run()
    assert pair.relay.take(events.SessionEnded).reason == "nobody signed in in time"
    assert not known.relay.session.is_ended


def test_a_stranger_may_cost_little_and_who_signed_in_more() -> None:
    """Bounded memory before sign-in, on the channels that are open by then too."""
    pair = Pair(PLAIN)
    channel, big = pair.open(), data(Part(GIF.header_block, bytes(100_000), GIF.content_id))
    pair.app.session.send(channel, big)
    pair.run()
    refused = pair.app.take(events.Answered).element
    assert isinstance(refused, Error)
    assert refused.code == 554
    for _ in range(7):
        pair.open()
    pair.app.session.open()
    pair.run()
    assert pair.app.take(events.ChannelRefused).code == 450
    pair.app.session.close_channel(3)
    pair.run()
    pair.app.session.sign_in("alice", PASSWORD)
    pair.run()
    pair.app.take(events.SignInSucceeded)
    pair.app.session.send(channel, big)
    pair.run()
    assert pair.relay.take(events.ElementReceived).element == big
    assert pair.open()


def test_a_session_is_released_when_nothing_is_open_any_more() -> None:
    """P-19; RFC 3080 section 2.3.1.3."""
    pair = Pair(PLAIN)
    channel = pair.open()
    pair.relay.session.send(channel, data())
    pair.run()
    pair.app.session.release()
    pair.run()
    assert not pair.app.session.is_ended, "the application owes an answer"
    came = pair.app.take(events.ElementReceived)
    pair.app.session.answer(channel, came.msgno, Ok())
    pair.run()
    assert pair.relay.take(events.Answered).element == Ok()
    assert not pair.app.take(events.SessionEnded).is_error
    assert not pair.relay.take(events.SessionEnded).is_error


@pytest.mark.parametrize("is_whole_session", [False, True])
def test_what_is_sent_behind_our_own_goodbye_goes_nowhere(is_whole_session: bool) -> None:
    """A message that comes while we stop is not refused: it is not answered, and its sender's to send again."""
    pair = Pair(PLAIN)
    channel = pair.open()
    pair.relay.session.send(channel, data())
    if is_whole_session:
        pair.relay.session.release()
    else:
        pair.relay.session.close_channel(channel)
    pair.relay.session.send(channel, data())
    pair.run()
    came = pair.app.take(events.ElementReceived)
    pair.app.session.answer(channel, came.msgno, Ok())
    pair.run()
    assert pair.relay.take(events.Answered).element == Ok()
    assert not any(isinstance(event, events.ElementReceived) for event in pair.app.seen)
    assert pair.relay.session.is_ended is is_whole_session
    assert pair.relay.session.channels == (frozenset({channel}) if is_whole_session else frozenset())


def test_a_channel_is_closed_and_said_to_be() -> None:
    """RFC 3340 section 6.1.1: attachments end with their channel."""
    pair = Pair(PLAIN)
    channel, other = pair.open(), pair.open()
    pair.app.session.close_channel(channel)
    pair.run()
    assert pair.relay.take(events.ChannelClosed) == pair.app.take(events.ChannelClosed) == events.ChannelClosed(channel)
    assert pair.relay.session.channels == {other}


def test_a_terminate_from_the_relay_is_an_element_like_others() -> None:
    """RFC 3340 section 4.4.3: the relay too may terminate an attachment."""
    pair = Pair(PLAIN)
    channel = pair.open()
    pair.relay.session.send(channel, Terminate(1, 556, "overridden"))
    pair.run()
    came = pair.app.take(events.ElementReceived)
    assert came.element == Terminate(1, 556, "overridden")
    pair.app.session.answer(channel, came.msgno, Ok())
    pair.run()
    assert pair.relay.take(events.Answered).element == Ok()


def test_only_a_listener_opens_apex_channels_for_others() -> None:
    """RFC 3340 section 2.1: the endpoint is always the initiator."""
    pair = Pair(PLAIN)
    pair.relay.session.open()
    pair.run()
    assert pair.relay.take(events.ChannelRefused).code == 550


def test_while_held_a_peer_sends_no_more_than_its_window() -> None:
    """Backpressure by BEEP's windows, not by memory."""
    pair = Pair(PLAIN)
    channel = pair.open()
    pair.relay.session.hold()
    for _ in range(50):
        pair.app.session.send(channel, data(Part(GIF.header_block, bytes(1000), GIF.content_id)))
    pair.run()
    came = [event for event in pair.relay.seen if isinstance(event, events.ElementReceived)]
    assert 0 < len(came) < 10
    assert pair.app.session.waiting(channel) > 20_000
    pair.relay.session.resume()
    pair.run()
    assert len([event for event in pair.relay.seen if isinstance(event, events.ElementReceived)]) == 50


def test_verbs_that_the_state_forbids_raise() -> None:
    pair = Pair(PLAIN)
    with pytest.raises(LocalProtocolError):
        pair.relay.session.start_tls()
    with pytest.raises(LocalProtocolError):
        pair.relay.session.answer(1, RIDE, Ok())
    with pytest.raises(LocalProtocolError):
        pair.app.session.send(7, Ok())
