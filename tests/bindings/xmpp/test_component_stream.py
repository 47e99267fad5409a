"""A component's stream (XEP-0114): both sides against each other, and each against what its peer must not do (K-01 … K-04)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.component_stream import (
    AttachedSession,
    AttachingSession,
    ComponentOptions,
    ComponentStream,
    digest,
)
from comity.bindings.xmpp.events import (
    Event,
    HandshakeFailed,
    HandshakeSucceeded,
    StanzaReceived,
    StanzasAcknowledged,
    StreamEnded,
)
from comity.bindings.xmpp.stream import ANSWER_TIME, SILENCE
from comity.bindings.xmpp.wire import Element
from comity.errors import LocalProtocolError
from tests.bindings.xmpp.pair import counting_random

SECRETS = {"gw.a.test": "s3cret & <more>", "irc.a.test": "other"}
HEADER = (
    b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='gw.a.test'>"
)


def attached() -> AttachedSession:
    return AttachedSession(ComponentOptions("a.test", SECRETS), lambda: None, counting_random(b"host"), 0.0)


def attaching(secret: str = SECRETS["gw.a.test"]) -> AttachingSession:
    options = ComponentOptions("gw.a.test", {"gw.a.test": secret})
    return AttachingSession(options, lambda: None, counting_random(b"component"), 0.0)


def taken(session: ComponentStream) -> list[Event]:
    """All its events so far."""
    events: list[Event] = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return events


def said(session: ComponentStream, now: float = 0.0) -> bytes:
    return b"".join(session.data_to_send(now))


def stanzas(events: list[Event]) -> list[Element]:
    return [event.stanza for event in events if isinstance(event, StanzaReceived)]


def exchange(*sides: ComponentStream, now: float = 0.0, size: int = 1 << 20) -> None:
    """Carry octets between two sides until both are silent; the host of a component gives it back what it sent to itself."""
    one, other = sides
    is_silent = False
    while not is_silent:
        is_silent = True
        for sender, receiver in ((one, other), (other, one)):
            octets = said(sender, now)
            is_silent = is_silent and not octets
            for start in range(0, len(octets), size):
                receiver.receive_data(octets[start : start + size], now)


def ready_host() -> AttachedSession:
    """A host whose component is there; the first question was answered."""
    host = attached()
    host.receive_data(HEADER, 0.0)
    id = said(host).split(b"id='")[1].split(b"'")[0].decode()
    host.receive_data(f"<handshake>{digest(id, SECRETS['gw.a.test'])}</handshake>".encode(), 0.0)
    assert taken(host) == [HandshakeSucceeded("gw.a.test")]
    answer(host)
    return host


def answer(host: AttachedSession, now: float = 0.0) -> bytes:
    """Answer its question as a component does that knows no ping; all it had said."""
    octets = said(host, now)
    id = octets.rpartition(b"<iq ")[2].split(b" id='")[1].split(b"'")[0].decode()
    host.receive_data(f"<iq type='error' id='{id}' from='gw.a.test' to='a.test'/>".encode(), now)
    return octets


def condition(octets: bytes) -> str:
    return octets.partition(b"<stream:error><")[2].partition(b" ")[0].decode()


def message(**attributes: str) -> Element:
    return Element(wire.MESSAGE, {"from": "b@a.test", "to": "x@gw.a.test", **attributes}, [])


@pytest.mark.parametrize("size", [1 << 20, 1, 5])
def test_the_handshake_opens_the_stream_both_ways(size: int) -> None:
    """XEP-0114 section 3, however the octets are cut."""
    host, component = attached(), attaching()
    exchange(host, component, size=size)
    assert taken(host) == [HandshakeSucceeded("gw.a.test")]
    shaken, question = taken(component)
    assert shaken == HandshakeSucceeded("gw.a.test")
    assert stanzas([question])[0].get("from") == "a.test", "the host asks at once whether it gets answers"
    component.send_stanza(Element(wire.MESSAGE, {"from": "x@gw.a.test/r", "to": "B@a.test"}))
    exchange(host, component, size=size)
    assert stanzas(taken(host)) == [Element(wire.MESSAGE, {"from": "x@gw.a.test/r", "to": "b@a.test"})]


def test_the_digest_is_the_one_of_the_specification() -> None:
    """XEP-0114 example 3: SHA-1 over the stream's id and the secret, in lower-case hexadecimal digits."""
    assert digest("3BF96D32", "test") == "aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e"


def test_a_wrong_digest_is_not_authorized() -> None:
    """K-01."""
    host, component = attached(), attaching("wrong")
    exchange(host, component)
    failed, ended = taken(host)
    assert failed == HandshakeFailed("gw.a.test", "not-authorized")
    assert ended == StreamEnded("not-authorized", "the handshake is not right")
    assert taken(component) == [StreamEnded("not-authorized", "the handshake is not right", is_local=False)]


