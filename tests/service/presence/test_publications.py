"""Publications: leases, entity-tags, limits, and what leaves the last good state standing (RFC 3903)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Response
from comity.cpim.presence import PresenceDocument
from comity.cpim.presence_state import Availability, document_state
from comity.service.presence.interfaces import Decision, Default, Published, Statement
from comity.service.presence.keeping import KeepingLimits
from comity.service.presence.publications import PublicationLimits
from comity.service.presence.watching import PresenceLimits
from comity.testing.presence import PresenceBench
from tests.loop import in_loop

ALICE, BOB, CAROL = "im:alice@a.test", "im:bob@a.test", "im:carol@a.test"
WHO = Address.parse(BOB)


async def watched(limits: PublicationLimits | None = None) -> PresenceBench:
    """Alice watches bob at once, by XMPP: no interval."""
    bench = PresenceBench(limits=PresenceLimits(limits or PublicationLimits()), keeping=KeepingLimits(Default.EVERYONE))
    await bench.start()
    await bench.watch(ALICE, BOB, edge="xmpp")
    bench.xmpp.take()
    return bench


def states(bench: PresenceBench) -> list[str]:
    """What alice was told since the last look."""
    return [one.state for one in bench.xmpp.take()]


def put(bench: PresenceBench, statement: Statement | None, by: str = BOB, **named: object) -> Published | Response:
    """Publish for bob."""
    return bench.presence.publish(WHO, statement, bench.origin(by), **named)  # type: ignore[arg-type]  # passed through


def reason(answer: object) -> Reason | None:
    """Why it was refused."""
    assert isinstance(answer, Response), answer
    return answer.reason


@in_loop
async def test_a_lease_is_never_longer_than_the_limit_and_ends_by_itself() -> None:
    """N-22, SIP-31, PRES-8."""
    bench = await watched()
    answer = put(bench, Statement(bench.document(BOB)), lease=10 * 365 * 86400)
    assert isinstance(answer, Published)
    assert answer.lease == 3600
    assert states(bench) == ["available"]
    await bench.advance(3599)
    assert states(bench) == []
    await bench.advance(1)
    assert states(bench) == ["offline"]


@in_loop
async def test_an_entity_tag_names_one_state_and_is_never_used_again() -> None:
    """SIP-32, N-25: each answer has a new one; a former one, or another's, names nothing."""
    bench = await watched()
    first = put(bench, Statement(bench.document(BOB)), lease=60)
    assert isinstance(first, Published)
    renewed = put(bench, None, etag=first.etag, lease=60)
    assert isinstance(renewed, Published)
    changed = put(bench, Statement(bench.document(BOB, "away")), etag=renewed.etag, lease=60)
    assert isinstance(changed, Published)
    assert len({first.etag, renewed.etag, changed.etag}) == 3
    assert all(len(one.etag) == 32 for one in (first, renewed, changed))
    assert states(bench) == ["available", "away"]
    for etag in (first.etag, renewed.etag, "nonsense"):
        assert reason(put(bench, Statement(bench.document(BOB, "dnd")), etag=etag, lease=60)) is Reason.NO_PUBLICATION
        assert bench.presence.unpublish(WHO, bench.origin(BOB), etag=etag) is not None
    assert states(bench) == []
    assert bench.presence.has_publication(WHO, changed.etag)
    assert bench.presence.unpublish(WHO, bench.origin(BOB), etag=changed.etag) is None
    assert states(bench) == ["offline"]


@in_loop
async def test_a_renewal_is_told_to_nobody_and_goes_on() -> None:
    """RFC 3903 section 6: the state is as before."""
    bench = await watched()
    answer = put(bench, Statement(bench.document(BOB)), lease=60)
    for _ in range(5):
        assert isinstance(answer, Published)
        await bench.advance(50)
        answer = put(bench, None, etag=answer.etag, lease=60)
    assert states(bench) == ["available"]
    await bench.advance(61)
    assert states(bench) == ["offline"]


