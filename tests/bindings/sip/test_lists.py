"""List subscriptions: ``comity.bindings.sip.lists`` and ``rlmi``; RFC 4662, RFC 5367. Each test names the row it shows."""

from __future__ import annotations

import asyncio
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from comity.bindings.base import HostPort, Transport
from comity.bindings.sip.listing import ListWatch, Member
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.rlmi import Resource, write_state
from comity.cpim.address import Address
from comity.cpim.entity import multipart_parts, split_entity
from comity.cpim.operations import MimeObject
from comity.cpim.presence import PresenceDocument
from comity.cpim.presence_rules import Permissions, SubHandling
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Content, StoredDocument, Subscription
from tests.bindings.sip.kit import story
from tests.bindings.sip.presence_kit import ALICE, BOB, CAROL, PresenceWorld, Watcher, basic_of, pidf, state_of

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parents[2] / "conformance" / "schemas" / "rlmi.xsd"))
RLMI = "{urn:ietf:params:xml:ns:rlmi}"
LIST = "sip:contacts@a.test"
HEADERS = (
    ("Supported", "eventlist"),
    ("Accept", "application/pidf+xml, application/rlmi+xml, multipart/related"),
)


@dataclass
class State:
    """What one NOTIFY says."""

    version: int
    is_full: bool
    states: dict[str, tuple[str, str]]
    """By user: (state or reason, basic status)."""
    names: dict[str, str]


def read(request: SipRequest) -> State:
    """Read a NOTIFY as a subscriber does: by RFC 2387 and the schema."""
    return read_state(MimeObject.of(request.content_type, request.body))


def read_state(obj: MimeObject) -> State:
    parts = [split_entity(part) for part in multipart_parts(obj)]
    assert parts[0].content_type.partition(";")[0] == "application/rlmi+xml"
    root = etree.fromstring(parts[0].octets)
    SCHEMA.assertValid(root)
    ids = [part.header("content-id").strip("<>") for part in parts]
    assert f'start="<{ids[0]}>"' in obj.content_type
    assert len(set(ids)) == len(ids)
    by_id = dict(zip(ids, parts, strict=True))
    states, names, used = {}, {}, {ids[0]}
    for resource in root.findall(f"{RLMI}resource"):
        user = resource.get("uri").partition(":")[2].partition("@")[0]
        name = resource.find(f"{RLMI}name")
        names[user] = name.text if name is not None else ""
        instance = resource.find(f"{RLMI}instance")
        if instance is None:
            states[user] = "", ""
            continue
        state = instance.get("reason") or instance.get("state")
        assert (instance.get("state") == "terminated") == (instance.get("reason") is not None)
        assert (instance.get("state") == "active") == (instance.get("cid") is not None)
        cid = instance.get("cid")
        states[user] = state, basic_of(by_id[cid].octets) if cid else ""
        used.add(cid or ids[0])
    assert used == set(ids), "every part is a resource's"
    return State(int(root.get("version")), root.get("fullState") == "true", states, names)


class ListWatcher(Watcher):
    """A phone with a friend list."""

    def __init__(self, world: PresenceWorld, user: str, transport: Transport = "udp", *, port: int = 5060) -> None:
        super().__init__(world, user, transport, port=port)
        self.settings = self.session.settings = replace(self.settings, extensions=frozenset({"eventlist"}))

    async def subscribe_list(
        self, *headers: tuple[str, str], body: bytes = b"", expires: int = 300, call_id: str = "list"
    ) -> SipResponse:
        own = [("Event", "presence"), ("Contact", self.contact), ("Call-ID", call_id), ("Expires", str(expires))]
        answer = await self.ask(self.request("SUBSCRIBE", LIST, [*own, *HEADERS, *headers], body))
        assert answer is not None
        return answer

    def told(self) -> list[State]:
        """What the NOTIFY requests since the last call say."""
        requests = self.notified()
        for request in requests:
            assert request.value("require") == "eventlist"
        return [read(request) for request in requests]


async def world_of(transport: str = "tcp") -> tuple[PresenceWorld, ListWatcher, Watcher, Watcher]:
    """Alice with bob and carol in her list, who both let her see them; bob is there."""
    world = await PresenceWorld().start()
    for name in (BOB, CAROL):
        await world.grant(name, ALICE)
        await put(world, name)
    alice = ListWatcher(world, "alice", "tcp" if transport == "tcp" else "udp")
    bob, carol = Watcher(world, "bob"), Watcher(world, "carol")
    await bob.publish(pidf("open"))
    return world, alice, bob, carol


