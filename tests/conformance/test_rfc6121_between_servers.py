"""What RFC 6121 sections 3 and 4 print between two servers, between two of ours (GW-3, XMPP-11 to XMPP-14, N-01, N-07, N-14).

Both servers are whole but for the stream between them, on which every stanza is written down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from comity.bindings.base import Link, Listener, Network
from comity.bindings.xmpp import wire
from comity.bindings.xmpp.neighbours import Neighbours
from comity.bindings.xmpp.stream import XmppStream
from comity.bindings.xmpp.subscriptions import FOREVER, stanza_to_subscription, subscription_to_stanza
from comity.bindings.xmpp.ways import Flight, Hop
from comity.cpim.address import from_jid
from comity.cpim.operations import SubscribeOperation
from comity.secure import LocalCa, ReplayCache, TrustStore, new_identity
from comity.secure.operation import sign_operation, verify_operation
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Decision
from comity.service.routes import Route
from comity.xml import Element, parse_document
from tests.bindings.xmpp.world import Client, World, login, run

NET, COM = ("im:romeo@example.net", "im:benvolio@example.net"), ("im:juliet@example.com", "im:mercutio@example.com")
EXAMPLES = parse_document((Path(__file__).parent / "rfc6121" / "between-servers.xml").read_bytes())


def printed(section: str) -> list[str]:
    """The stanzas of a section."""
    found = next(one for one in EXAMPLES.elements() if one.get("n") == section)
    return sorted(canonical(stanza) for stanza in found.elements())


def canonical(stanza: Element) -> str:
    """A stanza so that two of the same meaning are equal; ids are compared where the RFC says that they mean something."""
    kept = {key: stanza.get(key) for key in ("from", "to", "type", "id") if stanza.get(key)}
    children = sorted(f"{child.local}={child.text}" for child in stanza.elements() if child.local != "priority")
    return f"{sorted(kept.items())} {children}"


class Straight:
    """A way to the other server that is always open; what was said on it is in ``said``."""

    def __init__(self, far: World, domain: str) -> None:
        self.far, self.domain = far, domain
        self.said: list[Element] = []

    def listeners(self) -> Sequence[Listener]:
        return ()

    def takes(self, role: str) -> bool:
        return False

    async def start(self, neighbours: Neighbours, network: Network) -> None:
        """It is open."""

    def carries(self, theirs: str, ours: str) -> bool:
        return theirs == self.domain

    def send(self, stanza: Element, hop: Hop, flight: Flight | None = None) -> None:
        octets = wire.encode(stanza)
        copy = next(parse_document(b"<x xmlns='jabber:client'>" + octets + b"</x>").elements())
        self.said.append(copy)
        sender = from_jid(copy.get("from"))[0]
        origin = Origin(sender, "xmpp", "192.0.2.7", True, domains=frozenset({sender.domain}))
        self.far.binding._neighbours.on_presence(copy, origin, lambda: None)
        if flight is not None:
            flight.taken()

    def new_session(self, link: Link, role: str) -> XmppStream:
        raise NotImplementedError

    def handle_event(self, link: Link, event: object) -> None:
        raise NotImplementedError

    def link_closed(self, link: Link, error: Exception | None) -> None:
        raise NotImplementedError

    async def drain(self) -> None:
        """Nothing to end."""

    def take(self) -> list[str]:
        """What was said since the last call."""
        said, self.said = self.said, []
        return sorted(canonical(stanza) for stanza in said)


class Two:
    """Romeo's server and Juliet's."""

    async def start(self) -> Two:
        self.net = await World(presence=True, users=NET, routes=(Route("example.com", "xmpp"),)).start()
        self.com = await World(presence=True, users=COM, routes=(Route("example.net", "xmpp"),)).start()
        self.out, self.back = Straight(self.com, "example.com"), Straight(self.net, "example.net")
        self.net.binding._neighbours._kinds = (self.out,)
        self.com.binding._neighbours._kinds = (self.back,)
        return self

    async def tell(self, client: Client, *texts: str) -> None:
        await client.tell(*texts)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(4):
            await self.net.settle()
            await self.com.settle()

    async def granted(self) -> tuple[Client, Client, Client]:
        """Romeo sees Juliet, who has two devices; what was said until then is taken."""
        romeo = await login(self.net, "romeo@example.net/orchard")
        balcony, chamber = [await login(self.com, f"juliet@example.com/{name}") for name in ("balcony", "chamber")]
        await self.tell(romeo, "<presence type='subscribe' to='juliet@example.com'/>")
        await self.tell(balcony, "<presence type='subscribed' to='romeo@example.net'/>")
        self.heard(romeo, balcony, chamber)
        return romeo, balcony, chamber

    def heard(self, *clients: Client) -> None:
        for client in clients:
            client.take()
        self.out.take()
        self.back.take()


def test_3_1_asked_and_approved() -> None:
    """Sections 3.1.2 to 3.1.6, and 3.1.3 for one who asks again."""

    async def story() -> None:
        two = await Two().start()
        romeo = await login(two.net, "romeo@example.net/orchard")
        balcony, _ = [await login(two.com, f"juliet@example.com/{name}") for name in ("balcony", "chamber")]
        two.heard(romeo, balcony)
        await two.tell(romeo, "<presence id='xk3h1v69' type='subscribe' to='juliet@example.com'/>")
        assert two.out.take() == printed("3.1.2")
        assert balcony.heard() == ["subscribe romeo@example.net"]
        await two.tell(balcony, "<presence id='h4v1c4kj' type='subscribed' to='romeo@example.net'/>")
        # Romeo's server asks once more as soon as it looks (4.3.1), and is answered the same.
        assert sorted(set(two.back.take())) == printed("3.1.5")
        assert two.out.take() == printed("4.3.1")
        said = romeo.heard()
        assert said[:3] == [
            "push: juliet@example.com none ask=subscribe",
            "subscribed juliet@example.com",
            "push: juliet@example.com to",
        ]
        assert sorted(said[3:]) == ["available juliet@example.com/balcony", "available juliet@example.com/chamber"]
        two.heard(romeo)
        await two.tell(romeo, "<presence type='subscribe' to='juliet@example.com'/>")
        assert printed("3.1.3")[0] in two.back.take()

    run(story())


def test_4_changes_probes_and_ends() -> None:
    """Sections 4.3.1, 4.3.2.1, 4.4.2, 4.5.2."""

    async def story() -> None:
        two = await Two().start()
        romeo, balcony, chamber = await two.granted()
        await two.tell(balcony, "<presence><show>away</show></presence>")
        assert two.back.take() == printed("4.4.2")
        assert romeo.heard() == ["available juliet@example.com/balcony away"]
        await two.tell(romeo, "<presence type='unavailable'/>")
        assert two.out.take() == []  # nobody there sees him, and a server goes on telling
        await two.tell(balcony, "<presence><show>away</show><status>stepped away</status></presence>")
        await two.tell(chamber, "<presence><show>dnd</show><status>busy!</status></presence>")
        two.heard()
        await two.tell(romeo, "<presence/>")
        assert two.out.take() == printed("4.3.1")
        assert two.back.take() == printed("4.3.2.1")
        assert sorted(romeo.heard())[:2] == [
            "available juliet@example.com/balcony away stepped away",
            "available juliet@example.com/chamber dnd busy!",
        ]
        await two.tell(chamber, "<presence type='unavailable'/>")
        two.heard()
        await two.tell(balcony, "<presence type='unavailable'><status>going on vacation</status></presence>")
        assert two.back.take() == printed("4.5.2")
        assert romeo.heard()[-1] == "unavailable juliet@example.com/balcony going on vacation"
        probe = {"type": "probe", "id": "probe2", "from": "romeo@example.net", "to": "juliet@example.com"}
        two.net.binding._neighbours.send(Element(wire.PRESENCE, probe))
        await two.settle()
        assert two.back.take() == printed("4.3.2.1 offline")

    run(story())


def test_4_3_2_a_stranger_learns_nothing_and_nobody_is_a_stranger_too() -> None:
    """N-01: the same answer, after the same time, about who exists and who does not; N-14: a server has no presence."""

    async def story() -> None:
        two = await Two().start()
        names = {"type": "probe", "id": "xv291f38", "from": "romeo@example.net"}
        for who in ("mercutio", "nobody"):
            probe = Element(wire.PRESENCE, {**names, "to": f"{who}@example.com"})
            two.net.binding._neighbours.send(probe)
            await two.settle()
            assert two.back.take() == []
            two.com.clock.advance(0.03)
            await two.settle()
            expected = printed("4.3.2 stranger")
            assert [line.replace(who, "mercutio") for line in two.back.take()] == expected
        for kind in ("probe", "subscribe", "unavailable"):
            two.net.binding._neighbours.send(Element(wire.PRESENCE, {**names, "type": kind, "to": "example.com"}))
        await two.settle()
        assert two.back.take() == []

    run(story())


def test_3_2_a_grant_is_taken_back() -> None:
    """Sections 3.2.2 and 3.2.3: what was shown is gone, and the list says so."""

    async def story() -> None:
        two = await Two().start()
        romeo, balcony, _ = await two.granted()
        await two.tell(balcony, "<presence id='ij5b1v7g' type='unsubscribed' to='romeo@example.net'/>")
        assert two.back.take() == printed("3.2.2")
        said = romeo.heard()
        assert "unsubscribed juliet@example.com" in said
        assert "push: juliet@example.com none" in said
        assert {"unavailable juliet@example.com/balcony", "unavailable juliet@example.com/chamber"} <= set(said)

    run(story())


def test_3_3_a_watcher_goes() -> None:
    """Sections 3.3.2 and 3.3.3."""

    async def story() -> None:
        two = await Two().start()
        romeo, balcony, _ = await two.granted()
        await two.tell(romeo, "<presence id='ul4bs71n' type='unsubscribe' to='juliet@example.com'/>")
        assert two.out.take() == printed("3.3.2")
        answer = "[('from', 'juliet@example.com'), ('to', 'romeo@example.net'), ('type', 'unsubscribed')] []"
        assert [line for line in two.back.take() if line != answer] == printed("3.3.3")  # the answer: table 7, note 1
        assert balcony.heard() == ["unsubscribe romeo@example.net", "push: romeo@example.net none"]
        await two.tell(balcony, "<presence><show>xa</show></presence>")
        assert two.back.take() == []

    run(story())


def test_3_1_3_what_nobody_asked_for_and_what_nobody_may_grant() -> None:
    """N-07; and an error about a request ends it (section 3.1.2)."""

    async def story() -> None:
        two = await Two().start()
        romeo = await login(two.net, "romeo@example.net/orchard")
        forged = {"type": "subscribed", "from": "juliet@example.com", "to": "romeo@example.net"}
        two.com.binding._neighbours.send(Element(wire.PRESENCE, forged))
        await two.settle()
        assert romeo.heard() == []
        await two.tell(romeo, "<presence type='subscribe' to='mercutio@example.com'/>")
        request = Element(
            wire.PRESENCE, {"type": "subscribe", "from": "romeo@example.net", "to": "mercutio@example.com"}
        )
        refusal = wire.error_reply(request, "item-not-found", kind="cancel")
        assert refusal is not None
        two.com.binding._neighbours.send(refusal)
        await two.settle()
        assert romeo.heard()[-2:] == ["unsubscribed mercutio@example.com", "push: mercutio@example.com none"]

    run(story())


def test_4_6_directed_presence_and_its_end() -> None:
    """To one person of the other server, who did not ask for it; the end comes with the device that sent it."""

    async def story() -> None:
        two = await Two().start()
        romeo, juliet = await login(two.net, "romeo@example.net/orchard"), await login(two.com, "juliet@example.com/x")
        two.heard(romeo, juliet)
        await two.tell(romeo, "<presence to='juliet@example.com'><show>chat</show></presence>")
        assert juliet.heard() == ["available romeo@example.net/orchard chat"]
        await two.tell(romeo, "<presence type='unavailable'/>")
        assert juliet.heard() == ["unavailable romeo@example.net/orchard"]

    run(story())


def test_a_decision_by_any_other_protocol_is_carried_the_same_way() -> None:
    """The command line, SIP's and APEX's ways to decide all end in ``PresenceService.answer``."""

    async def story() -> None:
        two = await Two().start()
        romeo = await login(two.net, "romeo@example.net/orchard")
        await two.tell(romeo, "<presence type='subscribe' to='juliet@example.com'/>")
        two.heard(romeo)
        juliet, watcher = from_jid("juliet@example.com")[0], from_jid("romeo@example.net")[0]
        by = Origin(juliet, "sip", "192.0.2.1", True)
        await two.com.presence.answer(juliet, watcher, Decision.ALLOWED, by)
        await asyncio.sleep(0)
        await two.settle()
        assert romeo.heard()[:2] == ["subscribed juliet@example.com", "push: juliet@example.com to"]

    run(story())


def test_a_signed_request_crosses_as_it_was_signed() -> None:
    """SEC-34: the far server judges what the watcher signed, octet for octet; one word changed on the way and it does not hold."""

    async def story() -> None:
        two = await Two().start()
        romeo = await login(two.net, "romeo@example.net/orchard")
        when = datetime.now(UTC)
        authority = LocalCa.create("People", when=when)
        pair = [from_jid(jid)[0].with_scheme("pres") for jid in ("romeo@example.net", "juliet@example.com")]
        trust = TrustStore(anchors=(authority.certificate,))
        identity = new_identity(pair[0].with_scheme("im"), ca=authority, when=when)
        for duration in (FOREVER, 0):
            two.heard(romeo)
            asked = SubscribeOperation(pair[0], pair[1], f"subscription-{duration}", "t1", duration)
            proof = sign_operation(asked, identity, when=when, message_id=f"op{duration}")
            await romeo.send(subscription_to_stanza(replace(asked, proof=proof)))
            await two.settle()
            arrived = stanza_to_subscription(two.out.said[0], trans_id="t2")
            assert isinstance(arrived, SubscribeOperation)
            assert arrived.proof is not None
            assert arrived.proof.entity == proof.entity
            altered = replace(arrived, duration=60 if not duration else 61)
            for operation, verdict in ((altered, "envelope-mismatch"), (arrived, "valid")):
                judged = verify_operation(operation, trust, now=when, replay=ReplayCache())
                assert judged.verdict == verdict, judged.reason

    run(story())
