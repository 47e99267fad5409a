"""L-07: what waits for one user is bounded, by 1,000 messages or 64 MiB; others are not touched by it (reliability.md section 6.2)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from comity.client import text_object
from comity.cpim.operations import Reason, Response, Status
from tests.paths.kit import ALICE, BOB, ServerProcess, Via
from tests.paths.test_disk import RATES, receive, run

OCTETS = 40_000


@pytest.mark.parametrize("via", ["sip", "xmpp"])
@pytest.mark.parametrize(
    ("limits", "fits", "octets"),
    [("", 1000, 10), ('stored_octets = "1 MiB"', 1_048_576 // (OCTETS + 500), OCTETS)],
    ids=["1000-messages", "octets"],
)
def test_a_full_inbox_is_said_and_has_room_again_when_emptied(
    tmp_path: Path, via: Via, limits: str, fits: int, octets: int
) -> None:
    with ServerProcess(tmp_path, RATES + limits) as server:
        server.start()

        async def story() -> None:
            async with server.client(via, ALICE, receive=False) as alice:

                async def send(count: int) -> list[Response]:
                    sent = [alice.send(text_object(ALICE, BOB, "x" * octets), BOB) for _ in range(count)]
                    return await asyncio.gather(*sent)

                answers = await send(fits + 20)
                taken = [answer for answer in answers if answer.status is not Status.FAILURE]
                assert fits <= len(taken) <= fits + (octets > 1000)
                refused = answers[len(taken) :]
                full = Reason.AWAY if via == "sip" else Reason.OVERLOAD  # 480; wait/resource-constraint
                assert {answer.reason for answer in refused} == {full}, "the last ones, and only they"
                note = await alice.send(text_object(ALICE, ALICE, "a note"), ALICE)
                assert note.status is not Status.FAILURE, "another inbox has room"
                assert len(await receive(server, len(taken), left=1)) == len(taken)
                assert (await send(1))[0].status is not Status.FAILURE

        run(story())
        assert server.stop() == 0