async def put(world: PresenceWorld, who: str, name: str = "") -> None:
    alice = Address.parse(ALICE)
    contacts = world.presence.contacts
    await contacts.put(alice, Address.parse(who), name, (), Origin(alice, "xmpp", "127.0.0.1", True))
    await world.settle()


def on_the_wire(world: PresenceWorld) -> list[bytes]:
    """What goes to phones from now on, repetitions too."""
    sent: list[bytes] = []
    to_phone = world.to_phone

    def noted(address: HostPort, data: bytes) -> None:
        sent.append(data)
        to_phone(address, data)

    world.to_phone = noted  # type: ignore[method-assign]  # somebody listens on this wire
    return sent


def rules(handling: SubHandling) -> Permissions:
    return Permissions(handling)


class TestList:
    @pytest.mark.parametrize("transport", ["udp", "tcp"])
    @story
    async def test_one_subscription_tells_of_all_contacts(self, transport: str) -> None:
        """RFC 4662 sections 4.1 and 5.2."""
        world, alice, bob, carol = await world_of(transport)
        answer = await alice.subscribe_list()
        assert (answer.status_code, answer.value("expires"), answer.value("require")) == (200, "300", "eventlist")
        (first,) = alice.told()
        assert (first.version, first.is_full) == (0, True)
        assert first.states == {"bob": ("active", "open"), "carol": ("active", "closed")}
        await world.advance(10)
        await carol.publish(pidf("open", entity="pres:carol@a.test"))
        (second,) = alice.told()
        assert (second.version, second.is_full, second.states) == (1, False, {"carol": ("active", "open")})
        await bob.publish(pidf("closed", id="b"))
        await carol.publish(pidf("closed", entity="pres:carol@a.test", id="b"))
        assert alice.told() == []
        await world.advance(6)
        (third,) = alice.told()
        assert (third.version, third.is_full, sorted(third.states)) == (2, False, ["bob", "carol"])

    @story
    async def test_who_may_not_be_seen_alone_may_not_be_seen_in_a_list(self) -> None:
        """G9, ACL-10: and what is taken away is taken away at once."""
        world, alice, bob, _ = await world_of()
        await alice.subscribe_list()
        alice.told()
        await world.grant(BOB, ALICE, rules(SubHandling.BLOCK))
        (told,) = alice.told()
        assert (told.version, told.is_full) == (1, True)
        assert told.states == {"bob": ("rejected", ""), "carol": ("active", "closed")}
        await bob.publish(pidf("open", "secret"))
        await world.advance(60)
        assert alice.told() == []

    @story
    async def test_what_is_on_its_way_is_not_sent_again_after_a_block(self) -> None:
        """G9 over UDP: the NOTIFY that still showed bob is abandoned."""
        world, alice, bob, _ = await world_of("udp")
        await alice.subscribe_list()
        alice.told()
        alice.hold = []
        await world.advance(10)
        await bob.publish(pidf("open", "secret", id="b"))
        shown = alice.notified()
        assert any(b"secret" in one.body for one in shown)
        await world.grant(BOB, ALICE, rules(SubHandling.BLOCK))
        sent = on_the_wire(world)
        await world.advance(20)
        assert alice.notified()
        assert not any(b"secret" in octets for octets in sent)

    @pytest.mark.parametrize("is_refused", [False, True])
    @story
    async def test_what_is_on_its_way_is_not_sent_again_after_a_polite_block(self, is_refused: bool) -> None:
        """G9 over UDP, ACL-11: neither repeated nor, refused for a time, sent again; alice hears what looks like any change."""
        world, alice, bob, _ = await world_of("udp")
        world.config = replace(world.config, presence_interval=30.0)
        world.binding.config = world.config
        await alice.subscribe_list()
        alice.told()
        if is_refused:
            alice.answers = [500]
        else:
            alice.hold = []
        await world.advance(40)
        await bob.publish(pidf("open", "secret", id="b"))
        assert any(b"secret" in one.body for one in alice.notified())
        await world.grant(BOB, ALICE, rules(SubHandling.POLITE_BLOCK))
        sent = on_the_wire(world)
        alice.hold = None
        for _ in range(12):
            await world.advance(5)
        later = alice.notified()
        assert not any(b"secret" in octets for octets in sent)
        assert {name: said for one in later for name, said in read(one).states.items()}["bob"] == ("active", "closed")

    @story
    async def test_a_block_while_a_refresh_is_carried_out_waits_for_nothing(self) -> None:
        """G9 over UDP: what is on its way is abandoned then, too."""
        world, alice, bob, _ = await world_of("udp")
        await put(world, "im:dave@elsewhere.test")  # each refresh asks for him again
        answer = await alice.subscribe_list()
        alice.told()
        alice.hold = []
        await world.advance(10)
        await bob.publish(pidf("open", "secret", id="b"))
        assert any(b"secret" in one.body for one in alice.notified())
        subscribe, release = world.presence.subscribe, asyncio.Event()

        async def slowly(*args: Any) -> Any:
            await release.wait()
            return await subscribe(*args)

        world.presence.subscribe = slowly  # type: ignore[assignment, method-assign]  # this world's store is slow
        refresh = asyncio.ensure_future(alice.again(answer, 300, *HEADERS))
        await world.settle()
        await world.grant(BOB, ALICE, rules(SubHandling.BLOCK))
        sent = on_the_wire(world)
        await world.advance(20)
        assert sent
        assert not any(b"secret" in octets for octets in sent)
        release.set()
        await refresh

    @story
    async def test_who_waits_is_pending_in_the_list(self) -> None:
        world = await PresenceWorld().start()
        await put(world, BOB, "Bob")
        alice = ListWatcher(world, "alice", "tcp")
        await alice.subscribe_list()
        (first,) = alice.told()
        assert (first.states, first.names) == ({"bob": ("pending", "")}, {"bob": "Bob"})
        await world.grant(BOB, ALICE)
        assert [one.states for one in alice.told()] == []
        await world.advance(6)
        assert [one.states for one in alice.told()] == [{"bob": ("active", "closed")}]

    @story
    async def test_the_list_follows_the_contact_list(self) -> None:
        world, alice, _, _ = await world_of()
        await world.presence.contacts.remove(
            Address.parse(ALICE), Address.parse(CAROL), Origin(Address.parse(ALICE), "xmpp", "127.0.0.1", True)
        )
        await alice.subscribe_list()
        assert [sorted(one.states) for one in alice.told()] == [["bob"]]
        await world.advance(10)
        await put(world, CAROL, "Carol")
        (added,) = alice.told()
        assert (added.is_full, sorted(added.states), added.names) == (False, ["carol"], {"carol": "Carol"})
        await world.presence.contacts.remove(
            Address.parse(ALICE), Address.parse(BOB), Origin(Address.parse(ALICE), "xmpp", "127.0.0.1", True)
        )
        await world.settle()
        (removed,) = alice.told()[-1:]
        assert (removed.is_full, sorted(removed.states)) == (True, ["carol"])

    @story
    async def test_a_refresh_is_full_and_an_end_is_the_end(self) -> None:
        """RFC 4662 section 5.2."""
        world, alice, bob, _ = await world_of()
        answer = await alice.subscribe_list()
        refreshed = await alice.again(answer, 300, *HEADERS)
        assert refreshed.status_code == 200
        first, second = alice.told()
        assert [(one.version, one.is_full) for one in (first, second)] == [(0, True), (1, True)]
        assert first.states == second.states
        assert (await alice.again(answer, 0, *HEADERS)).status_code == 200
        (last,) = alice.notified()
        assert state_of(last) == "timeout"
        assert read(last).is_full
        await bob.publish(pidf("closed", id="b"))
        await world.advance(60)
        assert alice.notified() == []
        assert world.presence.watchers(Address.parse(BOB)) == ()
        assert (await alice.again(answer, 300, *HEADERS)).status_code == 481

    @story
    async def test_who_said_no_is_not_asked_again_by_a_refresh(self) -> None:
        world, alice, _, _ = await world_of()
        answer = await alice.subscribe_list()
        await world.grant(BOB, ALICE, rules(SubHandling.BLOCK))
        asked = world.presence.watchers(Address.parse(BOB))
        await alice.again(answer, 300, *HEADERS)
        assert alice.told()[-1].states["bob"] == ("rejected", "")
        assert world.presence.watchers(Address.parse(BOB)) == asked == ()

    @story
    async def test_a_change_of_the_contact_list_in_between_makes_no_second_subscription(self) -> None:
        world, alice, _, _ = await world_of()
        await asyncio.gather(alice.subscribe_list(), put(world, CAROL, "Carol"), put(world, BOB, "Bob"))
        await world.advance(10)
        assert alice.told()[-1].names
        for who in (BOB, CAROL):
            assert len(world.presence.watchers(Address.parse(who))) == 1

    @story
    async def test_a_fetch_is_told_once(self) -> None:
        world, alice, _, _ = await world_of()
        assert (await alice.subscribe_list(expires=0)).status_code == 200
        (only,) = alice.notified()
        assert (state_of(only), read(only).states["bob"]) == ("timeout", ("active", "open"))
        assert world.presence.watchers(Address.parse(BOB)) == ()

    @story
    async def test_it_ends_by_its_time_and_by_a_watcher_that_is_gone(self) -> None:
        """SIP-22, OPS-24."""
        world, alice, bob, _ = await world_of("udp")
        await alice.subscribe_list()
        await world.advance(301)
        assert [state_of(one) for one in alice.notified()][-1] == "timeout"
        assert world.presence.watchers(Address.parse(BOB)) == ()
        await alice.subscribe_list(call_id="again")
        alice.told()
        alice.hold = []
        await bob.publish(pidf("closed", id="b"))
        for _ in range(20):
            await world.advance(5)
        assert world.presence.watchers(Address.parse(BOB)) == ()

    @story
    async def test_an_entry_has_an_id_that_never_was(self) -> None:
        """OPS-30: 128 random bits, 32 octets, also for the same list again."""
        world, alice, _, _ = await world_of()
        ids = set()
        for number in range(3):
            answer = await alice.subscribe_list(call_id=f"l{number}")
            ids |= {one.id for one in world.presence.watchers(Address.parse(BOB))}
            await alice.again(answer, 0, *HEADERS)
        assert len(ids) == 3
        assert all(re.fullmatch("[0-9a-f]{32}", id) for id in ids)


