"""What is done to the server: a seeded plan of lives, each with its faults and the way it ends.

A *life* is one start of the server: armed with a failpoint or not, with faults at given seconds after it is ready, ended
by its failpoint, by kill -9, or by SIGTERM. The plan is a function of the seed; the first lives of a plan are a plan too,
which is how a failure is made smaller.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from comity.net.stream import StreamLink
from tests.proof.history import History
from tests.proof.person import within
from tests.proof.workload import Workload
from tests.proof.world import ProofServer

FaultKind = Literal["pause", "cut", "reload"]
#: Failpoints that fire under any load, with the most passages to wait for; tests/proof/points.py has the others too.
AT_RANDOM = {
    "net.read": 120,
    "net.written": 150,
    "net.half-written": 3,
    "service.before-commit": 40,
    "service.after-commit": 40,
    "store.before-insert": 60,
    "store.before-commit": 60,
    "store.after-commit": 60,
    "store.ack.before-commit": 30,
    "delivery.lease-taken": 40,
    "delivery.before-ack": 40,
    "delivery.after-ack": 40,
    "store.checkpoint": 2,
    "store.recovery": 1,
    "service.recovery": 1,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something done to a server that lives on."""

    at: float
    """Seconds after it is ready."""
    kind: FaultKind
    seconds: float = 0.0
    """How long it lasts."""
    target: int = 0
    """Which person's connection is reset, modulo their number."""


@dataclass(frozen=True, slots=True)
class Life:
    """One start of the server."""

    failpoint: str = ""
    """``name:nth`` at which it is to die."""
    seconds: float = 3.0
    """Until kill -9 or SIGTERM; with a failpoint: until it is given up and killed."""
    ending: Literal["kill", "stop"] = "kill"
    faults: tuple[Fault, ...] = ()
    after_acked: int = 0
    """It ends as soon as that many messages more are acknowledged, ``seconds`` at the latest."""
    is_aged: bool = False
    """Before it: what ended is made as old as retention ends."""


def make_plan(seed: int, at_failpoints: int, at_random: int) -> list[Life]:
    """A plan with that many kills of either kind, mixed."""
    dice = Random(f"plan {seed}")
    names = [name for _ in range(at_failpoints // len(AT_RANDOM) + 1) for name in AT_RANDOM][:at_failpoints]
    lives = [Life(f"{name}:{dice.randint(1, AT_RANDOM[name])}", seconds=6.0) for name in names]
    for number in range(at_random):
        seconds = dice.uniform(0.5, 5.0)
        faults: list[Fault] = []
        if seconds > 2 and dice.random() < 0.15:
            faults.append(Fault(dice.uniform(0.2, 1), "pause", dice.uniform(0.3, 1.5)))
        if dice.random() < 0.3:
            faults.append(Fault(dice.uniform(0.1, seconds), "cut", target=dice.randrange(100)))
        if dice.random() < 0.1:
            faults.append(Fault(dice.uniform(0.1, seconds), "reload"))
        is_orderly = number % 20 == 19
        lives.append(Life(seconds=seconds, faults=tuple(sorted(faults, key=lambda fault: fault.at))))
        if is_orderly:
            lives.append(Life(seconds=1.0, ending="stop"))
    dice.shuffle(lives)
    return lives


class Nemesis:
    """Carries out a plan.

    Args:
        program: the module to run instead of the real one: a sabotaged build.
        progress: called with a line of text after each life.
    """

    def __init__(
        self,
        server: ProofServer,
        history: History,
        workload: Workload,
        *,
        program: str = "comity",
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.fired = 0
        """Kills at failpoints."""
        self.missed: list[str] = []
        """Failpoints that were not passed in time."""
        self.killed = 0
        self._server = server
        self._history = history
        self._workload = workload
        self._program = program
        self._progress = progress

    async def carry_out(self, plan: Sequence[Life]) -> None:
        """Every life of the plan, one after the other; the server is dead afterwards."""
        for number, life in enumerate(plan, 1):
            await self._live(life)
            acked, missing = self._workload.acked, self._workload.missing
            ended = life.failpoint or life.ending
            self._progress(f"life {number}/{len(plan)} {ended}: {acked} acked, {missing} on their way")

    async def start(self, failpoint: str = "") -> bool:
        """Start the server and wait until it is ready; False if its failpoint killed it before."""
        try:
            await asyncio.to_thread(self._server.start, failpoint, self._program)
        except AssertionError:
            if not failpoint:
                raise
            self._history.mark("died", failpoint, "server")
            return False
        self._history.mark("ready", failpoint, "server")
        self._workload.opened.set()
        return True

    async def _live(self, life: Life) -> None:
        if life.is_aged:
            self._server.age()
        if not await self.start(life.failpoint):
            self.fired += 1
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        for fault in life.faults:
            if not await self._lives_until(began + fault.at):
                break
            await self._do(fault)
        enough = self._workload.acked + life.after_acked if life.after_acked else 0
        if not await self._lives_until(began + life.seconds, enough):
            if not await self._server.died(0):
                raise AssertionError("the server ended by itself: " + self._server.log.read_text("utf-8")[-2000:])
            self._history.mark("died", life.failpoint, "server")
            self.fired += 1
        elif life.ending == "stop":
            await self.stop(life.failpoint)
        else:
            if life.failpoint:
                self.missed.append(life.failpoint)
            await self.kill()

    async def _lives_until(self, when: float, enough: int = 0) -> bool:
        """Wait until then, or until ``enough`` messages are acknowledged; False as soon as the server is dead."""
        loop = asyncio.get_running_loop()
        while self._server.is_alive and loop.time() < when and not 0 < enough <= self._workload.acked:
            await within(asyncio.Event().wait(), min(0.02, max(when - loop.time(), 0.001)))
        return self._server.is_alive

    async def kill(self) -> None:
        """kill -9 now."""
        self._server.kill()
        self._history.mark("died", "kill -9", "server")
        self.killed += 1

    async def stop(self, failpoint: str = "") -> None:
        """An orderly stop: drain and exit 0, unless it dies at its failpoint on the way."""
        code = await asyncio.to_thread(self._server.stop)
        if failpoint and code == -signal.SIGKILL:
            self._history.mark("died", failpoint, "server")
            self.fired += 1
            return
        self._history.mark("stopped", f"code={code}", "server")
        if code:
            raise AssertionError(
                f"SIGTERM ended the server with {code}: " + self._server.log.read_text("utf-8")[-2000:]
            )

    async def _do(self, fault: Fault) -> None:
        match fault.kind:
            case "pause":
                self._history.mark("paused", f"seconds={fault.seconds:.2f}")
                self._server.send(signal.SIGSTOP)
                await within(asyncio.Event().wait(), fault.seconds)
                self._server.send(signal.SIGCONT)
            case "reload":
                self._server.send(signal.SIGHUP)
            case "cut":
                streams = [person for person in self._workload.people if person.transport != "udp"]
                person = streams[fault.target % len(streams)]
                link = getattr(person.client, "_link", None)
                if isinstance(link, StreamLink):
                    self._history.mark("cut", f"device={person.name}")
                    link.abort()
