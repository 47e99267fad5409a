"""kill -9 around the hand-over to another server, over APEX and XMPP (SIP: test_neighbours.py): between the hop's yes and our note of it,
and between the hop's note and its yes. Nothing is lost; what comes again is known (F-K8, F-K4; reliability.md sections 5.1, 5.3)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from comity.client import text_object
from comity.cpim.operations import Status
from tests.paths.kit import ServerProcess, Via, take
from tests.paths.neighbours import ALICE, BOB, Neighbours
from tests.paths.test_neighbours import run, texts


@pytest.fixture(scope="module", params=["apex", "xmpp"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    via: Via = request.param
    with Neighbours(tmp_path_factory.mktemp("kills"), via, "tls") as neighbours:
        yield neighbours


@pytest.mark.slow
@pytest.mark.parametrize("dying", ["ours", "theirs"])
def test_a_kill_around_the_hand_over_loses_nothing_and_repeats_nothing(both: Neighbours, dying: str) -> None:
    """``delivery.before-ack`` here: the other server said yes, we do not know it. ``service.after-commit`` there: it has the message
    and did not say so. Either way we send again, and the other server knows the repeat."""

    def again(server: ServerProcess, failpoint: str = "") -> None:
        server.kill()
        server.start(failpoint)

    async def story() -> None:
        victim, failpoint = (both.a, "delivery.before-ack") if dying == "ours" else (both.b, "service.after-commit")
        await asyncio.to_thread(again, victim, failpoint)
        thing = text_object(ALICE, BOB, f"once, {dying}")
        async with both.a.client("sip", ALICE, receive=False) as alice:
            sending = asyncio.ensure_future(alice.send(thing, BOB))
            assert await asyncio.to_thread(victim.reap) == -signal.SIGKILL
            await asyncio.gather(sending, return_exceptions=True)
        await asyncio.to_thread(victim.start)
        await asyncio.to_thread(both.a.run, "queue", "retry", "-c", str(both.a.config))
        async with both.b.client("xmpp", BOB) as bob, both.a.client("sip", ALICE, receive=False) as alice:
            receiving = asyncio.ensure_future(take(bob, 2))
            answer = await alice.send(text_object(ALICE, BOB, f"after, {dying}"), BOB)
            assert answer.status is not Status.FAILURE
            assert texts(await receiving) == [f"once, {dying}", f"after, {dying}"]
        assert both.a.waiting() == both.b.waiting() == 0

    run(story())
