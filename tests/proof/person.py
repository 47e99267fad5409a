"""The people of a run: each keeps signing in, sends what it has, repeats what got no answer, and writes it all down.

A ``Person`` is one device of one user. A ``Lane`` is one conversation it sends in: numbered messages, those without an
answer first, in order, as a real program does after a lost connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal

from comity.bindings.base import Transport
from comity.client import Client, ClientError, Received
from comity.cpim.operations import Reason, Response, Status
from tests.paths.kit import Via
from tests.proof.history import History
from tests.proof.things import Thing, address_of
from tests.proof.world import ProofServer

Presence = Literal["always", "flapping", "late", "never"]
WINDOW: dict[Via, int] = {"sip": 1, "xmpp": 32, "apex": 32}
NOT_NOW = frozenset({Reason.OVERLOAD, Reason.QUOTA, Reason.AWAY})
"""A definite no of this moment: the same message is tried again."""
NOT_KNOWN = frozenset({Reason.INTERNAL, Reason.TIMEOUT})
"""No answer at all, whatever words it came in."""


class Lane:
    """One conversation: a sender, a recipient, messages numbered from 0."""

    def __init__(self, conv: str, sender: Person, recipient: str, next_thing: Callable[[Lane], Thing | None]) -> None:
        self.conv = conv
        self.sender = sender
        self.recipient = recipient
        self.things: list[Thing] = []
        self.wake = asyncio.Event()
        self.allowance = 0.0
        """Messages it may make now; filled by the workload's rate."""
        self.acked = 0
        self.delivered = 0
        self.refused = 0
        self.reported = 0
        self._next_thing = next_thing
        self._open: deque[int] = deque()
        """Numbers without a final answer, in order."""

    @property
    def is_settled(self) -> bool:
        """Every message made has its final answer."""
        return not self._open

    @property
    def undelivered(self) -> int:
        """Messages made that have not come to an end yet."""
        return len(self.things) - self.delivered - self.refused - self.reported

    def arrived(self, k: int) -> None:
        """Message ``k`` arrived somewhere."""
        if 0 <= k < len(self.things) and not self.things[k].was_delivered:
            self.things[k].was_delivered = True
            self.delivered += 1
            self.wake.set()

    def failed(self, k: int) -> None:
        """The server reported that message ``k`` failed."""
        if 0 <= k < len(self.things) and not (self.things[k].was_reported or self.things[k].was_refused):
            self.things[k].was_reported = True
            self.reported += 1
            self.wake.set()

    def add(self, thing: Thing) -> None:
        """One more to send."""
        self.things.append(thing)
        self._open.append(thing.k)
        self.wake.set()

    def _take(self, now: float) -> Thing | None:
        """The next to hand over; None: nothing now."""
        while self._open and self.things[self._open[0]].is_final:
            self._open.popleft()
        for k in self._open:
            thing = self.things[k]
            if not thing.is_final and not thing.is_under_way:
                return thing if thing.retry_at <= now else None  # never a later one before it
        if self.allowance >= 1 and (made := self._next_thing(self)) is not None:
            self.allowance -= 1
            self.add(made)
            return made
        return None

    async def feed(self, client: Client, session: Session) -> None:
        """Hand over as much as the window allows, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self.wake.clear()
            while session.under_way.get(self.conv, 0) < WINDOW[self.sender.via] and not session.is_lost:
                thing = self._take(loop.time())
                if thing is None:
                    break
                self._hand_over(client, session, thing)
            await self.wake.wait()

    def _hand_over(self, client: Client, session: Session, thing: Thing) -> None:
        person = self.sender
        thing.is_under_way = True
        session.under_way[self.conv] = session.under_way.get(self.conv, 0) + 1
        note = f"session={session.number} to={self.recipient}"
        level, sha256 = thing.level, thing.object.fingerprint
        person.write("invoke", conv=self.conv, k=thing.k, id=thing.id, sha256=sha256, level=level, note=note)
        from_ = address_of(thing.seen_from) if thing.seen_from else None
        future = client.send(thing.object, address_of(self.recipient), key=thing.id, from_=from_)
        session.futures.add(future)
        future.add_done_callback(partial(self._ended, session, thing))

    def _ended(self, session: Session, thing: Thing, future: asyncio.Future[Response]) -> None:
        session.futures.discard(future)
        session.under_way[self.conv] -= 1
        thing.is_under_way = False
        write = partial(self.sender.write, conv=self.conv, k=thing.k, id=thing.id)
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or error is not None:
            if error is not None and not isinstance(error, ClientError):
                self.sender.failed(error)
            write("info", level="left" if error is None else "lost")
            session.is_lost = session.is_lost or self.sender.transport != "udp"
        else:
            self._answered(thing, future.result(), write)
        self.wake.set()

    def _answered(self, thing: Thing, response: Response, write: Callable[..., None]) -> None:
        if response.status is not Status.FAILURE:
            thing.is_final = True
            self.acked += 1
            write("ok", level="delivered" if response.status is Status.SUCCESS else "accepted")
            return
        assert response.reason is not None
        write("info" if response.reason in NOT_KNOWN else "fail", level=response.reason.value)
        if response.reason in NOT_NOW | NOT_KNOWN:
            thing.retry_at = asyncio.get_running_loop().time() + 0.2
        else:
            thing.is_final = True
            if not thing.was_reported:
                thing.was_refused = True
                self.refused += 1


@dataclass(slots=True)
class Session:
    """One connection of one person."""

    number: int
    futures: set[asyncio.Future[Response]]
    under_way: dict[str, int]
    """By conversation."""
    is_lost: bool = False


class Person:
    """One device of one user, which keeps coming back.

    Args:
        server: where it has its account.
        user: whose device it is.
        presence: when it is there; "never" until the workload sends everybody home.
    """

    def __init__(
        self,
        server: ProofServer,
        history: History,
        user: str,
        via: Via,
        transport: Transport,
        took: Callable[[Person, Session, Received], None],
        *,
        presence: Presence = "always",
        dice: Random,
    ) -> None:
        self.user = user
        self.via = via
        self.transport = transport
        self.presence = presence
        self.late = (4.0, 12.0)
        """Least and most seconds until a "late" one comes for the first time."""
        self.lanes: list[Lane] = []
        self.sessions = 0
        self.client: Client | None = None
        self.error: BaseException | None = None
        """What went wrong in the harness itself."""
        self._server = server
        self._history = history
        self._took = took
        self._dice = dice
        self._home = asyncio.Event()
        """Set when everybody has to be there until the end."""
        self._over = asyncio.Event()

    @property
    def name(self) -> str:
        """Name of the device in the history."""
        return f"{self.user}/{self.via}-{self.transport}"

    def write(self, op: Literal["invoke", "ok", "fail", "info", "deliver", "report"], **fields: object) -> None:
        """Write what this device just saw."""
        self._history.add(op, self.name, edge=f"{self.via}/{self.transport}", **fields)  # type: ignore[arg-type]  # passed on

    def failed(self, error: BaseException) -> None:
        """Remember a mistake of the harness; the workload ends with it."""
        self.error = self.error or error

    def come_home(self) -> None:
        """Be there, and stay."""
        self._home.set()

    def end(self) -> None:
        """Sign out for good."""
        self._home.set()
        self._over.set()

    async def live(self) -> None:
        """Sign in, send and receive; again whenever the connection is lost or it is time to go."""
        is_first = True
        while not self._over.is_set():
            await self._be_away(is_first)
            is_first = False
            try:
                async with self._client() as client:
                    await self._be_there(client)
            except ClientError:
                pass  # the server is away: try again
            if not self._over.is_set():
                await within(self._over.wait(), 0.1)

    async def _be_away(self, is_first: bool) -> None:
        seconds = 0.0
        if self.presence == "never" or (self.presence == "late" and is_first):
            seconds = 1e6 if self.presence == "never" else self._dice.uniform(*self.late)
        elif self.presence == "flapping" and not is_first:
            seconds = self._dice.uniform(0.2, 3)
        if seconds and not self._home.is_set():
            await within(self._home.wait(), seconds)

    async def _be_there(self, client: Client) -> None:
        self.sessions += 1
        session = Session(self.sessions, set(), {})
        self.client = client
        self._history.mark("connected", f"session={session.number}", self.name)
        tasks = {asyncio.ensure_future(lane.feed(client, session)) for lane in self.lanes}
        tasks |= {asyncio.ensure_future(self._receive(client, session)), asyncio.ensure_future(self._leave())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.client = None
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, ClientError):
                    self.failed(result)
            for future in list(session.futures):
                future.cancel()
            await asyncio.gather(*session.futures, return_exceptions=True)
            self._history.mark("disconnected", f"session={session.number}", self.name)

    def _client(self) -> Client:
        """A client that is not signed in yet; every other one leaves it to this person to come back."""
        patience = 0.0 if self.user[-1] in "13579" else 30.0
        return self._server.client(self.via, address_of(self.user), self.transport, patience=patience)

    async def _receive(self, client: Client, session: Session) -> None:
        async for received in client.messages():
            self._took(self, session, received)

    async def _leave(self) -> None:
        """Ends when it is time to go."""
        if self.presence == "flapping" and not self._home.is_set():
            await within(self._home.wait(), self._dice.uniform(1, 8))
            if not self._home.is_set():
                return
        await self._over.wait()


async def within(work: Callable[..., object] | object, seconds: float) -> None:
    """Wait for something, but not longer; the people of a run live in real time."""
    try:
        await asyncio.wait_for(work, seconds)  # type: ignore[arg-type]  # an awaitable
    except TimeoutError:
        return
