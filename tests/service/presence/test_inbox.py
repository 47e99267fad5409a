"""Who may send messages: service/presence/inbox.py inside the pipeline (ACL-21, XEP-0191)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace

from comity.cpim.address import Address
from comity.cpim.message_rules import MESSAGE_RULES
from comity.cpim.operations import Reason, Response
from comity.service.interfaces import Accepted, Mark, Origin
from comity.service.presence.access import RULES
from comity.service.presence.interfaces import StoredDocument
from comity.service.presence.keeping import Keeping
from comity.testing.service import Bench, settle
from tests.service.presence.desk import ALICE, BOB, CAROL, by

STRANGER = Address.parse("im:nobody@a.test")


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


async def bench_with() -> tuple[Bench, Keeping]:
    bench = await Bench().start()
    keeping = Keeping(bench.store, bench.accounts, bench.clock.when, lambda account, watcher: None)
    await keeping.start()
    bench.pipeline.inbox = keeping.inbox
    return bench, keeping


async def put(keeping: Keeping, account: Address, handling: str, who: Address) -> None:
    octets = (
        '<ruleset xmlns="urn:ietf:params:xml:ns:common-policy"><rule id="m">'
        f'<conditions><identity><one id="{who.uri}"/></identity></conditions>'
        f'<actions><msg-handling xmlns="{MESSAGE_RULES}">{handling}</msg-handling></actions></rule></ruleset>'
    ).encode()
    done = await keeping.documents.put(account, RULES, "application/auth-policy+xml", octets, by(account))
    assert isinstance(done, StoredDocument), done


def test_a_blocked_senders_message_is_refused_like_one_to_nobody() -> None:
    """ACL-21: nothing is stored, and the sender cannot tell whether there is such a user."""

    async def main() -> None:
        bench, keeping = await bench_with()
        await keeping.contacts.block(BOB, [ALICE], by(BOB))
        refusal = await bench.submit(bench.operation("hello"))
        unknown = await bench.submit(bench.operation("hello", destination=STRANGER.uri))
        assert isinstance(refusal, Response)
        assert isinstance(unknown, Response)
        assert (refusal.reason, refusal.text) == (unknown.reason, unknown.text) == (Reason.NO_SUCH_USER, refusal.text)
        assert await bench.store.lanes() == []
        assert isinstance(await bench.submit(bench.operation("hello", source=CAROL.uri)), Accepted)

    run(main())


def test_whom_one_blocks_one_does_not_write_to() -> None:
    """XEP-0191 section 3.2: the answer could not be delivered."""

    async def main() -> None:
        bench, keeping = await bench_with()
        await keeping.contacts.block(ALICE, [Address("im", "", "a.test")], by(ALICE))
        refusal = await bench.submit(bench.operation("hello"))
        assert isinstance(refusal, Response)
        assert refusal.reason is Reason.DENIED

    run(main())


def test_unblocking_lets_the_next_one_pass_and_costs_nothing_again() -> None:
    async def main() -> None:
        bench, keeping = await bench_with()
        await keeping.contacts.block(BOB, [ALICE], by(BOB))
        assert not keeping.inbox.is_idle
        await keeping.contacts.unblock(BOB, None, by(BOB))
        assert keeping.inbox.is_idle
        assert isinstance(await bench.submit(bench.operation("hello")), Accepted)

    run(main())


def test_a_rule_blocks_and_another_account_is_not_concerned() -> None:
    """ACL-21: by the same rules as presence, at once, and over a restart."""

    async def main() -> None:
        bench, keeping = await bench_with()
        await put(keeping, BOB, "block", ALICE)
        for turn in range(2):
            refusal = await bench.submit(bench.operation("hello"))
            assert isinstance(refusal, Response)
            assert refusal.reason is Reason.NO_SUCH_USER
            assert isinstance(await bench.submit(bench.operation("hello", destination=CAROL.uri)), Accepted)
            if turn == 0:
                again = Keeping(bench.store, bench.accounts, bench.clock.when, lambda account, watcher: None)
                await again.start()
                bench.pipeline.inbox = again.inbox
        await again.documents.delete(BOB, RULES, by(BOB))
        assert again.inbox.is_idle
        assert await bench.store.scan("relation", "inbox/") == []
        assert isinstance(await bench.submit(bench.operation("hello")), Accepted)

    run(main())


def test_a_politely_blocked_sender_hears_what_one_hears_who_writes_to_somebody_away() -> None:
    """ACL-21: silent success; its stream's counters go on as if it had been stored."""

    async def main() -> None:
        bench, keeping = await bench_with()
        await put(keeping, BOB, "polite-block", ALICE)
        device = await bench.device(BOB.uri)
        operation = bench.operation("hello")
        origin = Origin(ALICE, "xmpp", "192.0.2.1", True, marks=(Mark("h/1", b"7"),))
        answer = await bench.pipeline.submit(operation, origin)
        await settle()
        away = await bench.submit(bench.operation("hello", destination=CAROL.uri))
        assert isinstance(answer, Accepted)
        assert isinstance(away, Accepted)
        assert len(answer.id) == len(away.id)
        assert answer.is_repeat is away.is_repeat is False
        assert replace(answer.outcome.result(), trans_id="") == replace(away.outcome.result(), trans_id="")
        assert device.deliveries == []
        assert [lane.lane for lane in await bench.store.lanes()] == ["inbox/im:carol@a.test"]
        assert await bench.store.get_mark("h/1") == b"7"
        assert bench.pipeline.lag == 0.0

    run(main())


def test_rules_about_presence_alone_leave_messages_alone() -> None:
    async def main() -> None:
        _, keeping = await bench_with()
        octets = b'<ruleset xmlns="urn:ietf:params:xml:ns:common-policy"/>'
        await keeping.documents.put(BOB, RULES, "application/auth-policy+xml", octets, by(BOB))
        assert keeping.inbox.is_idle
        assert await keeping.inbox._store.scan("relation", "inbox/") == []

    run(main())