class TestRefusals:
    @story
    async def test_who_does_not_know_lists_is_told_so(self) -> None:
        """RFC 4662 section 4.1: 421."""
        world, alice, _, _ = await world_of()
        answer = await alice.subscribe_list(("Supported", "gruu"))
        assert (answer.status_code, answer.value("require")) == (421, "eventlist")
        assert (await alice.subscribe_list(("Event", "presence.winfo"))).status_code == 489
        assert (await alice.subscribe_list(("Event", "dialog"))).status_code == 489
        assert world.presence.watchers(Address.parse(BOB)) == ()

    @story
    async def test_lists_of_one_watcher_are_counted(self) -> None:
        _, alice, _, _ = await world_of()
        answers = [(await alice.subscribe_list(call_id=f"l{number}")).status_code for number in range(5)]
        assert answers == [200, 200, 200, 200, 503]

    @story
    async def test_a_dialog_is_its_watchers_own(self) -> None:
        """N-08."""
        world, alice, _, _ = await world_of()
        answer = await alice.subscribe_list()
        bob = ListWatcher(world, "bob", "tcp", port=5070)
        stolen = await bob.again(answer, 0, ("From", f"<sip:bob@a.test>;tag={answer.from_.tag}"), *HEADERS)
        assert stolen.status_code == 481
        assert (await alice.again(answer, 300, *HEADERS)).status_code == 200


