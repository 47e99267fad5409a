"""What every hop must keep, in XMPP: protection.py, egress.py, delivery.py, carbons.py, streams.py (T11, SEC-30)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.e2e import E2E, OCTETS, wrap_entity
from comity.bindings.xmpp.events import Resumed, StreamEnded
from comity.bindings.xmpp.extensions import PROTECTION
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.mapping import Refusal, stanza_to_operation
from comity.bindings.xmpp.protection import protection_element, read_protection
from comity.bindings.xmpp.queries import CARBONS, DISCO_INFO
from comity.bindings.xmpp.session import ClientOptions, XmppClientSession
from comity.cpim.address import Address
from comity.cpim.native import wrap
from comity.cpim.operations import MessageOperation, MimeObject, Reason, Requirement, Response
from comity.service.interfaces import Accepted
from comity.xml import Element
from tests.bindings.xmpp.pair import PASSWORD, counting_random
from tests.bindings.xmpp.test_mapping import BINARY, ENCRYPTED, SIGNED, WHEN, egress, ingress, operation, stanza
from tests.bindings.xmpp.test_mapping import text_object as text_thing
from tests.bindings.xmpp.world import Client, World, run

TLS, SIGN, SEAL = Requirement.TLS, Requirement.SIGNED, Requirement.ENCRYPTED
NS = f"xmlns='{PROTECTION}'"
ALICE, BOB = Address.parse("im:alice@a.test"), Address.parse("im:bob@a.test")
CAPABLE = frozenset({E2E, OCTETS})


class TestElement:
    @pytest.mark.parametrize("wanted", [{TLS}, {TLS, SIGN}, {TLS, SIGN, SEAL}])
    def test_there_and_back(self, wanted: set[Requirement]) -> None:
        assert read_protection(Element(wire.MESSAGE, {}, [protection_element(wanted)])) == wanted
        assert ingress(stanza(f"<body>x</body><protection {NS}><tls/></protection>")).requirements == {TLS}

    @pytest.mark.parametrize(
        "children",
        [
            f"<protection {NS}><quantum/></protection>",
            f"<protection {NS}/>",
            f"<protection {NS}>tls</protection>",
            f"<protection {NS}><tls xmlns='urn:other'/></protection>",
            f"<tls {NS}/>",
            f"<protection {NS}><tls/></protection><protection {NS}><more/></protection>",
        ],
    )
    def test_what_cannot_be_kept_is_refused(self, children: str) -> None:
        """To drop it would be to send the message on without."""
        made = stanza_to_operation(stanza(f"<body>x</body>{children}"), when=WHEN, trans_id="t", message_id="m")
        assert isinstance(made, Refusal)
        assert made.condition == "policy-violation"

    def test_it_is_no_content(self) -> None:
        made = stanza_to_operation(
            stanza(f"<protection {NS}><tls/></protection>"), when=WHEN, trans_id="t", message_id="m"
        )
        assert isinstance(made, Refusal)
        assert made.condition == "bad-request"


class TestEgress:
    def test_tls_alone_lets_a_text_be_a_text(self) -> None:
        made = egress(replace(operation(text_thing()), requirements=frozenset({TLS})))
        assert not isinstance(made, Response)
        assert made.form == "text"
        assert read_protection(made.stanza) == {TLS}

    @pytest.mark.parametrize("features", [None, frozenset[str](), frozenset({"urn:other"})])
    @pytest.mark.parametrize(("thing", "wanted"), [(SIGNED, SIGN), (ENCRYPTED, SEAL)])
    def test_a_program_that_did_not_say_it_takes_objects_gets_none_and_no_text(
        self, thing: MimeObject, wanted: Requirement, features: frozenset[str] | None
    ) -> None:
        """Without the requirement it gets the readable part (GW-2)."""
        made = egress(replace(operation(thing), requirements=frozenset({wanted})), features)
        assert isinstance(made, Response)
        assert made.reason is Reason.PROTECTION

    @pytest.mark.parametrize(
        ("features", "carrier"),
        [(frozenset({E2E}), "e2e"), (frozenset({OCTETS}), "octets"), (CAPABLE, "e2e")],
    )
    def test_a_program_that_takes_objects_gets_it_and_no_text_beside_it(
        self, features: frozenset[str], carrier: str
    ) -> None:
        made = egress(replace(operation(SIGNED), requirements=frozenset({SIGN})), features)
        assert not isinstance(made, Response)
        assert made.form == "object"
        names = [child.local for child in made.stanza.elements()]
        assert carrier in names
        assert "body" not in names

    def test_what_xml_would_change_needs_the_octets_element(self) -> None:
        """XMPP-19: a program that takes e2e only cannot be handed binary; it is not made to fit."""
        sealed = replace(operation(BINARY), requirements=frozenset({SEAL}))
        made = egress(sealed, frozenset({E2E}))
        assert isinstance(made, Response)
        assert made.reason is Reason.PROTECTION
        assert not isinstance(egress(sealed, CAPABLE), Response)


def message(*words: str, thing: MimeObject | None = None, text: str = "hi") -> Element:
    children: list[Element | str] = [protection_element({Requirement(word) for word in words})]
    carrier = wrap_entity(thing.entity) if thing is not None else Element("{jabber:client}body", {}, [text])
    assert carrier is not None
    return Element(wire.MESSAGE, {"to": "bob@a.test", "id": text, "type": "chat"}, [carrier, *children])


def condition(error: Element) -> tuple[str, str]:
    found = error.find(wire.ERROR)
    assert found is not None
    return wire.error_of(found)


async def plain(world: World, jid: str, *, resume: Client | None = None) -> Client:
    """A client on a link without TLS."""
    link = world.link(tls=False)
    options = ClientOptions(Jid.parse(jid), PASSWORD, allow_plaintext=True)
    state = None if resume is None else resume.session.sm_state
    session = XmppClientSession(options, lambda: None, counting_random(b"p"), world.clock.now(), state)
    client = Client(world, link, session)
    world.clients.append(client)
    await world.settle()
    return client


def open_world() -> World:
    """A server that lets a test network in without TLS, and takes TLS from the first octet."""
    return World(has_tls=False, plaintext_from=("192.0.2.0/24",))


class TestServer:
    def test_the_server_says_that_it_keeps_requirements(self) -> None:
        async def story() -> None:
            world = await World().start()
            alice = await world.connect("alice@a.test/desk")
            answer = await alice.ask(Element(f"{{{DISCO_INFO}}}query"), "a.test")
            query = answer.find(f"{{{DISCO_INFO}}}query")
            assert query is not None
            assert PROTECTION in [feature.get("var") for feature in query.find_all(f"{{{DISCO_INFO}}}feature")]

        run(story())

    def test_tls_to_tls_is_delivered_with_its_requirement(self) -> None:
        async def story() -> None:
            world = await open_world().start()
            alice, bob = await world.connect("alice@a.test/desk"), await world.online("bob@a.test/pad")
            await alice.send(message("tls"))
            (got,) = bob.messages()
            assert read_protection(got) == {TLS}
            assert not alice.errors()

        run(story())

    def test_over_an_open_link_in_it_is_refused(self) -> None:
        async def story() -> None:
            world = await open_world().start()
            alice, bob = await plain(world, "alice@a.test/desk"), await world.online("bob@a.test/pad")
            await alice.send(message("tls"))
            (error,) = alice.errors()
            assert condition(error)[0] == "policy-violation"
            assert "did not come under TLS" in condition(error)[1]
            assert not bob.messages()

        run(story())

    def test_over_an_open_link_out_it_is_refused(self) -> None:
        async def story() -> None:
            world = await open_world().start()
            alice, bob = await world.connect("alice@a.test/desk"), await plain(world, "bob@a.test/pad")
            await bob.present()
            await alice.send(message("tls"), message("tls", text="again"))
            assert [condition(error)[0] for error in alice.errors()] == ["policy-violation"] * 2
            assert not bob.messages()
            await alice.say("bob@a.test", "open")
            assert bob.texts() == ["open"]

        run(story())

    @pytest.mark.parametrize("thing", [None, SIGNED])
    def test_an_object_that_is_not_what_it_must_be_is_refused(self, thing: MimeObject | None) -> None:
        async def story() -> None:
            world = await World().start()
            alice, bob = await world.connect("alice@a.test/desk"), await world.online("bob@a.test/pad")
            for_bob = thing and MimeObject(thing.header_block, thing.octets.replace(b"b.test", b"a.test"))
            await alice.send(message("signed" if thing is None else "encrypted", thing=for_bob))
            (error,) = alice.errors()
            assert condition(error)[0] == "policy-violation"
            assert "and is not" in condition(error)[1]
            assert not bob.messages()

        run(story())

    def test_no_copy_leaves_by_an_open_link(self) -> None:
        """A carbon is a way out too (XEP-0280)."""

        async def story() -> None:
            world = await open_world().start()
            alice, bob = await world.connect("alice@a.test/desk"), await world.online("bob@a.test/pad")
            copies = [await plain(world, "alice@a.test/old"), await world.connect("alice@a.test/new")]
            for device in copies:
                await device.ask(Element(f"{{{CARBONS}}}enable"), kind="set")
            await alice.send(message("tls"))
            assert len(bob.messages()) == 1
            assert [len(device.messages()) for device in copies] == [0, 1]

        run(story())

    def test_a_stream_under_tls_does_not_go_on_without(self) -> None:
        """What it has not acknowledged would be sent again in the clear (XEP-0198 section 5)."""

        async def story() -> None:
            world = await open_world().start()
            alice, bob = await world.online("alice@a.test/desk"), await world.online("bob@a.test/pad")
            bob.acknowledges = False
            await alice.send(message("tls", text="secret"))
            await bob.lose()
            again = await plain(world, "bob@a.test/pad", resume=bob)
            await again.present()
            assert again.link.written == b""
            assert again.session.jid is not None
            assert not again.of(Resumed)
            assert not again.messages()
            (error,) = alice.errors()
            assert condition(error)[0] == "policy-violation"

        run(story())

    def test_a_stream_under_tls_goes_on_under_tls(self) -> None:
        async def story() -> None:
            world = await open_world().start()
            bob = await world.online("bob@a.test/pad")
            await bob.lose()
            again = await world.connect("bob@a.test/pad", resume=bob.session.sm_state)
            assert again.of(Resumed)

        run(story())

    def test_a_message_over_sip_for_an_open_xmpp_link_is_refused(self) -> None:
        """SEC-30: as a sips: message arrives in the middle."""

        async def story() -> None:
            world = await open_world().start()
            bob = await plain(world, "bob@a.test/pad")
            await bob.present()
            thing = wrap(ALICE, BOB, b"hi", "text/plain", when=world.clock.when(), message_id="m")
            made = MessageOperation(ALICE, BOB, "t", thing, requirements=frozenset({TLS}))
            answer = await world.submit(made)
            assert isinstance(answer, Accepted)
            assert answer.outcome.result().reason is Reason.PROTECTION
            assert not bob.messages()

        run(story())


class TestForgedSubscriptions:
    """A presence stanza is the sender's own, or ends the stream (SEC-31 to SEC-33, X-46, X-47, N-07, T19)."""

    @pytest.mark.parametrize("kind", ["subscribe", "unsubscribe", "subscribed", "unsubscribed", "probe"])
    @pytest.mark.parametrize("claimed", ["bob@a.test", "carol@a.test/pad", "alice@x.org", "alice@a.test/other"])
    def test_in_anothers_name_it_ends_the_stream_and_reaches_nobody(self, kind: str, claimed: str) -> None:
        async def story() -> None:
            world = await World().start()
            alice, bob = await world.connect("alice@a.test/desk"), await world.online("bob@a.test/pad")
            carol = await world.online("carol@a.test/pad")
            heard = [len(bob.stanzas), len(carol.stanzas)]
            forged = Element(wire.PRESENCE, {"type": kind, "from": claimed, "to": "bob@a.test"})
            await alice.send(forged)
            (ended,) = alice.of(StreamEnded)
            assert isinstance(ended, StreamEnded)
            assert ended.condition == "invalid-from"
            assert [len(bob.stanzas), len(carol.stanzas)] == heard
            assert not await world.store.lanes()

        run(story())

    @pytest.mark.parametrize("kind", ["", "unavailable"])
    def test_presence_from_somebody_not_subscribed_to_is_no_notify(self, kind: str) -> None:
        """SEC-36."""

        async def story() -> None:
            world = await World().start()
            alice, bob = await world.online("alice@a.test/desk"), await world.online("bob@a.test/pad")
            heard = len(bob.stanzas)
            await alice.send(Element(wire.PRESENCE, {"to": "bob@a.test", **({"type": kind} if kind else {})}))
            await alice.present(5)
            assert len(bob.stanzas) == heard

        run(story())

    @pytest.mark.parametrize("kind", ["subscribe", "unsubscribe", "subscribed", "unsubscribed", "probe"])
    def test_in_her_own_name_it_changes_nothing_yet(self, kind: str) -> None:
        """N-07: unsolicited "subscribed" too. Nobody is told, nothing is stored, the stream goes on."""

        async def story() -> None:
            world = await World().start()
            alice, bob = await world.online("alice@a.test/desk"), await world.online("bob@a.test/pad")
            heard = len(bob.stanzas)
            await alice.send(Element(wire.PRESENCE, {"type": kind, "to": "bob@a.test"}))
            assert len(bob.stanzas) == heard
            assert not await world.store.lanes()
            await alice.say("bob@a.test", "still here")
            assert bob.texts() == ["still here"]

        run(story())
