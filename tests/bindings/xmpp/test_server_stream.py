"""Streams between servers without a socket: RFC 6120's own example at every cut, both sides together, dialback, time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

import pytest

from comity.bindings.base import TlsInfo
from comity.bindings.xmpp import events
from comity.bindings.xmpp.dialback import Keys, names_domain
from comity.bindings.xmpp.server_stream import IncomingStream, PeerOptions, ServerStream
from comity.bindings.xmpp.server_stream_out import OutgoingStream
from comity.bindings.xmpp.wire import Element

SECRET = b"s" * 32
STREAMS = "xmlns='http://etherx.jabber.org/streams'"
FROM = "from='im.example.com' to='example.net' version='1.0' xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'"
BACK = f"from='example.net' id='hTiXkW+ih9k2SqdGkk/AZi0OJ/Q=' to='im.example.com' version='1.0' {STREAMS}"
MESSAGE = (
    "<message from='juliet@im.example.com/balcony' id='ju2ba41c' to='romeo@example.net' type='chat' xml:lang='en'>"
    "<body>Art thou not Romeo, and a Montague?</body></message>"
)


def certificate(*names: str) -> TlsInfo:
    return TlsInfo("TLSv1.3", "any", b"end point", b"DER", names)


@dataclass
class Side:
    """One side, and what it said."""

    session: ServerStream
    tls: list[TlsInfo | None]
    shows: TlsInfo | None = None
    """What the other side shows when TLS starts."""
    now: float = 1.0
    events: list[object] = field(default_factory=list)

    def take(self, octets: bytes) -> bytes:
        """Give it octets; what it answers."""
        if octets:
            self.session.receive_data(octets, self.now)
        out = b""
        while True:
            event = self.session.next_event()
            out += b"".join(self.session.data_to_send(self.now))
            if event is None:
                return out
            self.events.append(event)
            if isinstance(event, events.TlsWanted):
                self.tls[0] = self.shows
                if isinstance(self.session, OutgoingStream):
                    self.session.tls_started()
            if isinstance(event, events.StanzaReceived):
                self.session.stanza_handled(event.index)

    def of(self, kind: type[object]) -> list[object]:
        return [event for event in self.events if isinstance(event, kind)]


def options(*domains: str, **more: object) -> PeerOptions:
    return replace(PeerOptions(domains, Keys(lambda: SECRET)), **more)  # type: ignore[arg-type]  # checked there


def random() -> Callable[[int], bytes]:
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def incoming(shows: TlsInfo | None, **more: object) -> Side:
    tls: list[TlsInfo | None] = [None]
    session = IncomingStream(options("example.net", **more), lambda: tls[0], random(), 0.0)
    return Side(session, tls, shows)


def outgoing(shows: TlsInfo | None, *, asks: bool = False, **more: object) -> Side:
    tls: list[TlsInfo | None] = [None]
    made = options("im.example.com", **more)
    session = OutgoingStream("im.example.com", "example.net", made, lambda: tls[0], random=random(), now=0.0, asks=asks)
    return Side(session, tls, shows)


def meet(one: Side, other: Side) -> None:
    """Let them talk until nobody says anything."""
    said = one.take(b"")
    for _ in range(50):
        answer = other.take(said)
        said = one.take(answer)
        if not said and not answer:
            return
    raise AssertionError("they never come to an end")


OURS, THEIRS = certificate("im.example.com"), certificate("example.net")


class TestExample:
    """RFC 6120 section 9.2, each side's part as printed, cut at every octet."""

    STEPS = (
        f"<stream:stream {FROM}>",
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
        f"<stream:stream {FROM}>",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>",
        f"<stream:stream {FROM}>",
        MESSAGE,
        "</stream:stream>",
    )

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_receiving_server(self, size: int) -> None:
        """XMPP-3: Server2."""
        side = incoming(OURS)
        answers = []
        for step in self.STEPS:
            octets = step.encode()
            answers.append(b"".join(side.take(octets[at : at + size]) for at in range(0, len(octets), size)))
        assert b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>" in answers[0]
        assert answers[1] == b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
        assert b"<mechanism>EXTERNAL</mechanism>" in answers[2]
        assert answers[3] == b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
        assert b"from='example.net'" in answers[4]
        assert answers[6].endswith(b"</stream:stream>")
        assert [event.domain for event in side.of(events.DomainProved) if isinstance(event, events.DomainProved)] == [
            "im.example.com"
        ]
        [received] = side.of(events.StanzaReceived)
        assert isinstance(received, events.StanzaReceived)
        assert received.stanza.name == "{jabber:client}message"
        assert received.stanza.language == "en"
        body = received.stanza.find("{jabber:client}body")
        assert body is not None
        assert body.text == "Art thou not Romeo, and a Montague?"

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_initiating_server(self, size: int) -> None:
        """XMPP-3: Server1, whose peer writes without prefixes (section 4.8.5)."""
        side = outgoing(THEIRS)
        said = [side.take(b"")]
        tls = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"
        sasl = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>"
        for step in (
            f"<stream {BACK}><features {STREAMS}>{tls}</features>",
            "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
            f"<stream {BACK}><features {STREAMS}>{sasl}</features>",
            "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
            f"<stream {BACK}><features {STREAMS}/>",
        ):
            octets = step.encode()
            said.append(b"".join(side.take(octets[at : at + size]) for at in range(0, len(octets), size)))
        assert b"from='im.example.com' to='example.net'" in said[0]
        assert said[1] == b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
        assert b"mechanism='EXTERNAL'" in said[3]
        assert side.of(events.StreamReady) == [events.StreamReady(False)]