def lists(*entries: str) -> bytes:
    inside = "".join(f"<entry uri='{uri}'/>" for uri in entries)
    return (
        f"<resource-lists xmlns='urn:ietf:params:xml:ns:resource-lists'><list>{inside}</list></resource-lists>".encode()
    )


CARRIED = (
    ("Require", "recipient-list-subscribe"),
    ("Content-Type", "application/resource-lists+xml"),
    ("Content-Disposition", "recipient-list"),
)


class TestCarriedLists:
    """RFC 5367."""

    @pytest.mark.parametrize("is_compressed", [False, True])
    @story
    async def test_a_list_may_come_along(self, is_compressed: bool) -> None:
        """COMPAT Linphone compresses it."""
        world, alice, bob, _ = await world_of()
        body = lists("sip:bob@a.test", "tel:+1", "sip:x@elsewhere.test")
        more = (("Content-Encoding", "deflate"),) if is_compressed else ()
        answer = await alice.subscribe_list(*CARRIED, *more, body=zlib.compress(body) if is_compressed else body)
        assert answer.status_code == 200
        (first,) = alice.told()
        assert sorted(first.states.values()) == [("active", "open"), ("noresource", ""), ("noresource", "")]
        await world.advance(10)
        await bob.publish(pidf("closed", id="b"))
        assert [one.states for one in alice.told()] == [{"bob": ("active", "open")}]

    @pytest.mark.parametrize(
        ("headers", "body", "status_code"),
        [
            ((), b"<resource-lists", 400),
            ((), b"<x/>", 400),
            ((), b"<!DOCTYPE x><x/>", 400),
            ((), lists(*(f"sip:u{number}@a.test" for number in range(600))), 403),
            ((("Content-Encoding", "br"),), lists(), 415),
            ((("Content-Encoding", "deflate"),), b"no", 400),
            ((("Content-Encoding", "deflate"),), zlib.compress(b"x" * 10_000_000), 413),
        ],
    )
    @story
    async def test_a_list_that_cannot_be_read_is_refused(
        self, headers: tuple[tuple[str, str], ...], body: bytes, status_code: int
    ) -> None:
        """N-25's kin: and nothing is kept of it."""
        world, alice, _, _ = await world_of()
        assert (await alice.subscribe_list(*CARRIED, *headers, body=body)).status_code == status_code
        assert alice.notified() == []
        assert world.presence.watchers(Address.parse(BOB)) == ()


