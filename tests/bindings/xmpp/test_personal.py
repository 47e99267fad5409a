"""Personal eventing: bindings/xmpp/personal.py, nodes.py, pubsub.py (XEP-0163, XEP-0060, XEP-0402, XEP-0084, XEP-0384)."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.xmpp.pubsub import MAX_ITEMS, Item, Node, decode_node
from comity.bindings.xmpp.queries import verification_string
from comity.cpim.address import Address
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Decision, Documents
from comity.xml import Element
from tests.bindings.xmpp.world import Client, World, condition, read, run

USERS = ("im:juliet@example.com", "im:romeo@example.com", "im:paris@example.com")
JULIET, ROMEO, PARIS = (Address.parse(uri) for uri in USERS)
PUBSUB = "http://jabber.org/protocol/pubsub"
NICK = "<nick xmlns='http://jabber.org/protocol/nick'>Jule</nick>"
NODE = "http://jabber.org/protocol/nick"
PRIVATE = {
    "persist_items": "true",
    "max_items": "max",
    "send_last_published_item": "never",
    "access_model": "whitelist",
}


def options(values: dict[str, str], element: str = "publish-options") -> str:
    fields = "".join(f"<field var='pubsub#{name}'><value>{value}</value></field>" for name, value in values.items())
    kind = f"<field var='FORM_TYPE' type='hidden'><value>{PUBSUB}#{element.replace('configure', 'node_config')}</value></field>"
    return f"<{element}><x xmlns='jabber:x:data' type='submit'>{kind}{fields}</x></{element}>"


def publish(node: str = NODE, payload: str = NICK, id: str = "current", more: str = "") -> str:
    item = f"<item id='{id}'>{payload}</item>" if id else f"<item>{payload}</item>"
    return f"<pubsub xmlns='{PUBSUB}'><publish node='{node}'>{item}</publish>{more}</pubsub>"


def items(node: str = NODE, inner: str = "", attributes: str = "") -> str:
    return f"<pubsub xmlns='{PUBSUB}'><items node='{node}'{attributes}>{inner}</items></pubsub>"


def owner(inner: str) -> str:
    return f"<pubsub xmlns='{PUBSUB}#owner'>{inner}</pubsub>"


async def ask(client: Client, kind: str, inner: str, to: str = "") -> Element:
    """Send an iq; its answer."""
    before = len(client.stanzas)
    address = f" to='{to}'" if to else ""
    await client.tell(f"<iq id='q{before}' type='{kind}'{address}>{inner}</iq>")
    return next(s for s in client.stanzas[before:] if s.get("id") == f"q{before}")


async def does(client: Client, inner: str, to: str = "") -> Element:
    """A set that succeeds."""
    answer = await ask(client, "set", inner, to)
    assert answer.get("type") == "result", answer
    return answer


def found(answer: Element) -> list[tuple[str, str]]:
    """(id, text of the payload) of every item in an answer."""
    assert answer.get("type") == "result", answer
    (around,) = answer.elements()
    (list_,) = around.elements()
    return [(item.get("id"), next(item.elements()).text) for item in list_.elements()]


def events(client: Client) -> list[str]:
    """What a device was told of nodes since the last time, in words."""
    told = []
    for stanza in client.take():
        event = stanza.find(f"{{{PUBSUB}#event}}event")
        if event is None:
            continue
        (inside,) = event.elements()
        for what in inside.elements():
            text = "".join(child.text for child in what.elements())
            told.append(
                f"{stanza.get('from')} {inside.get('node').rpartition('/')[2]} {what.local} {what.get('id')} {text}".strip()
            )
        if not inside.children:
            told.append(f"{stanza.get('from')} {inside.get('node').rpartition('/')[2]} {inside.local}")
    return told


async def curious(world: World, jid: str, *nodes: str) -> Client:
    """An available device whose capabilities ask to be told of ``nodes``."""
    return await knowing(world, jid, *(f"{node}+notify" for node in nodes))


async def knowing(world: World, jid: str, *features: str) -> Client:
    """An available device with these features."""
    client = await world.connect(jid)
    query = Element("{http://jabber.org/protocol/disco#info}query")
    query.children += [Element("{http://jabber.org/protocol/disco#info}feature", {"var": name}) for name in features]
    text = verification_string(query)
    assert text is not None
    ver = base64.b64encode(hashlib.sha1(text.encode(), usedforsecurity=False).digest()).decode()
    await client.present(0, Element("{http://jabber.org/protocol/caps}c", {"hash": "sha-1", "node": "x", "ver": ver}))
    asked = [s for s in client.stanzas if s.find("{http://jabber.org/protocol/disco#info}query") is not None]
    if asked:
        result = {"type": "result", "id": asked[-1].get("id"), "to": asked[-1].get("from")}
        await client.send(Element("{jabber:client}iq", result, [query]))
    return client


async def lets_see(world: World, account: Address, watcher: Address) -> None:
    """``account`` lets ``watcher`` see it, and ``watcher`` has it in the list."""
    origin = Origin(watcher, "xmpp", "192.0.2.1", True)
    await world.presence.contacts.put(watcher, account, "", (), origin)
    asker = await world.connect(f"{watcher.local}@{watcher.domain}/asker")
    await asker.tell(f"<presence type='subscribe' to='{account.local}@{account.domain}'/>")
    await world.presence.answer(account, watcher, Decision.ALLOWED, Origin(account, "xmpp", "192.0.2.1", True))
    await asker.lose()
    await world.settle()


async def start() -> World:
    return await World(presence=True, users=USERS).start()


class TestOwnNodes:
    def test_what_one_device_publishes_another_retrieves(self) -> None:
        async def story() -> None:
            world = await start()
            desk, phone = (
                await world.connect("juliet@example.com/desk"),
                await world.connect("juliet@example.com/phone"),
            )
            answer = await does(desk, publish())
            (around,) = answer.elements()
            assert around == read(
                f"<pubsub xmlns='{PUBSUB}'><publish node='{NODE}'><item id='current'/></publish></pubsub>"
            )
            assert found(await ask(phone, "get", items())) == [("current", "Jule")]
            assert found(await ask(phone, "get", items(), "juliet@example.com")) == [("current", "Jule")]

        run(story())

    def test_the_payload_comes_back_as_it_was(self) -> None:
        payload = "<a xmlns='urn:a' x='1'>t<b xmlns='urn:b'/>&amp;<c xml:lang='de'>ü</c></a>"

        async def story() -> None:
            world = await start()
            desk = await world.connect("juliet@example.com/desk")
            await does(desk, publish("urn:a", payload))
            answer = await ask(desk, "get", items("urn:a"))
            (item,) = next(next(answer.elements()).elements()).elements()
            assert list(item.elements()) == [read(payload)]

        run(story())

    def test_only_the_last_item_is_kept_unless_the_node_keeps_more(self) -> None:
        async def story() -> None:
            world = await start()
            desk = await world.connect("juliet@example.com/desk")
            for n in range(3):
                await does(desk, publish(payload=NICK.replace("Jule", str(n)), id=str(n)))
                await does(desk, publish("bookmarks", NICK.replace("Jule", str(n)), str(n), options(PRIVATE)))
            assert found(await ask(desk, "get", items())) == [("2", "2")]
            assert found(await ask(desk, "get", items("bookmarks"))) == [("0", "0"), ("1", "1"), ("2", "2")]
            assert found(await ask(desk, "get", items("bookmarks", attributes=" max_items='2'"))) == [
                ("1", "1"),
                ("2", "2"),
            ]
            assert found(await ask(desk, "get", items("bookmarks", "<item id='1'/>"))) == [("1", "1")]
            await does(desk, f"<pubsub xmlns='{PUBSUB}'><retract node='bookmarks'><item id='1'/></retract></pubsub>")
            assert found(await ask(desk, "get", items("bookmarks"))) == [("0", "0"), ("2", "2")]
            await does(desk, publish("bookmarks", NICK, "0"))
            assert found(await ask(desk, "get", items("bookmarks"))) == [("2", "2"), ("0", "Jule")]

        run(story())

    def test_an_item_without_an_id_gets_one(self) -> None:
        async def story() -> None:
            world = await start()
            desk = await world.connect("juliet@example.com/desk")
            await does(desk, publish(id=""))
            ((id, text),) = found(await ask(desk, "get", items()))
            assert id
            assert text == "Jule"

        run(story())

    def test_it_survives_a_restart(self) -> None:
        async def story() -> None:
            world = await start()
            desk = await world.connect("juliet@example.com/desk")
            await does(desk, publish("bookmarks", NICK, "room", options(PRIVATE)))
            again = await World(presence=True, users=USERS, former=world).start()
            desk = await again.connect("juliet@example.com/desk")
            assert found(await ask(desk, "get", items("bookmarks"))) == [("room", "Jule")]
            assert condition(
                await ask(desk, "set", publish("bookmarks", NICK, "x", options({"access_model": "open"})))
            ) == ("conflict")

        run(story())

    def test_two_devices_at_once_lose_nothing(self) -> None:
        async def story() -> None:
            world = await start()
            devices = [await world.connect(f"juliet@example.com/{n}") for n in range(4)]
            await does(
                devices[0], f"<pubsub xmlns='{PUBSUB}'><create node='b'/>{options(PRIVATE, 'configure')}</pubsub>"
            )
            for n, device in enumerate(devices):
                device.session.send_stanza(read(f"<iq id='p{n}' type='set'>{publish('b', NICK, str(n))}</iq>"))
            await world.settle()
            assert sorted(id for id, _ in found(await ask(devices[0], "get", items("b")))) == ["0", "1", "2", "3"]

        run(story())


class TestConfiguration:
    def test_a_node_is_made_configured_emptied_and_deleted(self) -> None:
        async def story() -> None:
            world = await start()
            desk = await world.connect("juliet@example.com/desk")
            await does(
                desk,
                f"<pubsub xmlns='{PUBSUB}'><create node='n'/>{options({'access_model': 'open'}, 'configure')}</pubsub>",
            )
            assert (
                condition(await ask(desk, "set", f"<pubsub xmlns='{PUBSUB}'><create node='n'/></pubsub>")) == "conflict"
            )
            form = await ask(desk, "get", owner("<configure node='n'/>"))
            assert fields(form)["pubsub#access_model"] == "open"
            await does(desk, publish("n"))
            submitted = options({"access_model": "whitelist", "max_items": "7"}, "configure")
            await does(desk, owner(submitted.replace("<configure>", "<configure node='n'>")))
            changed = fields(await ask(desk, "get", owner("<configure node='n'/>")))
            assert (changed["pubsub#access_model"], changed["pubsub#max_items"]) == ("whitelist", "7")
            await does(desk, owner("<purge node='n'/>"))
            assert found(await ask(desk, "get", items("n"))) == []
            await does(desk, owner("<delete node='n'/>"))
            assert condition(await ask(desk, "get", items("n"))) == "item-not-found"
            assert condition(await ask(desk, "set", owner("<delete node='n'/>"))) == "item-not-found"

        run(story())

    def test_options_are_conditions_on_a_node_that_is_there(self) -> None:
        """XEP-0060 section 7.1.5; what clients rely on to keep bookmarks private (XEP-0223)."""

        async def story() -> None:
            world = await start()
            desk = await world.connect("juliet@example.com/desk")
            await does(desk, publish("b"))
            answer = await ask(desk, "set", publish("b", NICK, "2", options(PRIVATE)))
            assert condition(answer) == "conflict"
            error = answer.find("{jabber:client}error")
            assert error is not None
            assert error.find(f"{{{PUBSUB}#errors}}precondition-not-met") is not None
            assert found(await ask(desk, "get", items("b"))) == [("current", "Jule")]
            await does(desk, publish("b", NICK, "2", options({"access_model": "presence", "max_items": "1"})))

        run(story())

    @pytest.mark.parametrize(
        "values", [{"access_model": "authorize"}, {"max_items": "0"}, {"max_items": "-1"}, {"publish_model": "open"}]
    )
    def test_what_nodes_here_cannot_be_is_refused(self, values: dict[str, str]) -> None:
        async def story() -> None:
            world = await start()
            desk = await world.connect("juliet@example.com/desk")
            assert condition(await ask(desk, "set", publish("b", NICK, "2", options(values)))) == "conflict"
            create = f"<pubsub xmlns='{PUBSUB}'><create node='b'/>{options(values, 'configure')}</pubsub>"
            assert condition(await ask(desk, "set", create)) == "not-acceptable"
            assert condition(await ask(desk, "get", items("b"))) == "item-not-found"

        run(story())

    def test_the_default_configuration_is_told(self) -> None:
        async def story() -> None:
            world = await start()
            desk = await world.connect("juliet@example.com/desk")
            assert fields(await ask(desk, "get", owner("<default/>")))["pubsub#access_model"] == "presence"

        run(story())

    def test_nothing_is_kept_of_a_node_that_keeps_no_items(self) -> None:
        async def story() -> None:
            world = await start()
            desk = await curious(world, "juliet@example.com/desk", "tune")
            await does(desk, publish("tune", NICK, "1", options({"persist_items": "0"})))
            assert events(desk) == ["juliet@example.com tune item 1 Jule"]
            assert found(await ask(desk, "get", items("tune"))) == []

        run(story())


def fields(answer: Element) -> dict[str, str]:
    assert answer.get("type") == "result", answer
    (around,) = answer.elements()
    (inner,) = around.elements()
    form = inner.find("{jabber:x:data}x")
    assert form is not None
    return {field.get("var"): next(field.elements()).text for field in form.elements()}


class TestBadRequests:
    @pytest.mark.parametrize(
        ("inner", "expected"),
        [
            (f"<pubsub xmlns='{PUBSUB}'/>", "bad-request"),
            (f"<pubsub xmlns='{PUBSUB}'><publish><item id='1'>{NICK}</item></publish></pubsub>", "bad-request"),
            (f"<pubsub xmlns='{PUBSUB}'><publish node='n'/></pubsub>", "bad-request"),
            (f"<pubsub xmlns='{PUBSUB}'><publish node='n'><item id='1'/></publish></pubsub>", "bad-request"),
            (publish("n", NICK + NICK), "bad-request"),
            (publish("n", NICK, "x" * 1001), "bad-request"),
            (publish("n" * 1001), "not-acceptable"),
            (publish("a&#9;b"), "not-acceptable"),
            (f"<pubsub xmlns='{PUBSUB}'><retract node='n'/></pubsub>", "bad-request"),
            (f"<pubsub xmlns='{PUBSUB}'><retract node='n'><item id='1'/></retract></pubsub>", "item-not-found"),
            (
                f"<pubsub xmlns='{PUBSUB}'><subscribe node='n' jid='juliet@example.com'/></pubsub>",
                "feature-not-implemented",
            ),
            (owner("<purge node='n'/>"), "item-not-found"),
            (owner("<configure node='n'/>"), "item-not-found"),
            (owner("<affiliations node='n'/>"), "feature-not-implemented"),
        ],
    )
    def test_each_gets_its_error(self, inner: str, expected: str) -> None:
        async def story() -> None:
            world = await start()
            desk = await world.connect("juliet@example.com/desk")
            assert condition(await ask(desk, "set", inner)) == expected

        run(story())

    def test_without_presence_there_is_nothing(self) -> None:
        """SEED-45."""

        async def story() -> None:
            world = await World(users=USERS).start()
            desk = await world.connect("juliet@example.com/desk")
            assert condition(await ask(desk, "set", publish())) == "service-unavailable"
            assert condition(await ask(desk, "get", "<vCard xmlns='vcard-temp'/>")) == "item-not-found"

        run(story())


class TestLimits:
    """Kin of reliability.md section 2.9: what fills the store."""

    def test_an_oversized_item_is_refused_and_the_last_one_stands(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS, user_octets=1_000_000_000).start()
            desk = await world.connect("juliet@example.com/desk")
            await does(desk, publish())
            big = NICK.replace("Jule", "x" * 250_000)
            for n in range(3):
                answer = await ask(desk, "set", publish("b", big, str(n), options({"max_items": "max"})))
            assert condition(answer) == "not-acceptable"
            error = answer.find("{jabber:client}error")
            assert error is not None
            assert error.find(f"{{{PUBSUB}#errors}}payload-too-big") is not None
            for id, kept in (("1", ["1"]), ("2", [])):
                answer = await ask(desk, "get", items("b", f"<item id='{id}'/>"))
                assert [id for id, _ in found(answer)] == kept
            assert found(await ask(desk, "get", items())) == [("current", "Jule")]

        run(story())

    def test_ten_thousand_nodes_are_too_many(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS, user_stanzas=1_000_000, user_octets=1_000_000_000).start()
            desk = await world.connect("juliet@example.com/desk")
            for n in range(0, 10_000, 200):
                await desk.tell(*(f"<iq id='n{i}' type='set'>{publish(f'n{i}')}</iq>" for i in range(n, n + 200)))
            answers = [s.get("type") for s in desk.stanzas if s.get("id").startswith("n")]
            assert len(answers) == 10_000
            kept = await world.presence.documents.names(JULIET, "pep/")
            assert answers.count("result") == len(kept) <= 200

        run(story())


class TestOthers:
    async def _with_nodes(self) -> tuple[World, Client, Client]:
        world = await start()
        await lets_see(world, JULIET, ROMEO)
        desk = await world.connect("juliet@example.com/desk")
        for access in ("open", "presence", "whitelist"):
            await does(desk, publish(access, NICK, "1", options({"access_model": access})))
        return world, await world.connect("romeo@example.com/x"), await world.connect("paris@example.com/x")

    def test_who_may_see_presence_sees_the_nodes_that_are_for_them(self) -> None:
        async def story() -> None:
            _, romeo, _ = await self._with_nodes()
            for node in ("open", "presence"):
                assert found(await ask(romeo, "get", items(node), "juliet@example.com")) == [("1", "Jule")]
            answer = await ask(romeo, "get", items("whitelist"), "juliet@example.com")
            assert condition(answer) == "not-allowed"
            assert condition(await ask(romeo, "get", items("none"), "juliet@example.com")) == "item-not-found"

        run(story())

    def test_a_stranger_learns_nothing_but_what_is_open(self) -> None:
        """XMPP-8: private nodes, missing ones and users nobody knows look alike."""

        async def story() -> None:
            _, _, paris = await self._with_nodes()
            assert found(await ask(paris, "get", items("open"), "juliet@example.com")) == [("1", "Jule")]
            answers = [
                await ask(paris, "get", items(node), f"{user}@example.com")
                for node, user in [
                    *(("presence", "juliet"), ("whitelist", "juliet"), ("none", "juliet")),
                    *(("open", "nobody"), ("open", "romeo")),
                ]
            ]
            assert {condition(answer) for answer in answers} == {"service-unavailable"}
            assert len({str(list(answer.elements())) for answer in answers}) == 1

        run(story())

    def test_nobody_changes_the_nodes_of_others(self) -> None:
        async def story() -> None:
            world, romeo, paris = await self._with_nodes()
            for client in (romeo, paris):
                for user in ("juliet", "nobody"):
                    for inner in (publish("open"), owner("<delete node='open'/>"), owner("<purge node='open'/>")):
                        assert condition(await ask(client, "set", inner, f"{user}@example.com")) == "forbidden"
                assert condition(await ask(client, "get", owner("<configure node='open'/>"), "juliet@example.com")) == (
                    "forbidden"
                )
            assert found(await ask(romeo, "get", items("open"), "juliet@example.com")) == [("1", "Jule")]
            assert await world.presence.documents.names(PARIS) == []

        run(story())

    def test_who_is_blocked_gets_what_nobody_would_get(self) -> None:
        async def story() -> None:
            world, romeo, _ = await self._with_nodes()
            await world.presence.contacts.block(JULIET, [ROMEO], Origin(JULIET, "xmpp", "192.0.2.1", True))
            for node in ("open", "presence"):
                answer = await ask(romeo, "get", items(node), "juliet@example.com")
                assert condition(answer) == "service-unavailable"

        run(story())

    def test_who_is_blocked_politely_sees_no_more_than_a_stranger(self) -> None:
        async def story() -> None:
            world, romeo, _ = await self._with_nodes()
            await world.presence.answer(JULIET, ROMEO, Decision.POLITE, Origin(JULIET, "xmpp", "192.0.2.1", True))
            answer = await ask(romeo, "get", items("presence"), "juliet@example.com")
            assert condition(answer) == "service-unavailable"

        run(story())


class TestEvents:
    def test_own_devices_that_asked_are_told(self) -> None:
        async def story() -> None:
            world = await start()
            desk = await curious(world, "juliet@example.com/desk", NODE)
            phone = await curious(world, "juliet@example.com/phone", NODE, "other")
            deaf = await world.online("juliet@example.com/deaf")
            await does(desk, publish())
            assert events(desk) == events(phone) == ["juliet@example.com nick item current Jule"]
            assert events(deaf) == []
            await does(desk, f"<pubsub xmlns='{PUBSUB}'><retract node='{NODE}'><item id='current'/></retract></pubsub>")
            assert events(phone) == ["juliet@example.com nick retract current"]
            await does(desk, owner(f"<purge node='{NODE}'/>"))
            await does(desk, owner(f"<delete node='{NODE}'/>"))
            assert events(phone) == ["juliet@example.com nick purge", "juliet@example.com nick delete"]

        run(story())

    def test_an_event_is_a_headline_of_the_account(self) -> None:
        """XEP-0163 section 4.3.1."""

        async def story() -> None:
            world = await start()
            desk = await curious(world, "juliet@example.com/desk", NODE)
            await does(desk, publish())
            (stanza,) = [s for s in desk.take() if s.local == "message"]
            assert (stanza.get("from"), stanza.get("to"), stanza.get("type")) == (
                "juliet@example.com",
                "juliet@example.com/desk",
                "headline",
            )

        run(story())

    def test_contacts_who_may_see_are_told_and_no_others(self) -> None:
        async def story() -> None:
            world = await start()
            await lets_see(world, JULIET, ROMEO)
            romeo = await curious(world, "romeo@example.com/x", NODE, "secret")
            paris = await curious(world, "paris@example.com/x", NODE)
            desk = await world.online("juliet@example.com/desk")
            events(romeo)
            await does(desk, publish())
            await does(desk, publish("secret", NICK, "1", options(PRIVATE)))
            assert events(romeo) == ["juliet@example.com nick item current Jule"]
            assert events(paris) == []
            await world.presence.answer(JULIET, ROMEO, Decision.POLITE, Origin(JULIET, "xmpp", "192.0.2.1", True))
            await does(desk, publish(payload=NICK.replace("Jule", "J")))
            assert events(romeo) == []

        run(story())

    def test_who_comes_later_is_shown_the_last_items(self) -> None:
        async def story() -> None:
            world = await start()
            await lets_see(world, JULIET, ROMEO)
            desk = await world.connect("juliet@example.com/desk")
            await does(desk, publish())
            await does(desk, publish("quiet", NICK, "1", options({"send_last_published_item": "never"})))
            await does(desk, publish("secret", NICK, "1", options({"access_model": "whitelist"})))
            romeo = await curious(world, "romeo@example.com/x", NODE, "quiet", "secret")
            assert events(romeo) == ["juliet@example.com nick item current Jule"]
            phone = await curious(world, "juliet@example.com/phone", NODE, "quiet", "secret")
            assert sorted(events(phone)) == [
                "juliet@example.com nick item current Jule",
                "juliet@example.com secret item 1 Jule",
            ]
            paris = await curious(world, "paris@example.com/x", NODE)
            assert events(paris) == []

        run(story())

    def test_who_is_let_in_is_shown_the_last_items_at_once(self) -> None:
        async def story() -> None:
            world = await start()
            desk = await world.online("juliet@example.com/desk")
            await does(desk, publish())
            await does(desk, publish("secret", NICK, "1", options(PRIVATE)))
            romeo = await curious(world, "romeo@example.com/x", NODE, "secret")
            await romeo.tell("<presence type='subscribe' to='juliet@example.com'/>")
            assert events(romeo) == []
            await desk.tell("<presence type='subscribed' to='romeo@example.com'/>")
            assert events(romeo) == ["juliet@example.com nick item current Jule"]

        run(story())

    def test_a_device_whose_capabilities_grow_is_shown_what_is_new(self) -> None:
        async def story() -> None:
            world = await start()
            desk = await world.connect("juliet@example.com/desk")
            await does(desk, publish("a", NICK, "1"))
            await does(desk, publish("b", NICK, "1"))
            phone = await curious(world, "juliet@example.com/phone", "a")
            assert events(phone) == ["juliet@example.com a item 1 Jule"]
            await announce(phone, "a", "b")
            assert events(phone) == ["juliet@example.com b item 1 Jule"]

        run(story())

    def test_of_ten_thousand_wishes_few_are_kept(self) -> None:
        """What a device claims is kept as long as it is there, and its hash longer: bounded (X-66)."""

        async def story() -> None:
            world = await start()
            wishes = [f"n{n:04}" for n in range(3000)]
            desk = await curious(world, "juliet@example.com/desk", *wishes, "x" * 1000)
            (device,) = world.binding._ground.devices.available(JULIET)  # kept nowhere else
            assert device.features == frozenset(f"n{n:04}+notify" for n in range(64))
            await does(desk, publish("n0063"))
            await does(desk, publish("n0064"))
            assert events(desk) == ["juliet@example.com n0063 item current Jule"]

        run(story())

    def test_a_stream_that_is_resumed_has_missed_nothing(self) -> None:
        async def story() -> None:
            world = await start()
            phone = await curious(world, "juliet@example.com/phone", NODE)
            desk = await world.connect("juliet@example.com/desk")
            state = phone.session.sm_state
            await phone.lose()
            await does(desk, publish())
            again = await world.connect("juliet@example.com/phone", resume=state)
            assert events(again) == ["juliet@example.com nick item current Jule"]

        run(story())


async def announce(client: Client, *nodes: str) -> None:
    query = Element("{http://jabber.org/protocol/disco#info}query")
    query.children += [
        Element("{http://jabber.org/protocol/disco#info}feature", {"var": f"{node}+notify"}) for node in nodes
    ]
    caps = {"hash": "sha-1", "node": "https://x.test", "ver": "-".join(nodes)}
    before = len(client.stanzas)
    await client.present(0, Element("{http://jabber.org/protocol/caps}c", caps))
    (asked,) = [s for s in client.stanzas[before:] if s.local == "iq"]
    result = {"type": "result", "id": asked.get("id"), "to": asked.get("from")}
    await client.send(Element("{jabber:client}iq", result, [query]))


class TestDiscovery:
    INFO, ITEMS = (f"<query xmlns='http://jabber.org/protocol/disco#{name}'/>" for name in ("info", "items"))

    def test_an_account_says_that_it_has_nodes(self) -> None:
        """XEP-0163 section 6.1: what clients look at before they keep anything here."""

        async def story() -> None:
            world = await start()
            desk = await world.connect("juliet@example.com/desk")
            (query,) = (await ask(desk, "get", self.INFO, "juliet@example.com")).elements()
            identities = {(e.get("category"), e.get("type")) for e in query.elements() if e.local == "identity"}
            features = {e.get("var") for e in query.elements() if e.local == "feature"}
            assert identities == {("account", "registered"), ("pubsub", "pep")}
            wanted = {"publish", "publish-options", "persistent-items", "auto-create", "multi-items", "config-node-max"}
            assert {f"{PUBSUB}#{name}" for name in wanted} | {"vcard-temp", "jabber:iq:private"} <= features

        run(story())

    def test_nodes_are_listed_for_who_may_see_them(self) -> None:
        async def story() -> None:
            world = await start()
            await lets_see(world, JULIET, ROMEO)
            desk, romeo = await world.connect("juliet@example.com/desk"), await world.connect("romeo@example.com/x")
            paris = await world.connect("paris@example.com/x")
            await does(desk, publish("a"))
            await does(desk, publish("b", NICK, "1", options(PRIVATE)))
            assert nodes(await ask(desk, "get", self.ITEMS)) == ["a", "b"]
            assert nodes(await ask(romeo, "get", self.ITEMS, "juliet@example.com")) == ["a"]
            for query in (self.INFO, self.ITEMS):
                answers = [condition(await ask(paris, "get", query, f"{u}@example.com")) for u in ("juliet", "nobody")]
                assert answers == ["service-unavailable"] * 2
            info = await ask(romeo, "get", self.INFO.replace("/>", " node='a'/>"), "juliet@example.com")
            assert [e.get("type") for e in next(info.elements()).elements() if e.local == "identity"] == ["leaf"]
            assert condition(await ask(romeo, "get", self.INFO.replace("/>", " node='b'/>"), "juliet@example.com")) == (
                "not-allowed"
            )

        run(story())

    def test_a_contacts_device_answers_for_itself(self) -> None:
        """Entity capabilities pass through: what a device announces others ask it for (XEP-0115)."""

        async def story() -> None:
            world = await start()
            await lets_see(world, JULIET, ROMEO)
            romeo = await world.online("romeo@example.com/x")
            desk = await world.connect("juliet@example.com/desk")
            caps = read("<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://x.test' ver='abc='/>")
            await desk.present(0, caps)
            seen = [s for s in romeo.take() if s.get("from") == "juliet@example.com/desk"]
            assert [s.find("{http://jabber.org/protocol/caps}c") for s in seen] == [caps]
            query = self.INFO.replace("/>", " node='https://x.test#abc='/>")
            await romeo.tell(f"<iq id='d1' type='get' to='juliet@example.com/desk'>{query}</iq>")
            (asked,) = [s for s in desk.take() if s.get("id") == "d1"]
            assert (asked.get("from"), list(asked.elements())) == ("romeo@example.com/x", [read(query)])

        run(story())


def nodes(answer: Element) -> list[str]:
    (query,) = answer.elements()
    return [item.get("node") for item in query.elements()]


class TestStorage:
    @given(
        st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=5, unique_by=lambda pair: pair[0]),
        st.sampled_from(["open", "presence", "whitelist"]),
    )
    def test_a_node_comes_back_as_it_was(self, pairs: list[tuple[str, str]], access: str) -> None:
        node = Node("n").configured({"access_model": access, "max_items": str(MAX_ITEMS)})
        for id, text in pairs:
            node = node.with_item(Item(id, text))
        assert decode_node("n", node.encode()) == node

    @pytest.mark.parametrize("octets", [b"", b"{}", b"[1, 2, 3]", b"\xff", b'[{"max_items": "0"}, []]'])
    def test_what_is_no_node_is_not_taken_for_one(self, octets: bytes) -> None:
        with pytest.raises(ValueError, match="a node cannot be read"):
            decode_node("n", octets)


def test_the_seam_is_what_the_server_keeps() -> None:
    """Nodes stand in the account's documents, where the operator and the API see them."""

    async def story() -> None:
        world = await start()
        documents: Documents = world.presence.documents
        desk = await world.connect("juliet@example.com/desk")
        await does(desk, publish("urn:xmpp:vcard4", "<vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'/>"))
        assert list(await documents.names(JULIET)) == ["pep/urn:xmpp:vcard4"]

    run(story())
