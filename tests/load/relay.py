"""Measure what a signed object costs the server beside an unsigned one: ``python -m tests.load.relay [ROUNDS]``.

A real ``comity serve``; Alice sends by XMPP or by SIP (TCP), Bob receives by XMPP, all durable. Objects are whole MIME
entities of 4 KiB: a multipart/signed message/cpim with its certificate, and a message/cpim of just as many octets. Both
are sent in turn, block by block (ABBA), so that whatever else the machine does meets both; CPU time is that of the
server process, all threads.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

from comity.client import Client, Received
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject, Status
from comity.secure import Identity, LocalCa, new_identity, sign
from tests.load.measure import cpu_seconds
from tests.paths.kit import ALICE, BOB, ServerProcess, Via

SIZE = 4096
BLOCK = 200
WINDOW = 32
DEVICES = 8
"""Of Alice, each with a connection: a SIP client has one request under way at a time."""
LIMITS = """user_messages = 1000000
user_message_burst = 1000000
user_octets = "1024 MiB"
stored_messages = 1000000
stored_octets = "1024 MiB"
"""


@dataclass(frozen=True, slots=True)
class Relayed:
    """Server CPU of one pair of protocols, in milliseconds a message, block by block."""

    via: Via
    unsigned: Sequence[float]
    signed: Sequence[float]

    @property
    def ratio(self) -> float:
        """Signed to unsigned: the median over pairs of neighbouring blocks."""
        return statistics.median(one / other for one, other in zip(self.signed, self.unsigned, strict=True))

    def __str__(self) -> str:
        one, other = (f"{statistics.median(v):.3f} ({min(v):.3f}–{max(v):.3f})" for v in (self.unsigned, self.signed))
        return f"{self.via:4} to xmpp: unsigned {one} ms, signed {other} ms, ratio {self.ratio:.3f}"


def _message(text: bytes) -> MimeObject:
    when = datetime.now(UTC)
    message = CpimMessage.build(
        from_=ALICE.uri, to=BOB.uri, date_time=when, content=text, content_type="text/plain; charset=utf-8"
    )
    return MimeObject.of("message/cpim", message.raw)


def signed_object(number: int, identity: Identity) -> MimeObject:
    """A signed object of about ``SIZE`` octets, none like another."""
    text = b"message %08d " % number
    bare = len(sign(_message(text), identity, when=datetime.now(UTC)).entity)
    return sign(_message(text + b"x" * (SIZE - bare)), identity, when=datetime.now(UTC))


def unsigned_object(number: int, size: int) -> MimeObject:
    """A message/cpim whose entity has exactly ``size`` octets."""
    text = b"message %08d " % number
    return _message(text + b"x" * (size - len(_message(text).entity)))


async def _block(alice: Sequence[Client], bob: asyncio.Queue[Received], objects: Sequence[MimeObject]) -> None:
    """Send all, and wait until they were answered and have arrived, octet for octet."""
    room = asyncio.Semaphore(WINDOW)

    async def one(obj: MimeObject, device: Client) -> None:
        async with room:
            response = await device.send(obj, BOB)
            assert response.status is not Status.FAILURE, response

    await asyncio.gather(*map(one, objects, cycle(alice)))
    arrived = {(await bob.get()).object.entity for _ in objects}
    assert arrived == {obj.entity for obj in objects}


async def relay(server: ServerProcess, via: Via, rounds: int) -> Relayed:
    """Alternate blocks of unsigned and signed objects, ``rounds`` of each after one of each that does not count."""
    identity = new_identity(ALICE, when=datetime.now(UTC), ca=LocalCa.create("CA of a.test", when=datetime.now(UTC)))
    costs: dict[bool, list[float]] = {False: [], True: []}
    inbox: asyncio.Queue[Received] = asyncio.Queue()
    async with AsyncExitStack() as stack:
        bob = await stack.enter_async_context(server.client("xmpp", BOB))
        devices = [server.client(via, ALICE, receive=False) for _ in range(DEVICES)]
        alice = [await stack.enter_async_context(device) for device in devices]

        async def listen() -> None:
            async for received in bob.messages():
                inbox.put_nowait(received)

        listening = asyncio.ensure_future(listen())
        for number in range(rounds + 1):
            first = number * BLOCK
            signed = [signed_object(at, identity) for at in range(first, first + BLOCK)]
            plain = [unsigned_object(at, len(obj.entity)) for at, obj in enumerate(signed, first)]
            blocks = [(False, plain), (True, signed)]
            for is_signed, objects in reversed(blocks) if number % 2 else blocks:
                before = cpu_seconds(server)
                await _block(alice, inbox, objects)
                costs[is_signed].append((cpu_seconds(server) - before) / BLOCK * 1000)
        listening.cancel()
    return Relayed(via, costs[False][1:], costs[True][1:])


def measure(directory: Path, rounds: int) -> list[Relayed]:
    """Both pairs, on one server."""
    directory.mkdir(exist_ok=True)
    with ServerProcess(directory, LIMITS) as server:
        text = server.config.read_text("utf-8")
        server.config.write_text(text.replace("[limits]", '[policy]\nplaintext_from = ["127.0.0.0/8"]\n[limits]'))
        server.start()
        pairs: tuple[Via, ...] = ("xmpp", "sip")
        found = [asyncio.run(relay(server, via, rounds)) for via in pairs]
        assert server.stop() == 0
    return found


def main(rounds: int) -> None:
    """Print a line for each pair."""
    with tempfile.TemporaryDirectory() as directory:
        for found in measure(Path(directory), rounds):
            sys.stdout.write(f"{found}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