@in_loop
async def test_only_the_account_publishes_and_only_about_itself() -> None:
    """ACL-22, N-19: the last good state stands."""
    bench = await watched()
    bench.publish(BOB)
    assert reason(put(bench, Statement(bench.document(BOB, "dnd")), by=ALICE)) is Reason.DENIED
    assert reason(put(bench, Statement(bench.document(ALICE, "dnd")))) is Reason.DENIED
    assert bench.presence.unpublish(WHO, bench.origin(ALICE), key="phone") is not None
    assert states(bench) == ["available"]


@in_loop
async def test_what_is_too_large_or_too_many_is_refused() -> None:
    """Section 6.2 of reliability.md: size of a document, devices of one presentity."""
    bench = await watched(PublicationLimits(2, 700))
    put(bench, Statement(bench.document(BOB)), key="a")
    put(bench, Statement(bench.document(BOB, "away")), key="b")
    bench.xmpp.take()
    assert reason(put(bench, Statement(bench.document(BOB)), key="c")) is Reason.QUOTA
    assert reason(put(bench, Statement(bench.document(BOB, note="x" * 700)), key="a")) is Reason.SIZE
    big = replace(Statement(bench.document(BOB)), natives={"ID-phone": ("xmpp", b"x" * 701)})
    assert reason(put(bench, big, key="a")) is Reason.SIZE
    assert reason(put(bench, Statement(None), key="a")) is Reason.SYNTAX
    assert states(bench) == []


@in_loop
async def test_a_document_older_than_the_last_changes_nothing() -> None:
    """PRES-12: a replayed document; the device's lease goes on."""
    bench = await watched()
    old = Statement(bench.document(BOB, "dnd"))
    await bench.advance(10)
    answer = put(bench, Statement(bench.document(BOB)), key="a", lease=60)
    await bench.advance(50)
    assert isinstance(put(bench, old, key="a", lease=60), Published)
    await bench.advance(50)
    assert isinstance(answer, Published)
    assert states(bench) == ["available"]


@in_loop
async def test_a_clock_that_ran_ahead_does_not_silence_its_device() -> None:
    """N-22: timestamps in the future."""
    bench = await watched()
    ahead = PresenceDocument.parse(
        bench.document(BOB, "away").raw.replace(b"<timestamp>2026", b"<timestamp>2036"), charset="utf-8"
    )
    put(bench, Statement(ahead), key="a")
    await bench.advance(10)
    put(bench, Statement(bench.document(BOB, "dnd")), key="a")
    told = bench.xmpp.take()
    assert [one.state for one in told] == ["away", "dnd"]
    times = [one.content.document.date_time for one in told if one.content and one.content.document]
    assert all(when is not None and when <= bench.clock.when() + timedelta(seconds=1) for when in times)


@in_loop
async def test_two_documents_never_have_one_time() -> None:
    """PRES-8: two updates in one millisecond; each is newer than the one before."""
    bench = await watched()
    for word in ("available", "away", "dnd", "available", "xa"):
        bench.publish(BOB, word)
    bench.unpublish(BOB)
    told = [one.content.document for one in bench.xmpp.take() if one.content is not None]
    times = [one.date_time for one in told if one is not None and one.date_time is not None]
    assert len(times) == 6
    assert times == sorted(set(times))


@in_loop
async def test_devices_are_composed_and_leave_one_by_one() -> None:
    """PRES-21."""
    bench = await watched()
    bench.publish(BOB, "dnd", key="phone")
    bench.publish(BOB, "away", key="desk")
    bench.unpublish(BOB, key="desk")
    bench.unpublish(BOB, key="phone")
    assert states(bench) == ["dnd", "away", "dnd", "offline"]