async def keep(world: PresenceWorld, name: str, octets: bytes) -> None:
    """A document of alice's, as XCAP puts it."""
    alice = Address.parse(ALICE)
    kept = await world.presence.documents.put(
        alice, name, "application/xml", octets, Origin(alice, "xcap", "127.0.0.1", True)
    )
    assert isinstance(kept, StoredDocument), kept


class TestServices:
    """RFC 4826 section 4.5: list services of the subscriber's own."""

    @pytest.mark.parametrize("is_referred", [False, True])
    @story
    async def test_a_service_is_its_list(self, is_referred: bool) -> None:
        world, alice, bob, _ = await world_of()
        root = "https://xcap.a.test/resource-lists/users/sip:alice@a.test/index/~~/resource-lists/list%5b@name=%22work%22%5d"
        inside = (
            f"<resource-list>{root}</resource-list>"
            if is_referred
            else "<list><rl:entry uri='sip:bob@a.test'/><rl:list><rl:entry uri='sip:nobody@b.test'/></rl:list></list>"
        )
        await keep(
            world,
            "rls-services/index",
            (
                "<rls-services xmlns='urn:ietf:params:xml:ns:rls-services' xmlns:rl='urn:ietf:params:xml:ns:resource-lists'>"
                f"<service uri='sip:work@a.test'>{inside}<packages><package>presence</package></packages></service>"
                "<service uri='sip:calls@a.test'><list/><packages><package>dialog</package></packages></service>"
                "</rls-services>"
            ).encode(),
        )
        await keep(
            world,
            "resource-lists/index",
            b"<resource-lists xmlns='urn:ietf:params:xml:ns:resource-lists'><list name='work'>"
            b"<entry uri='sip:bob@a.test'><display-name>Bob</display-name></entry></list></resource-lists>",
        )
        who, whom = Address.parse(ALICE), Address.parse(BOB)
        await world.presence.contacts.put(who, whom, "Bob", ("work",), Origin(who, "xmpp", "127.0.0.1", True))
        answer = await alice.subscribe("work", 300, *HEADERS)
        assert (answer.status_code, answer.value("require")) == (200, "eventlist")
        (first,) = alice.told()
        assert first.states["bob"] == ("active", "open")
        assert len(first.states) == (1 if is_referred else 2)
        await world.advance(10)
        await bob.publish(pidf("closed", id="b"))
        assert [sorted(one.states) for one in alice.told()] == [["bob"]]
        assert (await alice.again(answer, 0, *HEADERS)).status_code == 200
        assert world.presence.watchers(Address.parse(BOB)) == ()
        for other, headers in (("calls", HEADERS), ("work", ())):
            assert (await alice.subscribe(other, 300, *headers, call_id=f"o-{other}")).value("require") is None

    @story
    async def test_a_service_is_nobody_elses(self) -> None:
        """N-02: for others it is a user who does not answer."""
        world, _, _, _ = await world_of()
        await keep(
            world,
            "rls-services/index",
            b"<rls-services xmlns='urn:ietf:params:xml:ns:rls-services'><service uri='sip:work@a.test'><list/></service></rls-services>",
        )
        bob = ListWatcher(world, "bob", "tcp", port=5070)
        answer = await bob.subscribe("work", 300, *HEADERS)
        assert (answer.status_code, answer.value("require")) == (200, None)
        assert bob.heard() == [("pending", "")]

    @story
    async def test_a_long_document_is_not_read_again_and_again(self) -> None:
        """Each SUBSCRIBE that may mean a service reads them all: one phone must not take all the time so."""
        world, alice, _, _ = await world_of()
        services = b"<service uri='sip:work@a.test'><list/></service><!--" + b" " * 240_000 + b"-->"
        document = b"<rls-services xmlns='urn:ietf:params:xml:ns:rls-services'>" + services + b"</rls-services>"
        await keep(world, "rls-services/index", document)
        assert (await alice.subscribe("work", 0, *HEADERS, call_id="before")).value("require") == "eventlist"
        for number in range(40):
            await alice.subscribe("elsewhere", 0, *HEADERS, call_id=f"e{number}")
        assert (await alice.subscribe("work", 0, *HEADERS, call_id="too-often")).value("require") is None
        await world.advance(10)
        assert (await alice.subscribe("work", 0, *HEADERS, call_id="after")).value("require") == "eventlist"


