"""Watchers of other domains by their SIP server: SUBSCRIBE in over a trunk, NOTIFY back in the dialog (SEC-31, T1, T18, GW-15)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from comity.bindings.base import HostPort, Transport
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.cpim.address import Address
from comity.cpim.presence_rules import Permissions, SubHandling
from comity.service.peers import Peer
from comity.service.routes import Route
from tests.bindings.sip.kit import Phone, story
from tests.bindings.sip.presence_kit import BOB, PresenceWorld, Watcher, basic_of, pidf, state_of

SERVER, LISTED, EVE = ("198.51.100.7", 5060), ("198.51.100.8", 5060), ("198.51.100.66", 5060)
ROMEO = "im:romeo@b.test"


class Joined(PresenceWorld):
    """a.test and its neighbour b.test, which speaks by ``SERVER``; listed.test is known by its address."""

    routes = (Route("b.test", "sip", f"tcp://{SERVER[0]}:{SERVER[1]}"),)
    peers = (Peer("listed.test", (ip_network("198.51.100.8/32"),)),)


class Server(Phone):
    """A presence server, or a proxy, of another domain; its users' phones stand behind it."""

    def __init__(
        self,
        world: PresenceWorld,
        address: HostPort = SERVER,
        transport: Transport = "tls",
        names: tuple[str, ...] = ("b.test",),
    ) -> None:
        super().__init__(world, "server", address, transport, names=names)
        self.settings = self.session.settings = type(self.settings)(
            methods=frozenset({"NOTIFY", "SUBSCRIBE", "OPTIONS"}), extensions=frozenset()
        )

    async def subscribe(
        self,
        source: str = "sip:romeo@b.test",
        whom: str = "sip:bob@a.test",
        expires: int = 600,
        *headers: tuple[str, str],
        call_id: str = "c1",
    ) -> SipResponse:
        """A SUBSCRIBE it passes on for a phone of ``source``; itself stays on the path."""
        own = [
            ("From", f"<{source}>;tag=t1"),
            ("Event", "presence"),
            ("Contact", "<sip:romeo@10.1.1.1:5099>"),
            ("Record-Route", f"<sip:{self.address[0]};lr>"),
            ("Call-ID", call_id),
            ("Expires", str(expires)),
        ]
        id = await self.send(self.request("SUBSCRIBE", whom, [*own, *headers]))
        return self.responses[id]

    async def again(self, first: SipResponse, expires: int, source: str = "") -> SipResponse:
        """A refresh in the dialog of an answer."""
        return await self.subscribe(
            *("sip:romeo@b.test", str(first.contacts[0].uri), expires),
            ("To", first.value("to") or ""),
            ("From", f"<{source}>;tag=t1" if source else first.value("from") or ""),
            call_id=first.call_id,
        )

    def notified(self) -> list[SipRequest]:
        """NOTIFY requests since the last call."""
        taken, self.received = [one for one in self.received if one.method == "NOTIFY"], []
        return taken

    def heard(self) -> list[tuple[str, str]]:
        return [(state_of(one), basic_of(one.body)) for one in self.notified()]


async def joined() -> tuple[PresenceWorld, Server, Watcher]:
    """The server of b.test, and Bob, who is open."""
    world = await Joined().start()
    bob = Watcher(world, "bob")
    assert (await bob.publish(pidf("open"))).status_code == 200
    return world, Server(world), bob


class TestAllowed:
    @story
    async def test_nothing_is_told_until_the_account_decides(self) -> None:
        """GW-15, F26 to F33 of RFC 8048: 200, pending, then the document to exactly that dialog by its route set."""
        world, server, bob = await joined()
        answer = await server.subscribe()
        assert (answer.status_code, answer.value("expires")) == (200, "600")
        assert server.heard() == [("pending", "")]
        [item] = await world.presence.contacts.requests(Address.parse(BOB))
        assert item.contact.uri == ROMEO
        await world.grant(BOB, ROMEO)
        [notify] = server.notified()
        assert (state_of(notify), basic_of(notify.body)) == ("active", "open")
        assert notify.uri_text == "sip:romeo@10.1.1.1:5099"
        assert notify.listed("route") == [f"<sip:{SERVER[0]};lr>"]
        assert (notify.from_.tag, notify.to.tag) == (answer.to.tag, "t1")
        await bob.publish(pidf("closed"), etag="")
        await world.advance(6.0)
        assert server.heard()[-1][0] == "active"

    @story
    async def test_a_refusal_ends_it_and_expires_0_ends_the_session_alone(self) -> None:
        """GW-15: unsubscribed is terminated;reason=rejected; Expires 0 leaves the authorization (X21)."""
        world, server, _ = await joined()
        await world.grant(BOB, ROMEO)
        first = await server.subscribe()
        assert server.heard() == [("active", "open")]
        assert (await server.again(first, 0)).status_code == 200
        assert server.heard() == [("timeout", "open")]
        assert (await world.presence.contacts.item(Address.parse(BOB), Address.parse(ROMEO))).is_preapproved
        await server.subscribe(call_id="c2")
        assert server.heard() == [("active", "open")]
        await world.grant(BOB, ROMEO, Permissions(SubHandling.BLOCK))
        assert server.heard() == [("rejected", "")]
        assert (await server.subscribe(call_id="c3")).status_code == 200
        assert server.heard() == [("pending", "")], "asking again is a new request"

    @story
    async def test_it_outlives_a_restart_and_a_connection(self) -> None:
        """N-17: after a crash the next connection is our own, to the server its domain is reached by."""
        world, server, _ = await joined()
        await world.grant(BOB, ROMEO)
        await server.subscribe(whom="sip:bob@a.test")
        assert server.heard() == [("active", "open")]
        assert server.link is not None
        server.link.abort()
        world.listening[SERVER] = server
        await world.crash()
        await world.advance(60.0)
        assert ("active", "") in [(state, "") for state, _ in server.heard()]
        assert [target.host for target in world.network.dialled] == [SERVER[0]]

    @story
    async def test_what_could_not_be_told_is_told_when_the_server_is_back(self) -> None:
        """The last state is never lost (SIP-27), though the trunk was."""
        world, server, bob = await joined()
        await world.grant(BOB, ROMEO)
        await server.subscribe()
        server.heard()
        assert server.link is not None
        server.link.abort()
        await bob.publish(pidf("closed", id="b"))
        await world.advance(10.0)
        assert server.heard() == []
        world.listening[SERVER] = server
        await world.advance(20.0)
        assert [state for state, _ in server.heard()] == ["active"]

    @story
    async def test_one_known_by_its_address_needs_no_certificate(self) -> None:
        world = await Joined().start()
        server = Server(world, LISTED, "udp", ())
        assert (await server.subscribe("sip:dave@listed.test")).status_code == 200
        assert server.heard() == [("pending", "")]
        assert (await server.subscribe("sip:romeo@b.test", call_id="c2")).status_code == 403