def test_an_unknown_component_is_host_unknown() -> None:
    """K-02: whoever is asked for, nothing is told of who exists."""
    for to in (b"nobody.a.test", b"a.test", b"x@gw.a.test", b"gw.a.test/r"):
        host = attached()
        host.receive_data(HEADER.replace(b"gw.a.test", to), 0.0)
        assert condition(said(host)) == "host-unknown", to
    for to in (b"", b"@"):
        host = attached()
        host.receive_data(HEADER.replace(b"gw.a.test", to), 0.0)
        assert condition(said(host)) == "improper-addressing", to


def test_another_content_namespace_is_refused() -> None:
    """A client or a server that took the port for theirs (like D-17)."""
    for namespace in (b"jabber:client", b"jabber:server", b"jabber:component:connect"):
        host = attached()
        host.receive_data(HEADER.replace(b"jabber:component:accept", namespace), 0.0)
        assert condition(said(host)) == "invalid-namespace"


@pytest.mark.parametrize("stanza", [b"<message to='b@a.test'/>", b"<iq/>", b"<presence/>", b"<x/>"])
def test_a_stanza_before_the_handshake_is_not_authorized(stanza: bytes) -> None:
    """K-03."""
    host = attached()
    host.receive_data(HEADER + stanza, 0.0)
    assert condition(said(host)) == "not-authorized"
    assert [type(event) for event in taken(host)] == [StreamEnded]


@pytest.mark.parametrize("sender", ["b@a.test", "a.test", "x@irc.a.test", "gw.a.test.evil", "x@evilgw.a.test", "@", ""])
def test_a_stanza_from_another_domain_ends_the_stream(sender: str) -> None:
    """K-04: checked for each stanza; a user of the host is as foreign to a component as anybody."""
    host = ready_host()
    host.receive_data(
        f"<message from='x@GW.a.test/r' to='b@a.test'/><message from='{sender}' to='b@a.test'/>".encode(), 0
    )
    first, ended = taken(host)
    assert stanzas([first]) == [Element(wire.MESSAGE, {"from": "x@gw.a.test/r", "to": "b@a.test"})]
    assert isinstance(ended, StreamEnded)
    assert ended.condition == "invalid-from"


def test_any_user_of_its_own_domain_is_the_components() -> None:
    """K-07: a component's name space is its own; who is in it is not asked."""
    host = ready_host()
    host.receive_data(b"<message from='any\\20one@gw.a.test' to='b@a.test'/>", 0.0)
    assert [type(event) for event in taken(host)] == [StanzaReceived]


def test_a_stanza_without_a_sender_is_the_components_own() -> None:
    """As both stock servers have it; one without a recipient is refused, and the stream stays."""
    host = ready_host()
    host.receive_data(b"<message to='b@a.test'/><message from='gw.a.test' id='7'/><message to='@' id='8'/>", 0.0)
    assert stanzas(taken(host)) == [Element(wire.MESSAGE, {"from": "gw.a.test", "to": "b@a.test"})]
    octets = said(host)
    assert octets.count(b"type='error'") == 2
    assert b"id='7'" in octets
    assert b"bad-request" in octets
    assert b"jid-malformed" in octets


def test_an_answered_question_acknowledges_what_stood_before_it() -> None:
    """One question for many messages, one out at a time; an error is as good an answer as a result."""
    host = ready_host()
    for key in (1, 2):
        host.send_stanza(message(id=str(key)), key)
    octets = said(host)
    assert octets.count(b"urn:xmpp:ping") == 1
    host.send_stanza(message(id="3"), 3)
    assert b"urn:xmpp:ping" not in said(host)
    id = octets.rpartition(b"<iq ")[2].split(b" id='")[1].split(b"'")[0].decode()
    host.receive_data(f"<iq type='result' id='{id}' from='gw.a.test' to='other.test'/>".encode(), 0.0)
    assert [type(event) for event in taken(host)] == [StanzaReceived], "not the answer: it is for somebody else"
    host.receive_data(f"<iq type='result' id='{id}' from='gw.a.test' to='a.test'/>".encode(), 0.0)
    assert taken(host) == [StanzasAcknowledged((1, 2))]
    answer(host)
    assert taken(host) == [StanzasAcknowledged((3,))]


