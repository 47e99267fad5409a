"""Real traffic over SIP/TCP and XMPP for the power-loss replay, and how to read its acknowledgements in a recording.

Alice sends to Bob by several SIP connections, Bob to Alice on one XMPP stream with stream management, many messages under way
at once. From the middle on Alice has a SIP device that takes what came for her. The "yes" of each message is what the
server itself wrote to the sender's socket (200 or 202; ``<a h/>``), so no test code stands between the disk and the proof.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
from dataclasses import dataclass, field

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.e2e import wrap_entity
from comity.client import Client, text_object
from comity.cpim.operations import MimeObject, Status
from comity.xml import Element
from tests.paths.kit import ALICE, BOB, PASSWORD, ServerProcess
from tests.store.recording import Event

PHONES = 3
ON_THE_WAY = 16
XMPP_FIRST = 50_000
"""Bob's messages have numbers from here on; each phone of Alice has its own ten thousand below."""

LIMITS = """user_messages = 100000
udp_requests = 100000
user_message_burst = 100000
user_stanzas = 100000
user_octets = 1000000000
[policy]
plaintext_from = ["127.0.0.1/32"]"""


@dataclass
class Traffic:
    """Messages by number and what to send next."""

    dice: random.Random
    objects: dict[int, MimeObject] = field(default_factory=dict)
    stanzas: list[int] = field(default_factory=list)
    """Numbers in the order they went onto the present XMPP stream."""

    def make(self, number: int) -> MimeObject:
        """A new message; some fill many pages of the database."""
        filler = self.dice.randbytes(self.dice.choice((20, 200, 1_500, 9_000))).hex()
        source, target = (ALICE, BOB) if number < XMPP_FIRST else (BOB, ALICE)
        self.objects[number] = thing = text_object(source, target, f"mark-{number:05}- {filler}")
        return thing

    async def run(self, server: ServerProcess, first: int, count: int) -> None:
        """``count`` messages each way, numbered from ``first`` on; all acknowledged in the end."""
        xmpp = await RawXmpp.connect(server)
        phones = [server.client("sip", ALICE, "tcp", receive=False) for _ in range(PHONES)]
        self.stanzas = []
        halfway = asyncio.Event()
        work = [self._stream(xmpp, first, count, halfway), self._device(server, halfway)]
        shares = [range(first + n, first + count, PHONES) for n in range(PHONES)]
        work += [
            self._phone(phone, n * 10_000, share) for n, (phone, share) in enumerate(zip(phones, shares, strict=True))
        ]
        await asyncio.gather(*work)
        await xmpp.close()

    async def _phone(self, phone: Client, base: int, numbers: range) -> None:
        async with phone:
            for number in numbers:
                key = f"call-{base + number:05}-key"
                answer = await phone.send(self.make(base + number), BOB, key=key)
                assert answer.status is not Status.FAILURE, answer

    async def _stream(self, xmpp: RawXmpp, first: int, count: int, halfway: asyncio.Event) -> None:
        for number in range(XMPP_FIRST + first, XMPP_FIRST + first + count):
            thing = self.make(number)
            self.stanzas.append(number)
            await xmpp.send(thing, number)
            while len(self.stanzas) - xmpp.acknowledged >= ON_THE_WAY:
                await xmpp.read()
            if number == XMPP_FIRST + first + count // 2:
                halfway.set()
        while xmpp.acknowledged < count:
            await xmpp.read()

    async def _device(self, server: ServerProcess, halfway: asyncio.Event) -> None:
        """Alice's phone: takes a few messages, leaves with the rest still stored."""
        await halfway.wait()
        async with server.client("sip", ALICE, "tcp") as phone:
            taken = 0
            async for _ in phone.messages():
                taken += 1
                if taken >= 12:
                    return


