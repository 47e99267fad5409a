"""Two people with our own client, for every pair of protocols: ask for a receipt, give one, see it (RFC 5438, IMDN-8)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest

from comity.cli.listening import receipt_for
from comity.client import Received, text_object
from comity.cpim.imdn import POSITIVE
from comity.cpim.message import CpimMessage
from comity.cpim.operations import Status
from tests.paths.kit import ALICE, BOB, ServerProcess, Via

VIAS: list[Via] = ["sip", "xmpp", "apex"]


@pytest.mark.parametrize(("source", "sink"), [(a, b) for a in VIAS for b in VIAS])
def test_a_receipt_comes_back_as_an_object_of_the_recipients_own(server: ServerProcess, source: Via, sink: Via) -> None:
    """The object that asks, and the one that answers, cross unchanged; whoever only carries them adds nothing to either."""

    async def story() -> None:
        async with asyncio.timeout(30), AsyncExitStack() as stack:
            alice = await stack.enter_async_context(server.client(source, ALICE))
            bob = await stack.enter_async_context(server.client(sink, BOB))
            thing = text_object(ALICE, BOB, "Did you get it?", asks=(POSITIVE,))
            sending = asyncio.ensure_future(alice.send(thing, BOB))
            theirs, hers = bob.messages(), alice.messages()
            got = await anext(theirs)
            assert got.object.octets == thing.octets
            taken = asyncio.ensure_future(anext(theirs))
            answer = receipt_for(got, datetime.now(UTC))
            assert answer is not None
            answering = asyncio.ensure_future(bob.send(answer, got.from_))
            told: list[Received] = []
            about = CpimMessage.parse(thing.octets).message_id
            while not told or told[-1].report is not None:
                came = await anext(hers)
                if came.notice is None or came.notice.message_id == about:  # not what an earlier story left
                    told.append(came)
            telling = asyncio.ensure_future(anext(hers))
            assert (await sending).status is not Status.FAILURE
            assert (await answering).status is not Status.FAILURE
            for waiting in (taken, telling):
                waiting.cancel()
            await asyncio.gather(taken, telling, return_exceptions=True)
        *early, last = told
        notice = last.notice
        assert notice is not None
        assert last.object.octets == answer.octets
        assert last.from_ == BOB
        assert (notice.status, notice.message_id) == ("delivered", about)
        assert receipt_for(last, datetime.now(UTC)) is None  # IMDN-4
        assert not [one for one in early if one.report], "one receipt, that of who has the request (IMDN-6)"

    asyncio.run(story())
