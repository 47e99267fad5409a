"""N conversations over all four pairs of protocols, SIP over TCP and UDP, in one process with one clock.

Who sends what is a function of the seed; when it is sent, of the machine. Everything that happens is in the history.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from random import Random
from typing import Literal
from unittest import mock

from comity.bindings.base import Transport
from comity.client import Received
from tests.paths.kit import Via
from tests.proof.history import History
from tests.proof.odd_people import RefusingPerson
from tests.proof.person import Lane, Person, Presence, Session, within
from tests.proof.things import REPORTER, Level, Maker, Thing, address_of, look, place_of, user_of
from tests.proof.world import ProofServer

Pair = tuple[Via, Via]
VIAS: tuple[Via, ...] = ("sip", "xmpp", "apex")
PAIRS: tuple[Pair, ...] = tuple((source, sink) for source in VIAS for sink in VIAS)
SHARES = 10
"""Times a second at which messages are allowed."""
AHEAD = 60
"""Messages of one conversation on their way at once: more only makes the drain longer."""


@dataclass(frozen=True, slots=True)
class Size:
    """How big a run is."""

    conversations: int = 18
    sip_tcp: int = 4
    """People on SIP over TCP; further ones over UDP, on XMPP and on APEX."""
    sip_udp: int = 2
    xmpp: int = 6
    apex: int = 4
    rate: float = 200.0
    """Messages a second, all conversations together; what the server cannot do is not asked for twice."""
    impostors_every: float = 2.0
    """Seconds between two attempts of each impostor to write as somebody else, about; 0: there are none."""
    always_there: bool = False
    """True: nobody comes and goes."""
    pairs: tuple[Pair, ...] = PAIRS
    """Protocols of sender and recipient, in turn."""
    levels: tuple[Level, ...] = ()
    """Kinds of message, in turn; empty: all kinds, by chance."""
    recipients: Literal["there", "late", "last", "refusing"] = "there"
    """Of runs with one pair: who receives is there from the beginning, comes after a second, comes when nobody sends
    any more, or comes after a second and refuses all."""

    def users(self) -> list[str]:
        """Every account a run of this size needs."""
        people = [f"s{n}" for n in range(self.sip_tcp)] + [f"u{n}" for n in range(self.sip_udp)]
        return [
            *people,
            *(f"x{n}" for n in range(self.xmpp)),
            *(f"a{n}" for n in range(self.apex)),
            "mallory",
            "mallet",
        ]


class Workload:
    """The people of a run and their conversations."""

    def __init__(self, server: ProofServer, history: History, seed: int, canary: str, size: Size) -> None:
        self.size = size
        self.people: list[Person] = []
        self.lanes: dict[str, Lane] = {}
        self.is_sending = False
        self.opened = asyncio.Event()
        """Set when the server is ready for the first time: a datagram sent before is lost for half a second."""
        self.last_event = 0.0
        """When something last arrived anywhere, by the loop's clock."""
        self._server = server
        self._history = history
        self._dice = Random(seed)
        self._maker = Maker(seed, canary, size.users())
        self._receipted: set[str] = set()
        self._share = size.rate / max(1, size.conversations) / SHARES
        self._cast()

    # --- who is there ------------------------------------------------------------------------------------------

    def _cast(self) -> None:
        size = self.size
        plans: Iterator[Presence] = cycle(("always", "flapping", "late", "always"))
        groups: list[tuple[str, int, Via, Transport]] = [
            ("s", size.sip_tcp, "sip", "tcp"),
            ("u", size.sip_udp, "sip", "udp"),
            ("x", size.xmpp, "xmpp", "tcp"),
            ("a", size.apex, "apex", "tcp"),
        ]
        for prefix, count, via, transport in groups:
            for n in range(count):
                # A datagram device that leaves while the server is away keeps its lane waiting for 32 s, as it must.
                is_steady = size.always_there or transport == "udp"
                self._person(f"{prefix}{n}", via, transport, "always" if is_steady else next(plans))
        if size.xmpp > 2:
            self._person("x0", "sip", "tcp", "flapping" if not size.always_there else "always")  # x0's second device
        by_via: dict[Via, list[Person]] = {
            via: [person for person in self.people if person.via == via and (person.user != "x0" or via == "xmpp")]
            for via in VIAS
        }
        for n in range(size.conversations):
            source, sink = size.pairs[n % len(size.pairs)]
            turn = n // len(size.pairs)
            sender = by_via[source][turn % len(by_via[source])]
            others = [person for person in by_via[sink] if person.user != sender.user]
            recipient = others[(turn * 3 + n) % len(others)]
            if size.recipients != "there":
                recipient = others[-1]
                recipient.presence = "never" if size.recipients == "last" else "late"
                recipient.late = (1.0, 1.2)
            self._converse(f"c{n:02}", sender, recipient)
        if size.impostors_every:
            for user, via, transport in (("mallory", "sip", "tcp"), ("mallet", "xmpp", "tcp")):
                person = self._person(user, via, transport, "always")
                self._add_lane(Lane(f"i-{via}", person, "x1" if size.xmpp > 1 else "x0", self._forged))

    def _person(self, user: str, via: Via, transport: Transport, presence: Presence) -> Person:
        dice = Random(f"{self._dice.random()}/{user}/{via}")
        is_refusing = via == "sip" and self.size.recipients == "refusing" and user not in ("s0", "u0")
        kind = RefusingPerson if is_refusing else Person
        person = kind(self._server, self._history, user, via, transport, self._took, presence=presence, dice=dice)
        self.people.append(person)
        return person

    def _converse(self, conv: str, sender: Person, recipient: Person) -> None:
        self._add_lane(Lane(conv, sender, recipient.user, self._next))
        self._add_lane(Lane(f"{conv}r", recipient, sender.user, lambda lane: None))

    def _add_lane(self, lane: Lane) -> None:
        self.lanes[lane.conv] = lane
        lane.sender.lanes.append(lane)

    # --- what is sent --------------------------------------------------------------------------------------------

    def _next(self, lane: Lane) -> Thing | None:
        if not self.is_sending or lane.undelivered > AHEAD:
            return None
        k = len(lane.things)
        is_udp = "u" in (lane.sender.user[0], lane.recipient[0])
        kinds: list[Level] = ["plain", "binary", "binary", "receipt", "signed", "large"]
        level: Level = "small" if is_udp else self._dice.choices(kinds, (40, 25, 20, 5, 7, 3))[0]
        if lane.sender.via == "sip" and self._dice.random() < 0.15:
            level = "native"
        if self.size.levels and not is_udp:
            level = self.size.levels[k % len(self.size.levels)]
        return self._maker.make(lane.conv, k, lane.sender.user, lane.recipient, level)

    def _forged(self, lane: Lane) -> Thing | None:
        """Somebody writes in another's name, now and then (G8)."""
        lane.allowance = -self.size.impostors_every * SHARES * self._share
        if not self.is_sending:
            return None
        victim = self._dice.choice(
            [user for user in self.size.users() if user not in (lane.sender.user, lane.recipient)]
        )
        k = len(lane.things)
        return self._maker.make(lane.conv, k, lane.sender.user, lane.recipient, "impostor", seen_from=victim)

    # --- what arrives ----------------------------------------------------------------------------------------------

    def _took(self, person: Person, session: Session, received: Received) -> None:
        self.last_event = asyncio.get_running_loop().time()
        sender = user_of(received.from_.uri)
        if received.report is not None and not received.id:  # an XMPP error; a SIP report names the message by its IMDN
            person.write("report", id=received.report.native_id, level="failed", note=f"from={sender}")
            self._failed(received.report.native_id)
            return
        seen = look(received.object)
        if sender == REPORTER:
            level = "failed" if seen.is_failure else "unknown"
            about = seen.about
            if received.report is not None and place_of(about)[0] not in self.lanes:
                about = (
                    received.report.native_id
                )  # a bare text has no Message-ID its sender knows: her Call-ID names it
            person.write("report", id=about, level=level, note=f"from={sender} wire={received.id}")
            self._failed(about)
            return
        conv, k = place_of(seen.id)
        level = "late" if received.is_delayed else ""
        if seen.is_signed:
            own = address_of(person.user)
            level = "signed:" + self._maker.verdict(received.object, received.from_, own)
        note = f"from={sender} inner={seen.inner} wire={received.id} session={session.number}"
        person.write("deliver", conv=conv, k=k, id=seen.id, sha256=seen.sha256, level=level, note=note)
        lane = self.lanes.get(conv)
        if lane is not None:
            lane.arrived(k)
        if seen.about:
            person.write("report", id=seen.about, level="delivered", note=f"from={sender} wire={received.id}")
        elif seen.asks_receipt and seen.id not in self._receipted:
            self._receipted.add(seen.id)
            back = self.lanes[f"{conv}r"]
            if back.sender.user == person.user:
                back.add(self._maker.receipt(back.conv, len(back.things), person.user, sender, seen.id))

    def _failed(self, id: str) -> None:
        conv, k = place_of(id)
        lane = self.lanes.get(conv)
        if lane is not None:
            lane.failed(k)

    # --- running ---------------------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Every message has its final answer."""
        return all(lane.is_settled for lane in self.lanes.values())

    @property
    def missing(self) -> int:
        """Messages made that have not arrived, those refused left out."""
        return sum(lane.undelivered for lane in self.lanes.values())

    @property
    def acked(self) -> int:
        """Messages acknowledged so far."""
        return sum(lane.acked for lane in self.lanes.values())

    def problem(self) -> BaseException | None:
        """A mistake of the harness itself, if there was one."""
        return next((person.error for person in self.people if person.error is not None), None)

    async def run(self, over: asyncio.Event) -> None:
        """Everybody lives until ``over``; then they sign out."""
        # A client that comes back 400 times does not stretch its password each time (RFC 5802 section 5.1).
        remembered = lru_cache(maxsize=None)(hashlib.pbkdf2_hmac)
        with mock.patch.object(hashlib, "pbkdf2_hmac", remembered):
            await self.opened.wait()
            living = [asyncio.ensure_future(person.live()) for person in self.people]
            pulse = asyncio.ensure_future(self._pulse())
            waiting = asyncio.ensure_future(over.wait())
            await asyncio.wait([*living, pulse, waiting], return_when=asyncio.FIRST_COMPLETED)
            for person in self.people:
                person.end()
            for task in (pulse, waiting):
                task.cancel()
            for result in await asyncio.gather(*living, pulse, waiting, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result

    async def _pulse(self) -> None:
        """Give each conversation its share of the rate."""
        never, share = asyncio.Event(), self._share
        while True:
            for lane in self.lanes.values():
                lane.allowance = min(lane.allowance + share, max(share * 5, 4.0))
                lane.wake.set()
            await within(never.wait(), 1 / SHARES)