class TestRefused:
    @pytest.mark.parametrize(
        ("source", "code"),
        [
            ("sip:carol@c.test", 403),
            ("sip:romeo@sub.b.test", 403),
            # In the name of a user of ours: she has to prove herself, through whatever she comes.
            ("sip:alice@a.test", 401),
        ],
    )
    @story
    async def test_in_another_name(self, source: str, code: int) -> None:
        """SEC-31, T1: per request, no state, nobody is asked and nobody's watchers learn of it."""
        world, server, _ = await joined()
        assert (await server.subscribe(source)).status_code == code
        assert not await world.presence.contacts.requests(Address.parse(BOB))
        assert not world.presence.watchers(Address.parse(BOB))
        assert server.notified() == []

    @pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
    @story
    async def test_who_proves_nothing_speaks_for_no_domain(self, transport: Transport) -> None:
        world, _, _ = await joined()
        stranger = Server(world, EVE, transport, ("a.test",))
        assert (await stranger.subscribe()).status_code == 403
        assert stranger.notified() == []

    @story
    async def test_who_exists_cannot_be_told_from_the_answers(self) -> None:
        """N-02: nobody's name is harvested by a peer server."""
        world, server, _ = await joined()
        real = await server.subscribe(whom="sip:bob@a.test", call_id="c1")
        made_up = await server.subscribe(whom="sip:nobody@a.test", call_id="c2")
        assert real.status_code == made_up.status_code == 200
        assert server.heard() == [("pending", ""), ("pending", "")]
        assert world.presence.watchers(Address.parse("im:nobody@a.test")) != ()

    @story
    async def test_people_of_third_domains_are_not_watched_through_us(self) -> None:
        _, server, _ = await joined()
        assert (await server.subscribe(whom="sip:juliet@c.test")).status_code == 404
        assert server.notified() == []

    @story
    async def test_a_refresh_is_its_watchers_alone(self) -> None:
        """SEC-32, N-08: another user of the same domain neither refreshes nor ends it."""
        world, server, _ = await joined()
        await world.grant(BOB, ROMEO)
        first = await server.subscribe()
        server.heard()
        assert (await server.again(first, 0, "sip:mercutio@b.test")).status_code == 481
        assert server.heard() == []
        assert len(world.presence.watchers(Address.parse(BOB))) == 1

    @story
    async def test_its_lists_and_its_watchers_are_the_accounts_own(self) -> None:
        """T18: who watches an account is told to nobody of another domain."""
        _, server, _ = await joined()
        winfo = ("Event", "presence.winfo")
        assert (await server.subscribe("sip:romeo@b.test", "sip:bob@a.test", 600, winfo)).status_code == 403
        assert server.notified() == []

    @story
    async def test_a_storm_of_one_domain_is_slowed(self) -> None:
        world = await Joined(peer_messages=2.0).start()
        server = Server(world)
        codes = [(await server.subscribe(f"sip:u{n}@b.test", call_id=f"c{n}")).status_code for n in range(10)]
        assert codes == [200] * 8 + [503] * 2


@story
async def test_each_is_told_in_its_own_dialog() -> None:
    """T18, ACL-28: what Romeo may see never goes to Mercutio, who is of the same domain and asked as well."""
    world, server, bob = await joined()
    await world.grant(BOB, ROMEO)
    await server.subscribe(call_id="c1")
    await server.subscribe("sip:mercutio@b.test", call_id="c2")
    assert [(one.call_id, state_of(one)) for one in server.notified()] == [("c1", "active"), ("c2", "pending")]
    await world.advance(6.0)
    await bob.publish(pidf("closed", id="b"))
    await world.advance(6.0)
    told = server.notified()
    assert told
    assert {one.call_id for one in told} == {"c1"}
    assert all(str(one.to.uri) == "sip:romeo@b.test" for one in told)