class TestTogether:
    def test_what_is_sent_is_acknowledged(self) -> None:
        """XEP-0198 between servers."""
        one, other = outgoing(THEIRS), incoming(OURS)
        meet(one, other)
        assert one.of(events.StreamReady) == [events.StreamReady(True)]
        for n in range(3):
            names = {"from": "a@im.example.com", "to": "b@example.net", "id": str(n)}
            one.session.send_stanza(Element("{jabber:client}message", names), n)
        meet(one, other)
        assert len(other.of(events.StanzaReceived)) == 3
        told = [key for event in one.of(events.StanzasAcknowledged) for key in event.keys]  # type: ignore[attr-defined]  # that kind
        assert told == [0, 1, 2]

    @pytest.mark.parametrize(
        ("shown_to_us", "shown_to_them", "problem"),
        [
            (certificate("other.test"), OURS, "does not name its domain"),
            (None, OURS, "does not name"),
            (THEIRS, certificate("other.test"), "does not take our certificate"),
            (THEIRS, None, "does not take our certificate"),
        ],
    )
    def test_nothing_goes_to_who_is_not_proved(
        self, shown_to_us: TlsInfo | None, shown_to_them: TlsInfo | None, problem: str
    ) -> None:
        """RFC 6120 section 13.7; both have to be who they say."""
        bare = replace(THEIRS, peer_certificate=None, names=())
        one, other = outgoing(shown_to_us or bare), incoming(shown_to_them or bare)
        meet(one, other)
        assert one.of(events.StreamReady) == []
        [refused] = one.of(events.StreamRefused)
        assert problem in str(refused)

    def test_no_tls_no_stream(self) -> None:
        """G-05: there is no way back to plain text."""
        one, other = outgoing(THEIRS), incoming(OURS, has_tls=False)
        meet(one, other)
        [refused] = one.of(events.StreamRefused)
        assert "offers no TLS" in str(refused)

    def test_who_is_called_sends_nothing_back(self) -> None:
        """A stream carries stanzas one way: the other proved nothing by answering."""
        one, other = outgoing(THEIRS), incoming(OURS)
        meet(one, other)
        assert b"not-authorized" in one.take(b"<message from='x@example.net' to='a@im.example.com'/>")

    def test_an_idle_stream_is_closed_in_order(self) -> None:
        one, other = outgoing(THEIRS, idle_seconds=300.0), incoming(OURS)
        meet(one, other)
        due = one.session.next_timer()
        while due is not None and due < 290.0:  # signs of life in between
            one.now = due
            one.session.handle_timer(due)
            meet(one, other)
            due = one.session.next_timer()
        assert due is not None
        one.now = due
        one.session.handle_timer(due)
        assert one.take(b"").endswith(b"</stream:stream>")

    def test_who_takes_too_long_is_told_so(self) -> None:
        side = incoming(OURS)
        side.take(f"<stream:stream {FROM}>".encode())
        side.session.handle_timer(30.0)
        assert b"connection-timeout" in side.take(b"")


