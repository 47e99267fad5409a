"""A story of what accounts decide, told by a process that can be killed: ``python -m tests.service.presence.acts DIRECTORY``.

It opens the store of the directory, takes up what is there, and says ``done N`` when the Nth act was answered.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from comity.service.presence.interfaces import Decision, Default
from comity.store import SqliteStore
from tests.service.presence.desk import ALICE, BOB, CAROL, DAVE, Desk, by

Act = Callable[[Desk], Awaitable[object]]

STORY: tuple[Act, ...] = (
    lambda desk: desk.ask(ALICE, BOB, "hello"),
    lambda desk: desk.answer(BOB, ALICE, Decision.ALLOWED),
    lambda desk: desk.ask(BOB, ALICE),
    lambda desk: desk.answer(ALICE, BOB, Decision.REFUSED),
    lambda desk: desk.answer(CAROL, ALICE, Decision.ALLOWED),  # approved in advance
    lambda desk: desk.ask(ALICE, CAROL),
    lambda desk: desk.answer(BOB, ALICE, Decision.POLITE),
    lambda desk: desk.withdraw(ALICE, BOB),
    lambda desk: desk.contacts.put(ALICE, DAVE, "Dave", ("Work",), by(ALICE)),
    lambda desk: desk.contacts.remove(ALICE, CAROL, by(ALICE)),
    lambda desk: desk.contacts.remove(CAROL, ALICE, by(CAROL)),
    lambda desk: desk.contacts.block(ALICE, [DAVE], by(ALICE)),
    lambda desk: desk.contacts.unblock(ALICE, None, by(ALICE)),
    lambda desk: desk.ask(CAROL, BOB),
    lambda desk: desk.decisions.set_default(BOB, Default.EVERYONE, by(BOB)),
    lambda desk: desk.ask(DAVE, BOB),
    lambda desk: desk.answer(BOB, DAVE, Decision.REFUSED),
)


async def picture(desk: Desk) -> list[object]:
    """All that is kept, without versions and times."""
    kept: list[object] = [desk.keeping.blocks.of(ALICE), await desk.decisions.default(BOB)]
    for account in (ALICE, BOB, CAROL, DAVE):
        book = await desk.keeping.relations.load(account)
        for key in sorted(book.items):
            item = book.items[key]
            kept.append(replace(item, version=0, ask=item.ask and replace(item.ask, when=0.0)))
    return kept


async def main(directory: Path) -> None:
    """Tell the story."""
    desk = await Desk(await SqliteStore.open(directory)).start()
    print("ready", flush=True)
    for number, act in enumerate(STORY, 1):
        await act(desk)
        print("done", number, flush=True)
    await desk.store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