NAMES = st.sampled_from(["", "Bob", "B & <C>", "é", "\0"])
STATES = st.sampled_from(
    [("", "", b""), ("pending", "", b""), ("terminated", "rejected", b""), ("active", "", b"<a/>open<")]
)
RESOURCES = st.lists(st.tuples(st.integers(0, 50), NAMES, STATES), max_size=8, unique_by=lambda one: one[0])


@given(RESOURCES, st.integers(0, 2**32 - 1), st.booleans(), st.binary(max_size=60))
def test_whatever_is_said_is_read_again(
    found: list[tuple[int, str, tuple[str, str, bytes]]], version: int, is_full: bool, octets: bytes
) -> None:
    """RFC 4662 section 5, RFC 2387: the documents octet for octet."""
    resources = [
        Resource(
            f"sip:u{number}@a.test",
            name,
            state,
            reason,
            MimeObject.of("application/pidf+xml", document + octets) if document else None,
        )
        for number, name, (state, reason, document) in found
    ]
    body = write_state("sip:contacts@a.test", version, resources, is_full=is_full)
    state = read_state(body)
    assert (state.version, state.is_full, len(state.states)) == (version, is_full, len(found))
    parts = [split_entity(part).octets for part in multipart_parts(body)][1:]
    assert parts == [one.document.octets for one in resources if one.document is not None]


@given(st.lists(st.integers(1, 30_000), max_size=12), st.sampled_from(["udp", "tcp"]))
def test_what_has_no_room_comes_with_the_next(sizes: list[int], transport: str) -> None:
    """RFC 4662 section 5.2: the first names all, each has its state once, and no NOTIFY is much longer than it may be."""
    alice = Address.parse(ALICE)
    one = ListWatch(Subscription("l", "sip-list", alice, alice), LIST, Origin(alice, "sip", "", True), is_own=True)
    for number, size in enumerate(sizes):
        address = Address.parse(f"im:u{number}@a.test")
        document = PresenceDocument.parse(pidf("open", "n" * size, entity=f"pres:u{number}@a.test"))
        content = Content(address, document, MimeObject.of("application/pidf+xml", document.raw))
        one.members[address.key] = Member(f"sip:u{number}@a.test", "", address, state="active", content=content)
    told: dict[str, tuple[str, str]] = {}
    state = read_state(one.next_body(transport))
    assert (state.is_full, len(state.states)) == (True, len(sizes))
    for version in range(len(sizes) + 1):
        assert state.version == version
        for user, said in state.states.items():
            assert told.get(user, ("", "")) == ("", "")
            told[user] = said
        if not one.dirty:
            break
        body = one.next_body(transport)
        assert len(body.octets) < 45 * 1024 or len(read_state(body).states) == 1
        state = read_state(body)
        assert not state.is_full
    assert not one.dirty
    assert set(told.values()) <= {("active", "open")}
