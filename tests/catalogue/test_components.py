"""K-01 … K-08 (reliability.md section 2.3): external components that do what they may not, on a running server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from comity.bindings.xmpp.component_stream import digest
from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import Status
from tests.catalogue.fleet import octet_by_octet, read_answer
from tests.catalogue.harness import Inbox, Target
from tests.catalogue.raw import RawStream
from tests.paths.kit import ALICE

SECRET = "irc's own secret"
HEADER = b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='%b'>"
NICK = Address.parse("im:nick@irc.a.test")
MANY, LARGE = 60, 40_000
"""More than a connection's buffers hold on both sides."""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    accept = f'user_messages = 100000\nuser_message_burst = 100000\nuser_octets = 100000000\n[[xmpp.accept]]\ndomain = "irc.a.test"\nsecret = "{SECRET}"\n'
    target = Target(tmp_path_factory.mktemp("components"), accept, people=("carol",))
    yield target
    target.check_canary()
    target.close()


def opened(target: Target, domain: bytes = b"irc.a.test") -> tuple[RawStream, str]:
    """A component that has been answered by a header; its stream's id."""
    peer = RawStream(target, "component")
    peer.send(HEADER % domain)
    return peer, peer.until(rb"<stream:stream [^>]*>").partition(b" id='")[2].partition(b"'")[0].decode()


def attached(target: Target) -> RawStream:
    """A component as it should be."""
    peer, id = opened(target)
    peer.send(f"<handshake>{digest(id, SECRET)}</handshake>".encode())
    peer.until(rb"<handshake/>")
    return peer


def answer_pings(peer: RawStream, octets: bytes) -> None:
    """Answer every question in what was heard."""
    for part in octets.split(b"<iq ")[1:]:
        id = part.partition(b"id='")[2].partition(b"'")[0]
        peer.send(b"<iq type='result' id='%b' from='irc.a.test' to='a.test'/>" % id)


def test_a_wrong_handshake_is_not_authorized(target: Target) -> None:
    """K-01: wrong, of another stream, empty, and far too long; whole and octet by octet."""
    with target.row("K-01", log_lines=8):
        for wrong in (digest("other", SECRET), digest("", SECRET), "", SECRET, "a" * 5000):
            peer, _ = opened(target)
            with peer:
                for piece in (
                    [f"<handshake>{wrong}</handshake>".encode()]
                    if len(wrong) > 100
                    else octet_by_octet(f"<handshake>{wrong}</handshake>".encode())
                ):
                    peer.send(piece)
                assert read_answer(peer.until_closed()).condition == "not-authorized"


@pytest.mark.parametrize("domain", [b"unknown.a.test", b"a.test", b"irc.a.test.evil", b"bob@irc.a.test"])
def test_an_unknown_component_is_host_unknown(target: Target, domain: bytes) -> None:
    """K-02."""
    with target.row("K-02"), RawStream(target, "component") as peer:
        peer.send(HEADER % domain)
        assert read_answer(peer.until_closed()).condition == "host-unknown"


def test_a_stanza_before_the_handshake_is_not_authorized(target: Target, bob: Inbox) -> None:
    """K-03: and nobody is shown it."""
    stanza = b"<message from='nick@irc.a.test' to='bob@a.test'><body>before</body></message>"
    with target.row("K-03"):
        peer, _ = opened(target)
        with peer:
            peer.send(stanza)
            assert read_answer(peer.until_closed()).condition == "not-authorized"
        with RawStream(target, "component") as peer:
            peer.send(HEADER % b"irc.a.test" + stanza)
            assert read_answer(peer.until_closed()).condition == "not-authorized"
    assert "before" not in bob.texts


@pytest.mark.parametrize("sender", ["alice@a.test", "a.test", "nick@b.test", "nick@irc.a.test.evil", "x@IRC.b.test"])
def test_a_stanza_from_another_domain_ends_the_stream(target: Target, bob: Inbox, sender: str) -> None:
    """K-04, G8: not ours, not a stranger's, and never shown to anybody."""
    with target.row("K-04", log_lines=2), attached(target) as peer:
        peer.send(f"<message from='{sender}' to='bob@a.test'><body>as {sender}</body></message>".encode())
        assert (
            read_answer(
                b"<stream:stream xmlns:stream='http://etherx.jabber.org/streams'>"
                + peer.until_closed().partition(b"</iq>")[2]
            ).condition
            == "invalid-from"
        )
    assert f"as {sender}" not in bob.texts


def test_a_component_names_whom_it_likes_in_its_own_domain(target: Target, bob: Inbox) -> None:
    """K-07: From of an object inside is checked all the same."""
    with target.row("K-07", log_lines=2, stores=True), attached(target) as peer:
        peer.send(b"<message from='any\\20one@irc.a.test/x' to='bob@a.test'><body>mine</body></message>")
        bob.expect("mine")
        assert bob.senders[-1] == "im:any%20one@irc.a.test"
        lie = b"Content-Type: message/cpim\r\n\r\nFrom: <im:alice@a.test>\r\nTo: <im:bob@a.test>\r\n\r\nContent-Type: text/plain\r\n\r\na lie"
        peer.send(
            b"<message id='lie' from='nick@irc.a.test' to='bob@a.test'><e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'><![CDATA[%b]]></e2e></message>"
            % lie.replace(b"\r\n", b"\n")
        )
        refused = peer.until(rb"<message [^>]*id='lie'.*?</message>")
        assert b"type='error'" in refused
    assert "a lie" not in bob.texts


def test_a_component_that_reads_nothing_holds_up_nobody_and_loses_nothing(target: Target) -> None:
    """K-08: what it does not take waits in the store, and is handed over when it comes back; the canary never waits."""

    async def send() -> None:
        async with target.server.client("xmpp", ALICE, receive=False) as alice:
            for number in range(MANY):
                answer = await alice.send(text_object(ALICE, NICK, f"{number:03} " + "x" * LARGE), NICK)
                assert answer.status is Status.INDETERMINANT

    with target.row("K-08", log_lines=6, stores=True):
        with attached(target):
            asyncio.run(send())
            assert target.server.waiting() == MANY, "none of them was answered for"
        with attached(target) as peer:
            heard: dict[bytes, None] = {}
            while len(heard) < MANY:
                octets = peer.until(rb"<(message|iq) .*?</\1>")
                answer_pings(peer, octets)
                body = octets.partition(b"<body>")[2][:3]
                if body:
                    heard[body] = None
            assert list(heard) == [b"%03d" % number for number in range(MANY)]
            while target.server.waiting():
                answer_pings(peer, peer.until(rb"<(message|iq) .*?</\1>"))