def test_a_component_is_acknowledged_by_its_own_question_come_back() -> None:
    """What a host does with an iq from its component to its component: it gives it back, in order."""
    component = attaching()
    component.receive_data(HEADER.replace(b"to='", b"id='1' from='"), 0.0)
    component.receive_data(b"<handshake/>", 0.0)
    taken(component)
    component.send_stanza(Element(wire.MESSAGE, {"from": "x@gw.a.test", "to": "b@a.test"}), "key")
    octets = said(component)
    question = octets[octets.rindex(b"<iq ") :]
    assert b"from='gw.a.test' to='gw.a.test'" in question
    assert octets.index(b"<message ") < octets.index(b"<iq ")
    component.receive_data(question, 0.0)
    assert taken(component) == [StanzasAcknowledged(("key",))]
    assert said(component) == b"", "and it is not answered: who waits for it is here"


def test_a_host_of_ours_gives_back_what_a_component_sent_to_itself_after_all_before_it() -> None:
    """So that a component's question is worth as much here as at any host: what stands before it is durable by then."""
    host = ready_host()
    host.receive_data(b"<message from='gw.a.test' to='b@a.test'/><iq type='get' id='q' to='gw.a.test'><q/></iq>", 0.0)
    (received,) = taken(host)
    assert isinstance(received, StanzaReceived)
    assert said(host) == b""
    host.stanza_handled(received.index)
    assert said(host) == b"<iq type='get' id='q' to='gw.a.test' from='gw.a.test'><q/></iq>"
    host.receive_data(b"<message from='gw.a.test' to='b@a.test'/>" + b"<message to='gw.a.test'/>" * 65, 0.0)
    assert condition(said(host)) == "resource-constraint"


def test_a_component_that_answers_nothing_is_believed() -> None:
    """It lives and answers no question, not even the first one: nothing better exists for it (as for such a client)."""
    host = ready_host_without_answer()
    host.send_stanza(message(), "key")
    said(host)
    host.receive_data(b"<message from='gw.a.test' to='b@a.test'/>", 10.0)
    taken(host)
    host.handle_timer(ANSWER_TIME)
    assert taken(host) == [StanzasAcknowledged(("key",))]
    host.send_stanza(message(), "another")
    assert taken(host) == [StanzasAcknowledged(("another",))]


def ready_host_without_answer() -> AttachedSession:
    host = attached()
    host.receive_data(HEADER, 0.0)
    id = said(host).split(b"id='")[1].split(b"'")[0].decode()
    host.receive_data(f"<handshake>{digest(id, SECRETS['gw.a.test']).upper()}</handshake>".encode(), 0.0)
    taken(host)
    said(host)
    return host


def test_one_that_answered_before_and_does_not_any_more_has_taken_nothing() -> None:
    """Its messages are delivered again on the next stream."""
    host = ready_host()
    host.send_stanza(message(), "key")
    said(host)
    host.receive_data(b"<message from='gw.a.test' to='b@a.test'/>", 10.0)
    taken(host)
    host.handle_timer(ANSWER_TIME)
    (ended,) = taken(host)
    assert isinstance(ended, StreamEnded)
    assert ended.condition == "connection-timeout"


def test_silence_is_asked_about_and_then_ends_the_stream() -> None:
    host = ready_host()
    said(host)
    assert host.next_timer() == SILENCE
    host.handle_timer(SILENCE)
    assert b"urn:xmpp:ping" in said(host, SILENCE)
    host.handle_timer(SILENCE + ANSWER_TIME)
    (ended,) = taken(host)
    assert isinstance(ended, StreamEnded)
    assert ended.condition == "connection-timeout"


def test_a_handshake_that_does_not_come_ends_the_stream() -> None:
    for session in (attached(), attaching()):
        assert session.next_timer() == 30.0
        session.handle_timer(30.0)
        assert [type(event) for event in taken(session)] == [StreamEnded]


def test_too_much_before_the_handshake_ends_the_stream() -> None:
    host = attached()
    host.receive_data(HEADER + b" " * 70_000, 0.0)
    assert condition(said(host)) == "policy-violation"


def test_nothing_can_be_sent_before_the_handshake() -> None:
    for session in (attached(), attaching()):
        with pytest.raises(LocalProtocolError):
            session.send_stanza(message())


def test_a_host_without_a_stream_id_is_refused() -> None:
    """There would be nothing to make a digest of."""
    component = attaching()
    component.receive_data(HEADER, 0.0)
    assert condition(said(component)) == "invalid-xml"


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=40), st.integers(1, 64))
def test_any_secret_opens_the_stream_and_no_other_does(secret: str, size: int) -> None:
    for given_secret, is_right in ((secret, True), (secret + "x", False)):
        host = AttachedSession(ComponentOptions("a.test", {"gw.a.test": secret}), lambda: None, counting_random(), 0.0)
        component = attaching(given_secret)
        exchange(host, component, size=size)
        assert isinstance(taken(host)[0], HandshakeSucceeded) == is_right