@in_loop
async def test_parting_words_that_nobody_hears_are_few() -> None:
    """S-22: a device that comes and goes under new names, while the one watcher is politely blocked, fills no memory."""
    bench = await PresenceBench(keeping=KeepingLimits(Default.EVERYONE)).start()
    await bench.answer(BOB, ALICE, Decision.POLITE)
    await bench.watch(ALICE, BOB)
    for number in range(100):
        bench.publish(BOB, key=f"r{number}")
        bye = {f"ID-r{number}": ("xmpp", b"<status>bye</status>")}
        assert bench.presence.unpublish(WHO, bench.origin(BOB), key=f"r{number}", natives=bye) is None
    bench.sip.take()
    await bench.watch(CAROL, BOB)
    (told,) = bench.sip.take()
    assert told.content is not None
    assert len(told.content.natives) <= 20


@in_loop
async def test_parting_words_are_told_once_with_the_tuple_that_goes() -> None:
    """``Content.natives``: for those that just went."""
    bench = await watched()
    first = Statement(bench.document(BOB, resource="a"), keeps_ids=True, natives={"ID-a": ("xmpp", b"<c/>")})
    put(bench, first, key="a")
    put(bench, Statement(bench.document(BOB, "away", resource="b"), keeps_ids=True), key="b")
    bench.presence.unpublish(WHO, bench.origin(BOB), key="a", natives={"ID-a": ("xmpp", b"<status>bye</status>")})
    put(bench, Statement(bench.document(BOB, "dnd", resource="b"), keeps_ids=True), key="b")
    natives = [dict(one.content.natives) for one in bench.xmpp.take() if one.content is not None]
    assert natives == [
        {"ID-a": ("xmpp", b"<c/>")},
        {"ID-a": ("xmpp", b"<c/>")},
        {"ID-a": ("xmpp", b"<status>bye</status>")},
        {},
    ]


class TestSecured:
    """Signed and sealed presence (SEED-39, SEED-46, PRES-22)."""

    @staticmethod
    def signed(bench: PresenceBench, word: str = "available") -> Statement:
        """A statement with what stands for the signed entity: its octets are not looked at here."""
        document = bench.document(BOB, word)
        return Statement(document, MimeObject.of("multipart/signed; boundary=b", b"--b\r\n" + document.raw))

    @in_loop
    async def test_a_signed_document_goes_whole_while_it_is_all_there_is(self) -> None:
        bench = await watched()
        statement = self.signed(bench)
        put(bench, statement, key="a")
        put(bench, Statement(bench.document(BOB, "dnd")), key="b")
        bench.presence.unpublish(WHO, bench.origin(BOB), key="b")
        whole = [one.content.whole for one in bench.xmpp.take() if one.content is not None]
        assert whole == [statement.secured, None, statement.secured]

    @in_loop
    async def test_who_may_not_see_everything_gets_no_signature(self) -> None:
        bench = await watched()
        await bench.rules(BOB, RULES)
        bench.xmpp.take()
        put(bench, self.signed(bench), key="a")
        (told,) = bench.xmpp.take()
        assert told.content is not None
        assert told.content.whole is None
        assert b"multipart" not in told.content.object.entity

    @in_loop
    async def test_what_is_sealed_is_unknown_to_others_and_not_closed(self) -> None:
        bench = await watched()
        sealed = MimeObject.of("application/pkcs7-mime; smime-type=enveloped-data", b"\x30\x80")
        put(bench, Statement(None, sealed), key="a")
        (told,) = bench.xmpp.take()
        assert told.content is not None
        assert told.content.whole == sealed
        document = told.content.document
        assert document is not None
        assert document_state(document, bench.clock.when()).availability is Availability.UNKNOWN
        assert len(document.tuples) == 1


RULES = """<?xml version="1.0" encoding="UTF-8"?>
<ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:pr="urn:ietf:params:xml:ns:pres-rules">
<rule id="a"><conditions><identity><one id="im:alice@a.test"/></identity></conditions>
<actions><pr:sub-handling>allow</pr:sub-handling></actions>
<transformations><pr:provide-services><pr:all-services/></pr:provide-services></transformations></rule></ruleset>"""


@pytest.mark.parametrize("lease", [0, -5])
@in_loop
async def test_a_lease_of_nothing_is_refused(lease: int) -> None:
    bench = await watched()
    assert reason(put(bench, Statement(bench.document(BOB)), lease=lease)) is Reason.SYNTAX
