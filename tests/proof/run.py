"""One run: a server, a workload, a nemesis; then heal, drain, recover twice; a history and what the checker says of it."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.paths.kit import PASSWORD
from tests.proof import checker
from tests.proof.history import History, read
from tests.proof.ledger import Ledger
from tests.proof.nemesis import Life, Nemesis
from tests.proof.person import within
from tests.proof.workload import Size, Workload
from tests.proof.world import BOUNDS, ProofServer

DRAIN_SECONDS = 120.0
SAMPLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """How one run went."""

    directory: Path
    verdict: checker.Verdict
    fired: int
    """Kills at failpoints."""
    killed: int
    """Kills at random."""
    missed: tuple[str, ...]
    is_drained: bool
    """Everything that was sent came to its end before the drain was over."""

    @property
    def is_kept(self) -> bool:
        """The promise was kept, and the run came to its end."""
        return not self.verdict.violations and self.is_drained


def run(
    directory: Path,
    template: Path,
    seed: int,
    plan: Sequence[Life],
    size: Size,
    *,
    program: str = "comity",
    quiet_seconds: float = 3.0,
    drain_seconds: float = DRAIN_SECONDS,
    recoveries: int = 2,
    progress: Callable[[str], None] = lambda text: None,
) -> Run:
    """Carry out one run in a new directory; the history stays there.

    Args:
        directory: made here.
        template: of ``world.make_template``, with the users of ``size``.
        seed: decides people, messages and bodies.
        plan: what is done to the server.
        size: how much is sent.
        program: the module to run instead of the real server.
        quiet_seconds: how long nothing may arrive until all is over.
        drain_seconds: how long what is on its way may stand still at the end.
        recoveries: kills and starts after the end (I14).
        progress: called with lines of text.
    """
    directory.mkdir(parents=True)
    server = ProofServer(directory, template)
    canary = hashlib.sha256(f"canary {seed}".encode()).hexdigest()[:20]
    with History(directory / "history.jsonl") as history:
        bounds = " ".join(f"{name}={value}" for name, value in BOUNDS.items())
        password = PASSWORD.replace(" ", "+")
        history.mark("begin", f"seed={seed} lives={len(plan)} canary={canary} password={password} {bounds}")
        try:
            nemesis, is_drained = asyncio.run(
                _whole(
                    server,
                    history,
                    seed,
                    canary,
                    plan,
                    size,
                    program,
                    (quiet_seconds, drain_seconds, recoveries),
                    progress,
                )
            )
        finally:
            server.kill()
    verdict = checker.check(Ledger(read(history.path)), [server.log])
    missed = tuple(nemesis.missed)
    return Run(directory, verdict, nemesis.fired, nemesis.killed, missed, is_drained)


async def _whole(
    server: ProofServer,
    history: History,
    seed: int,
    canary: str,
    plan: Sequence[Life],
    size: Size,
    program: str,
    patience: tuple[float, float, int],
    progress: Callable[[str], None],
) -> tuple[Nemesis, bool]:
    workload = Workload(server, history, seed, canary, size)
    nemesis = Nemesis(server, history, workload, program=program, progress=progress)
    over = asyncio.Event()
    living = asyncio.ensure_future(workload.run(over))
    sampling = asyncio.ensure_future(_sample(server, history))
    ruling = asyncio.ensure_future(_rule(workload, nemesis, history, plan, patience, progress))
    try:
        await asyncio.wait([living, ruling], return_when=asyncio.FIRST_COMPLETED)
        if not ruling.done():  # the people died: the run is the harness's failure
            ruling.cancel()
        over.set()
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
        await living
        if (problem := workload.problem()) is not None:
            raise problem
        is_drained = await ruling
        if server.is_alive:
            await nemesis.stop()
        return nemesis, is_drained
    finally:
        over.set()
        await asyncio.gather(living, ruling, sampling, return_exceptions=True)


async def _rule(
    workload: Workload,
    nemesis: Nemesis,
    history: History,
    plan: Sequence[Life],
    patience: tuple[float, float, int],
    progress: Callable[[str], None],
) -> bool:
    workload.is_sending = True
    await nemesis.carry_out(plan)
    await nemesis.start()
    await within(asyncio.Event().wait(), 0.5)  # life goes on
    workload.is_sending = False
    for person in workload.people:
        person.come_home()
    quiet_seconds, drain_seconds, recoveries = patience
    is_drained = await _drain(workload, quiet_seconds, drain_seconds, progress)
    history.mark("quiet", f"drained={is_drained}")
    for _ in range(recoveries):  # recovery twice is recovery once (I14)
        await nemesis.kill()
        nemesis.killed -= 1
        await nemesis.start()
        await within(asyncio.Event().wait(), min(quiet_seconds, 1.5))
    return is_drained


async def _drain(
    workload: Workload, quiet_seconds: float, drain_seconds: float, progress: Callable[[str], None]
) -> bool:
    """Wait until nothing is on its way and nothing came for a while; False if nothing comes although it should."""
    loop = asyncio.get_running_loop()
    workload.last_event = loop.time()
    while loop.time() < workload.last_event + drain_seconds:
        is_done = workload.is_settled and not workload.missing
        if is_done and loop.time() - workload.last_event >= quiet_seconds:
            return True
        if workload.problem() is not None:
            return False
        await within(asyncio.Event().wait(), 0.1)
    progress(f"nothing came for {drain_seconds:g} s: {workload.missing} have not arrived")
    return False


async def _sample(server: ProofServer, history: History) -> None:
    """A sample of the server a second (I13)."""
    while True:
        found = await server.sample()
        if found:
            history.mark("sample", " ".join(f"{name}={value}" for name, value in found.items()), "server")
        await within(asyncio.Event().wait(), SAMPLE_SECONDS)


def smaller(
    directory: Path, template: Path, seed: int, plan: Sequence[Life], size: Size, progress: Callable[[str], None]
) -> list[Life]:
    """The shortest beginning of a plan, of those tried, that still breaks the promise; its run is kept.

    The same seed does not give the same moments: a beginning that breaks nothing this time may break something
    another time, so what comes out is a plan to look at, not a proof that nothing shorter would do."""
    low, best = 0, list(plan)
    while low + 1 < len(best):
        length = (low + len(best)) // 2
        where = directory / f"first-{length}"
        found = run(where, template, seed, plan[:length], size)
        progress(f"the first {length} lives: {'kept' if found.is_kept else checker.as_text(found.verdict)}")
        if found.verdict.violations:
            best = list(plan[:length])
        else:
            shutil.rmtree(where)
            low = length
    return best
