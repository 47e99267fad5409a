"""Says yes at once and writes half a second later, as a server with a write-behind cache does (breaks I1)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from comity.cli import main
from comity.service.interfaces import Accepted, Add, Op, Result
from comity.service.pipeline import Pipeline, Submission
from comity.store.sqlite import SqliteStore

BEHIND = 0.5
_accept, _commit = Pipeline._accept, SqliteStore.commit


def accept_at_once(self: Pipeline, submission: Submission, exists: bool) -> None:
    _accept(self, submission, exists)
    if exists:
        submission.say(Accepted(submission.operation.trans_id, submission.outcome))


def commit_later(self: SqliteStore, ops: Sequence[Op]) -> asyncio.Future[list[Result]]:
    if not any(isinstance(op, Add) for op in ops):
        return _commit(self, ops)
    loop = asyncio.get_running_loop()
    later: asyncio.Future[list[Result]] = loop.create_future()

    async def write() -> None:
        await asyncio.sleep(BEHIND)
        later.set_result(await _commit(self, ops))

    writing.add(loop.create_task(write()))
    return later


writing: set[asyncio.Task[None]] = set()

if __name__ == "__main__":
    Pipeline._accept = accept_at_once  # type: ignore[method-assign]  # the sabotage
    SqliteStore.commit = commit_later  # type: ignore[method-assign]  # the sabotage
    main(prog_name="comity")
