"""Requests carried out: ``comity.xcap.resources``; RFC 4825 section 8."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import Response
from comity.cpim.presence_rules import SubHandling
from comity.cpim.watchers import SubscriptionState
from comity.errors import StoreError
from comity.service.interfaces import Op, Put, Result
from comity.service.presence.interfaces import ContactItem, Decision, Granted
from comity.store.memory import MemoryStore
from comity.xcap.exchange import Answer
from comity.xcap.services import is_person
from tests.loop import in_loop
from tests.xcap.house import ALICE, ATTRIBUTE, BOB, CAROL, ELEMENT, House, lists, path

CONFORMANCE = Path(__file__).parent.parent / "conformance"
LISTS = path("resource-lists")
RULES = path("pres-rules")
PIDF = path("pidf-manipulation")


def printed(name: str) -> bytes:
    return (CONFORMANCE / name).read_bytes()


def rules(who: str, handling: str = "allow") -> bytes:
    return (
        "<ruleset xmlns='urn:ietf:params:xml:ns:common-policy' xmlns:pr='urn:ietf:params:xml:ns:pres-rules'>"
        f"<rule id='a'><conditions><identity><one id='sip:{who}'/></identity></conditions>"
        f"<actions><pr:sub-handling>{handling}</pr:sub-handling></actions>"
        "<transformations><pr:provide-all-attributes/></transformations></rule></ruleset>"
    ).encode()


def presence(note: str, basic: str = "open", when: str = "") -> bytes:
    stamp = f"<timestamp>{when}</timestamp>" if when else ""
    return (
        "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='sip:alice@a.test'><tuple id='t1'>"
        f"<status><basic>{basic}</basic></status><note>{note}</note>{stamp}</tuple></presence>"
    ).encode()


def condition(answer: Answer) -> str:
    """The error element of a conflict report."""
    assert answer.status == 409
    assert answer.headers["Content-Type"] == "application/xcap-error+xml"
    return answer.body.partition(b"xcap-error'><")[2].partition(b" ")[0].decode()


class TestExamples:
    @in_loop
    async def test_bill_edits_his_list(self) -> None:
        """The session printed in RFC 4825 section 13."""
        house = await House().start()
        created = await house.ask("PUT", LISTS, printed("rfc4825/13-new.xml"))
        assert created.status == 201
        entry = b'<entry uri="sip:bob@example.com">\n    <display-name>Bob Jones</display-name>\n  </entry>'
        friends = 'resource-lists/list[@name="friends"]'
        added = await house.ask("PUT", path("resource-lists", node=f"{friends}/entry"), entry)
        assert (added.status, added.body) == (201, b"")
        fetched = await house.ask("GET", LISTS)
        assert (fetched.status, fetched.headers["Content-Type"]) == (200, "application/resource-lists+xml")
        assert fetched.body == printed("rfc4825/13-fetched.xml")
        assert fetched.headers["ETag"] == added.headers["ETag"] != created.headers["ETag"]
        close = (
            b'<list name="close-friends">\n    <entry uri="sip:joe@example.com">\n      <display-name>Joe Smith</display-name>\n'
            b'    </entry>\n    <entry uri="sip:nancy@example.com">\n      <display-name>Nancy Gross</display-name>\n    </entry>\n'
            b'    <entry uri="sip:petri@example.com">\n      <display-name>Petri Aukia</display-name>\n    </entry>\n</list>'
        )
        node = f'{friends}/list[@name="close-friends"]'
        assert (await house.ask("PUT", path("resource-lists", node=node), close)).status == 201
        petri = 'resource-lists/list/list/entry[@uri="sip:petri@example.com"]'
        deleted = await house.ask("DELETE", path("resource-lists", node=petri))
        assert deleted.status == 200
        nancy = await house.ask("GET", path("resource-lists", node="resource-lists/list/list/entry[2]/@uri"))
        assert (nancy.headers["Content-Type"], nancy.body) == (ATTRIBUTE, b'"sip:nancy@example.com"')
        assert nancy.headers["ETag"] == deleted.headers["ETag"]
        assert await house.contacts() == {
            "bob": ("Bob Jones", ("friends",)),
            "joe": ("Joe Smith", ("close-friends",)),
            "nancy": ("Nancy Gross", ("close-friends",)),
        }

    @in_loop
    async def test_presence_that_stays(self) -> None:
        """The session printed in RFC 4827 section 11; there it is seen by who may see it."""
        house = await House().start()
        await house.presence.answer(ALICE, BOB, Decision.ALLOWED, house.origin(ALICE))
        await house.watch(BOB, ALICE)
        document = printed("rfc4827/11.xml").replace(b'someone@example.com"', b'alice@a.test"')
        assert (await house.ask("PUT", PIDF, document)).status == 201
        node = "presence/tuple[@id='x8eg92n']/note"
        note = b"<note>I'm reading mails on Tuesdays and Fridays</note>"
        etag = (await house.ask("GET", PIDF)).headers["ETag"]
        changed = await house.ask("PUT", path("pidf-manipulation", node=node), note, if_match=etag)
        assert changed.status == 200
        stale = await house.ask("PUT", path("pidf-manipulation", node=node), note, if_match=etag)
        assert stale.status == 412
        contents = [told.content for told in house.edge.take() if told.content is not None]
        assert contents[-1] is not None
        assert contents[-1].document is not None
        assert sorted(note.text for one in contents[-1].document.tuples for note in one.notes) == [
            *("I'm available only by e-mail.", "I'm reading mails on Tuesdays and Fridays"),
        ]

    @in_loop
    async def test_the_services_of_rfc_4826_may_be_kept(self) -> None:
        house = await House().start()
        document = printed("rfc4826/4.3.xml").replace(b"@example.com", b"@a.test").replace(b"joe@", b"alice@")
        services = path("rls-services")
        assert (await house.ask("PUT", services, document)).status == 201
        assert (await house.ask("GET", services)).body == document
        taken = document.replace(b"mybuddies", b"bob")
        refused = await house.ask("PUT", services, taken)
        assert condition(refused) == "uniqueness-failure"
        elsewhere = document.replace(b"mybuddies@a.test", b"mybuddies@b.test")
        assert condition(await house.ask("PUT", services, elsewhere)) == "constraint-failure"


class TestRules:
    @in_loop
    async def test_rules_act_at_once_and_bad_ones_leave_the_good_ones(self) -> None:
        """ACL-20, RFC 5025 section 9."""
        house = await House().start()
        granted = await house.watch(BOB, ALICE)
        assert isinstance(granted, Granted)
        states = [granted.subscription.state]
        assert (await house.ask("PUT", RULES, rules("bob@a.test"))).status == 201
        states.append(granted.subscription.state)
        bad = await house.ask("PUT", RULES, rules("bob@a.test", "maybe"))
        assert condition(bad) == "schema-validation-error"
        assert condition(await house.ask("PUT", RULES, rules("bob@a.test")[:-3])) == "not-well-formed"
        states.append(granted.subscription.state)
        assert (await house.ask("GET", RULES)).body == rules("bob@a.test")
        handling = "cr:ruleset/cr:rule[@id='a']/cr:actions/sub-handling"
        query = "?xmlns(cr=urn:ietf:params:xml:ns:common-policy)"
        body = b"<pr:sub-handling>polite-block</pr:sub-handling>"
        changed = await house.ask("PUT", path("pres-rules", node=handling) + query, body)
        assert changed.status == 200
        await house.keeping.access.load(ALICE)
        now = house.keeping.access.grant(ALICE, BOB, house.clock.when())
        assert now.sub_handling is SubHandling.POLITE_BLOCK
        assert (await house.ask("DELETE", RULES)).status == 200
        states.append(granted.subscription.state)
        pending, active = SubscriptionState.PENDING, SubscriptionState.ACTIVE
        assert states == [pending, active, active, pending]
        assert (await house.ask("GET", RULES)).status == 404

    @in_loop
    async def test_both_names_of_the_usage_are_one_document(self) -> None:
        house = await House().start()
        assert (await house.ask("PUT", RULES, rules("bob@a.test"))).status == 201
        for document in ("index", "pres-rules"):
            raw = path("org.openmobilealliance.pres-rules", document=document)
            assert (await house.ask("GET", raw)).body == rules("bob@a.test")


class TestWhose:
    @in_loop
    async def test_only_ones_own_tree_is_open(self) -> None:
        """ACL-20: other user reads rules: denied; whether there is such a user or document does not show."""
        house = await House().start()
        await house.ask("PUT", RULES, rules("bob@a.test"))
        for name in ("alice", "carol", "nobody"):
            for method in ("GET", "PUT", "DELETE"):
                answer = await house.ask(method, path("pres-rules", name), rules("x@a.test"), user=BOB)
                assert (answer.status, answer.body) == (403, b"Documents belong to their account.\n")

    @in_loop
    async def test_the_global_tree_holds_the_capabilities_only(self) -> None:
        """RFC 4825 section 12, RFC 4826 section 4.4.9."""
        house = await House().start()
        caps = await house.ask("GET", "/xcap-caps/global/index")
        assert (caps.status, caps.headers["Content-Type"]) == (200, "application/xcap-caps+xml")
        part = await house.ask("GET", "/xcap-caps/global/index/~~/xcap-caps/auids/auid%5b1%5d")
        assert part.body == b"<auid>xcap-caps</auid>"
        again = await house.ask("GET", "/xcap-caps/global/index", if_none_match=caps.headers["ETag"])
        assert (again.status, again.body) == (304, b"")
        assert (await house.ask("PUT", "/xcap-caps/global/index", b"<x/>")).status == 405
        assert (await house.ask("GET", path("xcap-caps"))).status == 404
        assert (await house.ask("GET", "/rls-services/global/index")).status == 403
        assert (await house.ask("GET", "/resource-lists/global/index")).status == 403

    @in_loop
    async def test_what_is_not_there_is_not_found(self) -> None:
        house = await House().start()
        assert (await house.ask("GET", path("pres-rules"))).status == 404
        assert (await house.ask("GET", path("unknown-usage"))).status == 404
        assert (await house.ask("DELETE", LISTS)).status == 404
        assert (await house.ask("GET", path("pres-rules", document="other"))).status == 404
        assert condition(await house.ask("PUT", path("pres-rules", document="other"), b"")) == "constraint-failure"
        assert condition(await house.ask("PUT", path("pres-rules", document="a/b"), b"")) == "no-parent"
        assert condition(await house.ask("PUT", path("pres-rules", node="a/b"), b"<b/>")) == "no-parent"


class TestHttp:
    @in_loop
    async def test_methods_that_mean_nothing_here(self) -> None:
        house = await House().start()
        for method in ("POST", "PATCH", "OPTIONS"):
            answer = await house.ask(method, LISTS)
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, PUT, DELETE")
        await house.ask("PUT", LISTS, lists(""))
        for method in ("PUT", "DELETE"):
            answer = await house.ask(method, path("resource-lists", node="resource-lists/namespace::*"), b"<x/>")
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")

    @in_loop
    async def test_the_type_of_a_body_is_that_of_what_it_becomes(self) -> None:
        """RFC 4825 section 8.2.2."""
        house = await House().start()
        assert (await house.ask("PUT", LISTS, lists(""), "text/xml")).status == 415
        good = await house.ask("PUT", LISTS, lists("<list/>"), "Application/Resource-Lists+xml; charset=UTF-8")
        assert good.status == 201
        latin = await house.ask("PUT", LISTS, lists("<list/>"), "application/resource-lists+xml; charset=latin1")
        assert condition(latin) == "not-utf-8"
        node = path("resource-lists", node="resource-lists/list/@name")
        assert (await house.ask("PUT", node, b'"a"', ELEMENT)).status == 415
        assert (await house.ask("PUT", node, b'"a"', ATTRIBUTE)).status == 201
        assert (await house.ask("PUT", node, b'"b"', ATTRIBUTE)).status == 200
        assert condition(await house.ask("PUT", node, b'"<"', ATTRIBUTE)) == "not-xml-att-value"

    @pytest.mark.parametrize(
        ("octets", "expected"),
        [
            (b"<resource-lists", "not-well-formed"),
            (b"<?xml version='1.0' encoding='ISO-8859-1'?><resource-lists/>", "not-utf-8"),
            (lists("<list>\xe9</list>").decode().encode("latin-1"), "not-utf-8"),
            (b"\xff\xfe<\0r\0/\0>\0", "not-utf-8"),
            (b"<!DOCTYPE r [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><r>&e;</r>", "not-well-formed"),
            (lists("<bogus/>"), "schema-validation-error"),
        ],
    )
    @in_loop
    async def test_what_is_no_document_is_refused_and_the_last_good_one_stands(
        self, octets: bytes, expected: str
    ) -> None:
        house = await House().start()
        await house.ask("PUT", LISTS, lists("<list name='good'/>"))
        assert condition(await house.ask("PUT", LISTS, octets)) == expected
        assert (await house.ask("GET", LISTS)).body == lists("<list name='good'/>")

    @in_loop
    async def test_too_much_is_refused(self) -> None:
        house = await House(most_contacts=3).start()
        many = "".join(f"<entry uri='sip:u{i}@b.test'/>" for i in range(4))
        assert condition(await house.ask("PUT", LISTS, lists(f"<list>{many}</list>"))) == "constraint-failure"
        assert await house.contacts() == {}
        big = await house.ask("PUT", LISTS, lists("<list>" + "<entry uri='tel:1'/>" * 40_000 + "</list>"))
        assert big.status == 413

    @in_loop
    async def test_one_account_cannot_take_all_the_time(self) -> None:
        house = await House().start()
        many = "".join(f"<entry uri='tel:{number:020}'/>" for number in range(6_000))
        await house.ask("PUT", LISTS, lists(f"<list>{many}</list>"))
        part = path("resource-lists", node="resource-lists/list/entry[1]")
        statuses = [(await house.ask("GET", part)).status for _ in range(40)]
        assert statuses[0] == 200
        assert statuses[-1] == 429
        assert (await house.ask("GET", path("resource-lists", "bob"), user=BOB)).status == 404
        house.clock.advance(10)
        assert (await house.ask("GET", part)).status == 200

    @in_loop
    async def test_a_long_list_that_was_never_put_counts_too(self) -> None:
        house = await House().start()
        for number in range(100):
            contact = Address.im(f"u{number}", "b.test")
            await house.keeping.contacts.put(ALICE, contact, "x" * 1000, (), house.origin(ALICE))
        statuses = [(await house.ask("GET", LISTS)).status for _ in range(100)]
        assert statuses[0] == 200
        assert statuses[-1] == 429

    @in_loop
    async def test_a_contact_list_too_long_for_a_document_costs_nothing(self) -> None:
        """Eight groups of a thousand octets for each of 140 people: more than a megabyte to write."""
        house = await House().start()
        groups = [f"{number:02}".ljust(1000, "x") for number in range(8)]
        for number in range(140):
            contact = Address.im(f"u{number}", "b.test")
            await house.keeping.contacts.put(ALICE, contact, "", groups, house.origin(ALICE))
        for method in ("GET", "DELETE"):
            assert (await house.ask(method, LISTS)).status == 413
        assert (await house.ask("PUT", LISTS, lists(""))).status == 413
        assert len(await house.contacts()) == 140

    @in_loop
    async def test_conditions(self) -> None:
        """RFC 4825 sections 8.2.6 and 8.5."""
        house = await House().start()
        assert (await house.ask("PUT", LISTS, lists(""), if_match='"x"')).status == 412
        assert (await house.ask("PUT", LISTS, lists(""), if_match="*")).status == 412
        first = await house.ask("PUT", LISTS, lists(""), if_none_match="*")
        assert first.status == 201
        etag = first.headers["ETag"]
        assert (await house.ask("PUT", LISTS, lists(""), if_none_match="*")).status == 412
        assert (await house.ask("PUT", LISTS, lists("<list/>"), if_match=f'"x", {etag}')).status == 200
        assert (await house.ask("PUT", LISTS, lists(""), if_match=etag)).status == 412
        assert (await house.ask("DELETE", LISTS, if_match=etag)).status == 412
        now = (await house.ask("GET", LISTS)).headers["ETag"]
        assert (await house.ask("GET", LISTS, if_none_match=f"W/{now}")).status == 304
        assert (await house.ask("PUT", LISTS, lists(""), if_match=f"W/{now}")).status == 412
        assert (await house.ask("GET", LISTS, if_match='"x"')).status == 412
        assert (await house.ask("GET", LISTS, if_none_match="nonsense")).status == 400
        node = path("resource-lists", node="resource-lists/list[2]")
        assert (await house.ask("PUT", node, b"<list/>", if_none_match="*")).status == 412
        assert (await house.ask("PUT", node, b"<list/>", if_match=now)).status == 201


class TestOneContactList:
    """One contact list, whatever protocol it is edited by."""

    @in_loop
    async def test_what_xcap_puts_is_pushed_to_the_others(self) -> None:
        house = await House().start()
        document = lists(
            "<list name='Friends'><entry uri='sip:bob@a.test'><display-name>Bob</display-name></entry></list>"
        )
        assert (await house.ask("PUT", LISTS, document)).status == 201
        pushed = [item for word, item in house.edge.others if word == "contact_changed"]
        assert [(one.contact, one.name, one.groups) for one in pushed if isinstance(one, ContactItem)] == [
            (BOB, "Bob", ("Friends",))
        ]
        assert (await house.ask("GET", LISTS)).body == document

    @in_loop
    async def test_what_another_protocol_changes_is_in_the_next_document(self) -> None:
        house = await House().start()
        document = lists(
            "<!-- mine --><list name='Friends'>\n <entry uri='sip:bob@a.test'/>\n <entry uri='tel:+1'/></list>"
        )
        etag = (await house.ask("PUT", LISTS, document)).headers["ETag"]
        contacts = house.keeping.contacts
        await contacts.put(ALICE, CAROL, "Carol", ("Friends",), house.origin(ALICE))
        await contacts.remove(ALICE, BOB, house.origin(ALICE))
        fetched = await house.ask("GET", LISTS, if_none_match=etag)
        assert fetched.status == 200
        added = b'<entry uri="sip:carol@a.test"><display-name>Carol</display-name></entry>'
        expected = document.replace(b"<entry uri='sip:bob@a.test'/>", b"")
        assert fetched.body == expected.replace(b"<entry uri='tel:+1'/>", b"<entry uri='tel:+1'/>" + added)
        assert (await house.ask("PUT", LISTS, document, if_match=etag)).status == 412

    @in_loop
    async def test_who_never_put_a_document_gets_one(self) -> None:
        house = await House().start()
        assert (await house.ask("GET", LISTS)).status == 404
        await house.keeping.contacts.put(ALICE, BOB, "", (), house.origin(ALICE))
        fetched = await house.ask("GET", LISTS)
        assert b'<list name="contacts"><entry uri="sip:bob@a.test"/></list>' in fetched.body
        entry = path("resource-lists", node="resource-lists/list/entry[@uri='sip:bob@a.test']")
        assert (await house.ask("DELETE", entry)).status == 200
        assert await house.contacts() == {}
        assert (await house.ask("GET", LISTS)).status == 200

    @in_loop
    async def test_an_entry_taken_out_ends_what_was_between_the_two(self) -> None:
        house = await House().start()
        await house.presence.answer(ALICE, BOB, Decision.ALLOWED, house.origin(ALICE))
        document = lists("<list><entry uri='sip:bob@a.test'/></list>")
        await house.ask("PUT", LISTS, document)
        watching = await house.watch(BOB, ALICE)
        assert isinstance(watching, Granted)
        assert watching.subscription.state is SubscriptionState.ACTIVE
        entry = path("resource-lists", node="resource-lists/list/entry")
        assert (await house.ask("DELETE", entry)).status == 200
        assert (await house.keeping.contacts.item(ALICE, BOB)).decision is Decision.NONE
        assert watching.subscription.state is not SubscriptionState.ACTIVE

    @in_loop
    async def test_a_blind_put_does_not_wipe_the_list(self) -> None:
        """Who never saw the list cannot mean to end every subscription of it; who names its version can."""
        house = await House().start()
        await house.presence.answer(ALICE, BOB, Decision.ALLOWED, house.origin(ALICE))
        for one in (BOB, CAROL):
            await house.keeping.contacts.put(ALICE, one, "", (), house.origin(ALICE))
        answer = await house.ask("PUT", LISTS, lists(""))
        assert answer.status == 200
        assert set(await house.contacts()) == {"bob"}
        now = await house.ask("GET", LISTS)
        assert now.headers["ETag"] == answer.headers["ETag"]
        assert b"bob@a.test" in now.body
        assert condition(await house.ask("DELETE", LISTS)) == "cannot-delete"
        assert (await house.ask("PUT", LISTS, lists(""), if_match=answer.headers["ETag"])).status == 200
        assert await house.contacts() == {}
        assert (await house.ask("GET", LISTS)).body == lists("")
        assert (await house.ask("DELETE", LISTS)).status == 200
        assert (await house.ask("GET", LISTS)).status == 404

    @in_loop
    async def test_nor_does_a_blind_put_of_the_root_element(self) -> None:
        house = await House().start()
        await house.presence.answer(ALICE, BOB, Decision.ALLOWED, house.origin(ALICE))
        await house.ask("PUT", LISTS, lists("<list><entry uri='sip:bob@a.test'/></list>"))
        root = path("resource-lists", node="resource-lists")
        answer = await house.ask("PUT", root, lists(""))
        assert answer.status == 200
        assert set(await house.contacts()) == {"bob"}
        assert (await house.ask("PUT", root, lists(""), if_match=answer.headers["ETag"])).status == 200
        assert await house.contacts() == {}

    @in_loop
    async def test_what_there_is_no_room_for_changes_no_contact(self) -> None:
        house = await House().start()
        await house.ask("PUT", LISTS, lists("<list><entry uri='sip:bob@a.test'/></list>"))
        documents, origin, number = house.presence.documents, house.origin(ALICE), 0
        while not isinstance(await documents.put(ALICE, f"x/{number}", "text/plain", bytes(2**19), origin), Response):
            number += 1
        await documents.put(ALICE, "x/last", "text/plain", bytes(2**19 - 200), origin)
        etag = (await house.ask("GET", LISTS)).headers["ETag"]
        other = lists(
            "<list><entry uri='sip:carol@a.test'/>" + "".join(f"<entry uri='tel:{n}'/>" for n in range(20)) + "</list>"
        )
        assert condition(await house.ask("PUT", LISTS, other, if_match=etag)) == "constraint-failure"
        assert set(await house.contacts()) == {"bob"}
        assert (await house.ask("GET", LISTS)).headers["ETag"] == etag

    @in_loop
    async def test_names_and_groups_go_both_ways(self) -> None:
        house = await House().start()
        await house.keeping.contacts.put(ALICE, BOB, "Bob", ("A", "contacts"), house.origin(ALICE))
        name = path("resource-lists", node="resource-lists/list[@name='A']/entry/display-name")
        assert (await house.ask("PUT", name, b"<display-name>Robert</display-name>")).status == 200
        assert await house.contacts() == {"bob": ("Robert", ("A", "contacts"))}
        assert (
            await house.ask("PUT", path("resource-lists", node="resource-lists/list/@name"), b'"B"', ATTRIBUTE)
        ).status == 200
        assert await house.contacts() == {"bob": ("Robert", ("B", "contacts"))}


class TestHardState:
    @in_loop
    async def test_it_comes_back_after_a_restart_until_it_is_deleted(self) -> None:
        """RFC 4827 section 3; decided: the one publication that a restart brings back."""
        house = await House().start()
        assert (await house.ask("PUT", PIDF, presence("on the road"))).status == 201
        again = await House(store=house.store).start()
        assert await seen(again) == ["on the road"]
        assert (await again.ask("DELETE", PIDF)).status == 200
        assert await seen(again) == []
        assert await seen(await House(store=house.store).start()) == []

    @in_loop
    async def test_an_older_document_replaces_a_newer_one(self) -> None:
        """PRES-12 is about what comes late; a PUT replaces."""
        house = await House().start()
        await house.ask("PUT", PIDF, presence("new", when="2026-01-02T00:00:00Z"))
        assert (await house.ask("PUT", PIDF, presence("old", when="2026-01-01T00:00:00Z"))).status == 200
        assert await seen(house) == ["old"]

    @in_loop
    async def test_what_could_not_be_stored_is_not_said_any_more(self) -> None:
        store = FullStore()
        house = await House(store=store).start()
        await house.ask("PUT", PIDF, presence("kept"))
        store.is_full = True
        with pytest.raises(StoreError):
            await house.ask("PUT", PIDF, presence("lost"))
        assert await seen(house) == ["kept"]

    @in_loop
    async def test_a_document_about_somebody_else_is_refused(self) -> None:
        """N-19."""
        house = await House().start()
        assert condition(await house.ask("PUT", PIDF, presence("x").replace(b"alice", b"bob"))) == "constraint-failure"
        assert await seen(house) == []


class FullStore(MemoryStore):
    """Takes no documents once it is full."""

    is_full = False

    def commit(self, ops: Sequence[Op]) -> asyncio.Future[list[Result]]:
        if self.is_full and any(isinstance(op, Put) and op.space == "document" for op in ops):
            raise StoreError("no space left on device")
        return super().commit(ops)


async def seen(house: House) -> list[str]:
    """The notes that a new subscription of alice herself is told."""
    house.edge.take()
    answer = await house.watch(ALICE, ALICE)
    assert isinstance(answer, Granted)
    (told,) = house.edge.take()
    house.presence.lost(answer.subscription)
    assert told.content is not None
    assert told.content.document is not None
    return [note.text for one in told.content.document.tuples for note in one.notes]


def test_contacts_of_other_shapes_do_not_make_entries() -> None:
    """A whole domain in a contact list has no SIP URI."""
    assert not is_person(ContactItem(ALICE, Address("im", "", "a.test"), is_listed=True), ALICE)
    assert not is_person(ContactItem(ALICE, ALICE, is_listed=True), ALICE)
    assert is_person(ContactItem(ALICE, Address.parse("im:a%3Ab@a.test"), is_listed=True), ALICE)
