"""Who may see what: service/presence/access.py and documents.py (ACL-1, ACL-9, ACL-10, ACL-19, ACL-20, ACL-24, N-02, N-24)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response
from comity.cpim.presence_rules import EVERYTHING, Permissions, SubHandling
from comity.errors import StoreError
from comity.service.interfaces import Put
from comity.service.presence import access
from comity.service.presence.access import RULES
from comity.service.presence.documents import DocumentLimits
from comity.service.presence.interfaces import Decision, Default, StoredDocument
from comity.service.presence.keeping import KeepingLimits
from comity.testing.clock import START
from tests.service.presence.desk import ALICE, BOB, CAROL, DAVE, NOBODY, Desk, by

BLOCK, CONFIRM, POLITE, ALLOW = SubHandling
TYPE = "application/auth-policy+xml"


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


def rules(*each: str) -> bytes:
    """A rule set of rules, each as its conditions, handling and transformations."""
    texts = [f'<cp:rule id="r{number}">{rule}</cp:rule>' for number, rule in enumerate(each)]
    return (
        '<cp:ruleset xmlns:cp="urn:ietf:params:xml:ns:common-policy" xmlns="urn:ietf:params:xml:ns:pres-rules">'
        f"{''.join(texts)}</cp:ruleset>"
    ).encode()


def rule(handling: str, who: str = "", more: str = "", conditions: str = "") -> str:
    """One rule; ``who`` "" for everybody, authenticated or not."""
    identity = f"<cp:identity>{who}</cp:identity>" if who else ""
    actions = f"<cp:actions><sub-handling>{handling}</sub-handling></cp:actions>"
    transformations = f"<cp:transformations>{more}</cp:transformations>" if more else ""
    return f"<cp:conditions>{identity}{conditions}</cp:conditions>{actions}{transformations}"


def one(address: Address) -> str:
    return f'<cp:one id="{address.with_scheme("pres").uri}"/>'


EVERYBODY = "<cp:many/>"
SERVICES = "<provide-services><all-services/></provide-services>"


async def put_rules(desk: Desk, account: Address, *each: str) -> StoredDocument:
    document = await desk.documents.put(account, RULES, TYPE, rules(*each), by(account))
    assert isinstance(document, StoredDocument), document
    return document


async def seen(desk: Desk, account: Address, watcher: Address | None) -> Permissions:
    await desk.access.load(account)
    return desk.access.grant(account, watcher, desk.clock.when())


async def handled(desk: Desk, account: Address, watcher: Address | None) -> SubHandling:
    return (await seen(desk, account, watcher)).sub_handling


class TestPrecedence:
    def test_everybody_sees_himself(self) -> None:
        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(Default.DENY)).start()
            await put_rules(desk, ALICE, rule("polite-block", EVERYBODY))
            assert await seen(desk, ALICE, ALICE) == EVERYTHING

        run(main())

    @pytest.mark.parametrize(
        ("decision", "expected"),
        [
            (Decision.NONE, ALLOW),
            (Decision.ALLOWED, ALLOW),
            (Decision.REFUSED, BLOCK),
            (Decision.POLITE, POLITE),
        ],
    )
    def test_a_decision_against_somebody_outweighs_the_rules(self, decision: Decision, expected: SubHandling) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await put_rules(desk, BOB, rule("allow", EVERYBODY, SERVICES))
            await desk.answer(BOB, ALICE, decision)
            granted = await seen(desk, BOB, ALICE)
            assert granted.sub_handling is expected
            assert granted.services == (frozenset({("all", "")}) if expected is ALLOW else frozenset())
            assert not granted.all_attributes

        run(main())

    def test_a_block_outweighs_everything(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await put_rules(desk, BOB, rule("allow", EVERYBODY, SERVICES))
            await desk.answer(BOB, ALICE, Decision.ALLOWED)
            await desk.contacts.block(BOB, [ALICE], by(BOB))
            assert await seen(desk, BOB, ALICE) == Permissions(POLITE)

        run(main())

    def test_rules_that_say_less_outweigh_a_decision_for_somebody(self) -> None:
        """Their transformations alone: that is what they are for."""

        async def main() -> None:
            desk = await Desk().start()
            await desk.answer(BOB, ALICE, Decision.ALLOWED)
            assert await seen(desk, BOB, ALICE) == EVERYTHING
            await put_rules(desk, BOB, rule("polite-block", one(ALICE)))
            assert await handled(desk, BOB, ALICE) is POLITE
            await put_rules(desk, BOB, rule("allow", one(CAROL), SERVICES))
            assert await seen(desk, BOB, ALICE) == EVERYTHING

        run(main())

    @pytest.mark.parametrize(("more", "is_all"), [("", True), (SERVICES, False)])
    def test_an_answer_confirms_what_a_rule_wants_confirmed(self, more: str, is_all: bool) -> None:
        """RFC 5025 section 3.2.1: confirm means to ask; once answered it is not asked again."""

        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(Default.DENY)).start()
            await put_rules(desk, BOB, rule("confirm", EVERYBODY, more))
            assert await handled(desk, BOB, ALICE) is CONFIRM
            await desk.ask(ALICE, BOB)
            await desk.answer(BOB, ALICE, Decision.ALLOWED)
            granted = await seen(desk, BOB, ALICE)
            assert granted.sub_handling is ALLOW
            assert (granted == EVERYTHING) is is_all

        run(main())

    def test_the_greatest_handling_counts(self) -> None:
        """ACL-9: a rule that blocks is no veto."""

        async def main() -> None:
            desk = await Desk().start()
            await put_rules(desk, BOB, rule("allow", '<cp:many domain="a.test"/>'), rule("block", one(ALICE)))
            assert await handled(desk, BOB, ALICE) is ALLOW

        run(main())

    def test_an_empty_rule_set_leaves_the_default(self) -> None:
        """ACL-1: it grants nothing to anybody."""

        async def main() -> None:
            desk = await Desk().start()
            await put_rules(desk, BOB)
            assert await handled(desk, BOB, ALICE) is CONFIRM
            assert await handled(desk, BOB, None) is BLOCK

        run(main())


class TestWhoSomebodyIs:
    """ACL-19, ACL-24."""

    @pytest.mark.parametrize("scheme", ["pres", "im", "sip", "xmpp"])
    def test_one_account_is_one_user_under_each_scheme_it_signs_in_with(self, scheme: str) -> None:
        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(Default.DENY)).start()
            await put_rules(desk, BOB, rule("allow", f'<cp:one id="{scheme}:alice@a.test"/>'))
            assert await handled(desk, BOB, ALICE) is ALLOW
            assert await handled(desk, BOB, CAROL) is BLOCK
            assert await handled(desk, BOB, None) is BLOCK

        run(main())

    @pytest.mark.parametrize(
        "uri", ["tel:+15551234567", "sips:alice@a.test", "mailto:alice@a.test", "sip:alias@a.test"]
    )
    def test_an_alias_is_somebody_else(self, uri: str) -> None:
        """RFC 5025 section 3.1.1.2."""

        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(Default.DENY)).start()
            await put_rules(desk, BOB, rule("allow", f'<cp:one id="{uri}"/>'))
            assert await handled(desk, BOB, ALICE) is BLOCK

        run(main())

    def test_the_unauthenticated_get_rules_without_identity_alone(self) -> None:
        """ACL-24: bar them, or allow them; a default is for people, however wide."""

        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(Default.EVERYONE)).start()
            assert await handled(desk, BOB, None) is BLOCK
            await put_rules(desk, BOB, rule("allow", EVERYBODY))
            assert await handled(desk, BOB, None) is BLOCK
            await put_rules(desk, BOB, rule("polite-block"))
            assert await handled(desk, BOB, None) is POLITE

        run(main())

    def test_one_principal_can_be_barred(self) -> None:
        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(Default.DENY)).start()
            exception = f'<cp:many><cp:except id="{ALICE.with_scheme("pres").uri}"/></cp:many>'
            await put_rules(desk, BOB, rule("allow", exception))
            assert await handled(desk, BOB, ALICE) is BLOCK
            assert await handled(desk, BOB, CAROL) is ALLOW

        run(main())

    def test_different_watchers_get_different_things(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await put_rules(desk, BOB, rule("allow", one(ALICE), SERVICES), rule("allow", one(CAROL)))
            assert await seen(desk, BOB, ALICE) != await seen(desk, BOB, CAROL)

        run(main())


class TestRules:
    """ACL-10, ACL-20: rules act at once, and a bad document leaves the last good one standing."""

    def test_a_change_is_judged_before_it_is_answered(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await desk.access.load(BOB)
            for act in (put_rules(desk, BOB, rule("allow", EVERYBODY)), desk.documents.delete(BOB, RULES, by(BOB))):
                desk.judged.clear()
                await act
                assert desk.judged == [("bob", "")]
            assert await handled(desk, BOB, ALICE) is CONFIRM

        run(main())

    def test_rules_hold_over_a_restart(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await put_rules(desk, BOB, rule("allow", one(ALICE), SERVICES))
            again = await Desk(desk.store).start()
            assert await seen(again, BOB, ALICE) == await seen(desk, BOB, ALICE)

        run(main())

    @pytest.mark.parametrize(
        ("octets", "reason"),
        [
            (b"", Reason.SYNTAX),
            (b"<ruleset/>", Reason.SYNTAX),
            (b"<!DOCTYPE x [<!ENTITY a 'b'>]>" + rules(), Reason.SYNTAX),
            (rules(rule("perhaps")), Reason.SYNTAX),
            (rules(rule("allow", "<cp:one/>")), Reason.SYNTAX),
            (rules(rule("allow", "".join(f'<cp:one id="sip:u{n}@a"/>' for n in range(5000)))), Reason.SIZE),
            (rules(rule("allow", '<cp:one id="sip:u@a"/>' * 1_000_000)), Reason.SIZE),
        ],
        ids=["nothing", "no-namespace", "doctype", "handling", "nobody", "too-many", "a-million"],
    )
    def test_a_malformed_document_is_refused_and_the_last_good_one_stands(self, octets: bytes, reason: Reason) -> None:
        """N-24, and the last line of the issue."""

        async def main() -> None:
            desk = await Desk().start()
            good = await put_rules(desk, BOB, rule("allow", one(ALICE)))
            desk.judged.clear()
            refusal = await desk.documents.put(BOB, RULES, TYPE, octets, by(BOB))
            assert isinstance(refusal, Response)
            assert refusal.reason is reason
            assert desk.judged == []
            assert await desk.documents.get(BOB, RULES) == good
            assert await handled(desk, BOB, ALICE) is ALLOW

        run(main())

    def test_what_is_damaged_in_the_store_grants_nothing(self) -> None:
        """F-POISON: rules may say less than the default, so unreadable ones must not count as none."""

        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(Default.EVERYONE)).start()
            await put_rules(desk, BOB, rule("polite-block", EVERYBODY))
            entry = await desk.store.get("document", f"im:bob@a.test/{RULES}")
            assert entry is not None
            damaged = entry.value.replace(b"ruleset", b"rulesot")
            await desk.store.commit([Put("document", f"im:bob@a.test/{RULES}", damaged)])
            again = await Desk(desk.store, KeepingLimits(Default.EVERYONE)).start()
            with pytest.raises(StoreError, match=r"rules of im:bob@a\.test"):
                await again.access.load(BOB)

        run(main())

    def test_when_a_validity_begins_or_ends_is_known_before(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            begin, end = START + timedelta(hours=1), START + timedelta(hours=2)
            validity = f"<cp:validity><cp:from>{begin.isoformat()}</cp:from><cp:until>{end.isoformat()}</cp:until></cp:validity>"
            await put_rules(desk, BOB, rule("allow", EVERYBODY, "", validity))
            await desk.access.load(BOB)
            assert desk.access.next_change(BOB, START) == begin
            assert desk.access.next_change(BOB, begin) == end
            assert desk.access.next_change(BOB, end) is None
            assert desk.access.grant(BOB, ALICE, begin).sub_handling is ALLOW
            assert desk.access.grant(BOB, ALICE, end).sub_handling is CONFIRM

        run(main())

    def test_a_sphere_is_told_by_who_knows_it(self) -> None:
        """ACL-6."""

        async def main() -> None:
            desk = await Desk().start()
            await put_rules(desk, BOB, rule("allow", EVERYBODY, "", '<cp:sphere value="home work"/>'))
            await desk.access.load(BOB)
            assert desk.access.grant(BOB, ALICE, START, "Home").sub_handling is ALLOW
            assert desk.access.grant(BOB, ALICE, START).sub_handling is CONFIRM

        run(main())

    def test_what_is_kept_of_rules_in_memory_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The account used longest ago leaves, and is read again when somebody asks."""

        async def main() -> None:
            most = len(rules(rule("allow", one(ALICE)))) * 5 // 2
            monkeypatch.setattr(access, "MOST_OCTETS", most)
            desk = await Desk().start()
            for account in (BOB, CAROL, DAVE):
                await put_rules(desk, account, rule("allow", one(ALICE)))
            assert [*desk.access._rules] == [CAROL.key, DAVE.key]
            assert desk.access._octets == sum(len(r.rule_set.raw) for r in desk.access._rules.values() if r) <= most
            for account in (BOB, CAROL, DAVE):
                assert await handled(desk, account, ALICE) is ALLOW

        run(main())

    def test_who_was_not_loaded_is_not_judged(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            with pytest.raises(LookupError):
                desk.access.grant(BOB, ALICE, START)

        run(main())

    @pytest.mark.parametrize("default", Default)
    def test_nobody_has_the_default_of_the_operator(self, default: Default) -> None:
        """N-02: somebody unknown and somebody who never decided anything are judged alike."""

        async def main() -> None:
            desk = await Desk(limits=KeepingLimits(default)).start()
            for watcher in (ALICE, DAVE):
                assert await seen(desk, NOBODY, watcher) == await seen(desk, BOB, watcher)

        run(main())


class TestDocuments:
    """ACL-20 and what XMPP clients keep on their own account."""

    def test_octets_come_back_as_they_were_put(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            octets = b"\r\n<x xmlns='a'/>\0\xff"
            put = await desk.documents.put(ALICE, "private/{a}x", "text/xml", octets, by(ALICE))
            for reader in (desk, await Desk(desk.store).start()):
                assert await reader.documents.get(ALICE, "private/{a}x") == put
                assert list(await reader.documents.names(ALICE)) == ["private/{a}x"]
                assert list(await reader.documents.names(ALICE, "pep/")) == []
                assert await reader.documents.get(BOB, "private/{a}x") is None

        run(main())

    def test_an_entity_tag_is_never_given_twice(self) -> None:
        """Also not after the document was deleted: XCAP caches live by it."""

        async def main() -> None:
            desk = await Desk().start()
            tags = []
            for turn in range(6):
                document = await desk.documents.put(ALICE, "vcard4", "text/xml", b"same", by(ALICE))
                assert isinstance(document, StoredDocument)
                tags.append(document.etag)
                if turn % 2:
                    assert await desk.documents.delete(ALICE, "vcard4", by(ALICE)) is True
            assert len({*tags}) == 6

        run(main())

    def test_a_condition_is_part_of_the_write(self) -> None:
        async def main() -> None:
            desk = await Desk().start()

            async def put(if_etag: str | None) -> StoredDocument | Response:
                return await desk.documents.put(ALICE, "vcard4", "text/xml", b"x", by(ALICE), if_etag=if_etag)

            first = await put("")
            assert isinstance(first, StoredDocument)
            for wrong in ("", "no-tag", "999", "-1", "\u0661"):
                refusal = await put(wrong)
                assert isinstance(refusal, Response)
                assert refusal.reason is Reason.NO_PUBLICATION
            second = await put(first.etag)
            assert isinstance(second, StoredDocument)
            stale = await desk.documents.delete(ALICE, "vcard4", by(ALICE), if_etag=first.etag)
            assert isinstance(stale, Response)
            assert await desk.documents.delete(ALICE, "vcard4", by(ALICE), if_etag=second.etag) is True
            assert await desk.documents.delete(ALICE, "vcard4", by(ALICE)) is False

        run(main())

    def test_they_are_private_and_bounded(self) -> None:
        """ACL-20: only the account writes; CONSTR-1: number, size, and all together."""

        async def main() -> None:
            limits = KeepingLimits(documents=DocumentLimits(documents=2, octets=100, largest=80))
            desk = await Desk(limits=limits).start()

            async def put(name: str, octets: bytes, who: Address = ALICE) -> Reason | None:
                answer = await desk.documents.put(ALICE, name, "text/plain", octets, by(who))
                return answer.reason if isinstance(answer, Response) else None

            assert await put("a", b"", BOB) is Reason.DENIED
            refusal = await desk.documents.delete(ALICE, "a", by(BOB))
            assert isinstance(refusal, Response)
            assert refusal.reason is Reason.DENIED
            assert await put("", b"") is Reason.SYNTAX
            assert await put("a\0", b"") is Reason.SYNTAX
            assert await put("a" * 1025, b"") is Reason.SYNTAX
            assert await put("a", b"x" * 81) is Reason.SIZE
            assert await put("a", b"x" * 80) is None
            assert await put("b", b"x" * 21) is Reason.QUOTA
            assert await put("b", b"x" * 20) is None
            assert await put("c", b"") is Reason.QUOTA
            assert await put("a", b"x" * 70) is None
            await desk.documents.delete(ALICE, "a", by(ALICE))
            assert await put("c", b"x" * 80) is None

        run(main())

    def test_what_an_account_kept_goes_with_it(self) -> None:
        async def main() -> None:
            desk = await Desk().start()
            await put_rules(desk, BOB, rule("allow", EVERYBODY))
            await desk.contacts.block(BOB, [CAROL], by(BOB))
            await desk.ask(ALICE, BOB)
            await desk.keeping.remove(BOB)
            assert await handled(desk, BOB, ALICE) is CONFIRM
            assert not desk.contacts.is_blocked(BOB, CAROL)
            assert await desk.store.scan("document") == []

        run(main())