class RawXmpp:
    """Bob's client without TLS, so that the recording shows what was said: SASL PLAIN, bind, XEP-0198 with resumption."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._read = b""
        self.acknowledged = 0

    @classmethod
    async def connect(cls, server: ServerProcess) -> RawXmpp:
        """Connect and sign in."""
        self = cls(*await asyncio.open_connection(*server.port("xmpp", "tcp"), limit=1 << 20))
        open_stream = f"<stream:stream xmlns='{wire.CLIENT}' xmlns:stream='{wire.STREAMS}' to='a.test' version='1.0'>"
        self._writer.write(open_stream.encode())
        await self._until(b"</stream:features>")
        secret = base64.b64encode(f"\0bob\0{PASSWORD}".encode()).decode()
        self._writer.write(f"<auth xmlns='{wire.SASL}' mechanism='PLAIN'>{secret}</auth>".encode())
        await self._until(b"<success")
        self._writer.write(open_stream.encode())
        await self._until(b"</stream:features>")
        self._writer.write(f"<iq type='set' id='b'><bind xmlns='{wire.BIND}'/></iq>".encode())
        await self._until(b"</iq>")
        self._writer.write(f"<enable xmlns='{wire.SM}' resume='true'/>".encode())
        await self._until(b"<enabled")
        return self

    async def _until(self, end: bytes) -> None:
        while end not in self._read:
            octets = await self._reader.read(65536)
            assert octets, self._read[-500:]
            self._read += octets
        self._read = self._read.partition(end)[2]

    async def send(self, thing: MimeObject, number: int) -> None:
        """One chat message that carries ``thing``."""
        carrier = wrap_entity(thing.entity)
        assert carrier is not None
        attributes = {"to": "alice@a.test", "id": f"x-{number}", "type": "chat"}
        self._writer.write(wire.encode(Element(wire.MESSAGE, attributes, [carrier])))
        self._writer.write(f"<r xmlns='{wire.SM}'/>".encode())
        await self._writer.drain()

    async def read(self) -> None:
        """Wait for octets and count what they acknowledge."""
        octets = await self._reader.read(65536)
        assert octets, "the server closed the stream"
        assert b"error" not in octets, octets
        self._read = (self._read + octets)[-2000:]
        counts = HANDLED.findall(self._read)
        if counts:
            self.acknowledged = int(counts[-1])

    async def close(self) -> None:
        """End the stream."""
        self._writer.write(wire.STREAM_CLOSE)
        await self._writer.drain()
        self._writer.close()
        await self._writer.wait_closed()


HANDLED = re.compile(rb"<a [^>]*h=['\"](\d+)['\"]")
_YES = re.compile(rb"SIP/2\.0 20[02] .*?\r\n\r\n", re.S)
_CALL = re.compile(rb"^call-id: *(\S+)\r$", re.I | re.M)
_OURS = re.compile(rb"call-(\d{5})-key")
_DELIVERY = re.compile(rb"^MESSAGE sip:alice.*?mark-(\d{5})-", re.S | re.M)


class Reading:
    """What the server said and heard on its sockets, up to some moment of the recording.

    Args:
        stanzas: numbers in the order they went onto the XMPP stream of this run.
    """

    def __init__(self, stanzas: list[int]) -> None:
        self.acked: set[int] = set()
        """The server said yes to these."""
        self.taken: set[int] = set()
        """A device said yes to these."""
        self._stanzas = stanzas
        self._calls: dict[bytes, int] = {}

    def feed(self, event: Event) -> bool:
        """Take one event; True if something was acknowledged by it."""
        before = len(self.acked)
        if event.kind == "send":
            self._sent(event.data)
        elif event.kind == "receive":
            for answer in _YES.findall(event.data):
                call = _CALL.search(answer)
                if call is not None and call[1] in self._calls:
                    self.taken.add(self._calls[call[1]])
        return len(self.acked) > before

    def _sent(self, data: bytes) -> None:
        for answer in _YES.findall(data):
            call = _CALL.search(answer)
            ours = None if call is None else _OURS.fullmatch(call[1])
            if ours is not None:
                self.acked.add(int(ours[1]))
        for count in HANDLED.findall(data):
            self.acked.update(self._stanzas[: int(count)])
        for delivery in _DELIVERY.finditer(data):  # the first one may leave together with the REGISTER's answer
            call = _CALL.search(delivery[0])
            if call is not None:
                self._calls[call[1]] = int(delivery[1])