class TestDialback:
    """XEP-0220, for domains that the operator listed."""

    LISTED = frozenset({"im.example.com", "example.net"})
    NOBODY = replace(THEIRS, peer_certificate=None, names=())

    def dialled(self) -> tuple[Side, Side, events.DialbackWanted]:
        one, other = outgoing(self.NOBODY, dialback=self.LISTED), incoming(self.NOBODY, dialback=self.LISTED)
        meet(one, other)
        [wanted] = other.of(events.DialbackWanted)
        assert isinstance(wanted, events.DialbackWanted)
        return one, other, wanted

    def test_the_domains_own_server_knows_its_key(self) -> None:
        """Sections 2.1 to 2.4: the receiving server asks, the authoritative one, which keeps nothing, answers."""
        one, other, wanted = self.dialled()
        # The receiving server's question goes to the originating domain's server: ours, on a stream of its own.
        asked = Side(
            IncomingStream(options("im.example.com"), lambda: self.NOBODY, random(), 0.0), [self.NOBODY], self.NOBODY
        )
        asking = OutgoingStream(
            "example.net",
            "im.example.com",
            options("example.net", dialback=self.LISTED),
            lambda: self.NOBODY,
            random=random(),
            now=0.0,
            asks=True,
        )
        asker = Side(asking, [self.NOBODY])
        meet(asker, asked)
        asking.verify(wanted.to, wanted.stream_id, wanted.key)
        asking.verify(wanted.to, wanted.stream_id + "x", wanted.key)
        meet(asker, asked)
        assert asker.of(events.DialbackAnswered) == [
            events.DialbackAnswered(wanted.stream_id, True),
            events.DialbackAnswered(wanted.stream_id + "x", False),
        ]
        assert isinstance(other.session, IncomingStream)
        other.session.dialback_checked(wanted.domain, wanted.to, True)
        meet(one, other)
        assert one.of(events.StreamReady) == [events.StreamReady(False)]
        one.session.send_stanza(Element("{jabber:client}message", {"from": "a@im.example.com", "to": "b@example.net"}))
        meet(one, other)
        assert len(other.of(events.StanzaReceived)) == 1

    @pytest.mark.parametrize("is_valid", [False, None])
    def test_a_wrong_key_proves_nothing(self, is_valid: bool | None) -> None:
        """D-03; None: its server could not be asked."""
        one, other, wanted = self.dialled()
        assert isinstance(other.session, IncomingStream)
        other.session.dialback_checked(wanted.domain, wanted.to, is_valid)
        meet(one, other)
        assert one.of(events.StreamReady) == []
        assert other.of(events.DomainProved) == []

    def test_keys_of_different_domains_never_look_alike(self) -> None:
        """D-06: each field stands with its length."""
        keys = Keys(lambda: SECRET)
        alike = [("a.test", "xevil", "1"), ("a.testx", "evil", "1"), ("a.test", "xevi", "l1"), ("a.testxevil", "", "1")]
        assert len({keys.key(*fields) for fields in alike}) == len(alike)
        assert keys.is_right("a.test", "xevil", "1", keys.key("a.test", "xevil", "1"))
        assert not keys.is_right("a.testx", "evil", "1", keys.key("a.test", "xevil", "1"))
        assert Keys(lambda: b"t" * 32).key("a.test", "b", "1") != keys.key("a.test", "b", "1")


def test_a_certificate_speaks_for_what_its_alternative_names_say() -> None:
    """D-16, RFC 6120 section 13.7.1.2: a wildcard is one label, and never a whole top-level domain's."""
    shown = TlsInfo(
        "TLSv1.3", "any", b"", b"DER", ("b.test", "*.c.test", "*.test"), ("_xmpp-server.s.test", "_xmpp-client.no.test"),
        ("x.test", "eve@user.test", "dev.test/r"),
    )  # fmt: skip
    yes = ["b.test", "B.test", "one.c.test", "s.test", "x.test"]
    no = ["c.test", "two.one.c.test", "any.test", "no.test", "user.test", "dev.test", "", "eve@b.test"]
    assert [name for name in yes + no if names_domain(shown, name)] == yes
    assert not names_domain(None, "b.test")
    assert not names_domain(replace(shown, peer_certificate=None), "b.test")
