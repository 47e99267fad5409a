"""The binding on real sockets: register and exchange messages over UDP and TCP on loopback."""

from __future__ import annotations

import asyncio

import pytest

from comity.bindings.sip.binding import SipBinding
from comity.bindings.sip.config import SipConfig
from comity.bindings.sip.digest import DigestClient, ha1
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.wire import StreamReader, parse_datagram
from comity.cpim.address import Address
from comity.net.driver import LoopClock
from comity.net.network import AsyncNetwork
from comity.service.interfaces import Credentials
from comity.service.pipeline import Pipeline
from comity.store.memory import MemoryStore
from comity.testing.service import DeviceBinding, MemoryAccounts
from tests.bindings.sip.kit import counting, story


class Phone(asyncio.DatagramProtocol):
    """The least of a phone on a real socket, built on the wire alone."""

    def __init__(self, user: str, transport: str) -> None:
        self.user, self.transport = user, transport
        self.messages: asyncio.Queue[SipRequest | SipResponse] = asyncio.Queue()
        self.digest = DigestClient(user, "secret", realm="a.test", peer="server", random=counting())
        self.count = 0
        self.reader = StreamReader()

    async def open(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        if self.transport == "udp":
            self.sock, _ = await loop.create_datagram_endpoint(lambda: self, remote_addr=("127.0.0.1", port))
            self.port = self.sock.get_extra_info("sockname")[1]
            return
        stream, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.port = self.writer.get_extra_info("sockname")[1]
        self.reading = asyncio.ensure_future(self.read(stream))

    async def read(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(4096):
            self.reader.feed(data)
            while (unit := self.reader.next_unit()) is not None:
                assert isinstance(unit, SipRequest | SipResponse)
                self.messages.put_nowait(unit)

    def datagram_received(self, data: bytes, addr: object) -> None:
        unit = parse_datagram(data)
        assert isinstance(unit, SipRequest | SipResponse)
        self.messages.put_nowait(unit)

    async def close(self) -> None:
        if self.transport == "udp":
            self.sock.close()
            return
        self.writer.close()
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)

    def write(self, octets: bytes) -> None:
        if self.transport == "udp":
            self.sock.sendto(octets)
        else:
            self.writer.write(octets)

    async def ask(self, method: str, uri: str, to: str, body: bytes = b"") -> SipResponse:
        for _ in range(2):
            self.count += 1
            name = self.transport.upper()
            headers = [
                ("Via", f"SIP/2.0/{name} 127.0.0.1:{self.port};rport;branch=z9hG4bK{self.user}{self.count}"),
                ("From", f"<sip:{self.user}@a.test>;tag=1"),
                ("To", f"<{to}>"),
                ("Call-ID", f"{self.user}{method}"),
                ("CSeq", f"{self.count} {method}"),
                # As every phone does; without it the challenges would not fit into so small a request (S-28).
                ("User-Agent", "a telephone with a name and a version 1.2.3 (loopback)"),
                ("Allow", "MESSAGE, OPTIONS, INVITE, ACK, CANCEL, BYE"),
            ]
            if method == "REGISTER":
                headers.append(("Contact", f"<sip:{self.user}@127.0.0.1:{self.port};transport={self.transport}>"))
            else:
                headers.append(("Content-Type", "text/plain"))
            if (header := self.digest.authorize(method, uri, body)) is not None:
                headers.append(header)
            self.write(SipRequest(method, uri, headers, body).to_bytes())
            received = await asyncio.wait_for(self.messages.get(), 5)
            assert isinstance(received, SipResponse)
            response = received
            if not self.digest.take_challenge(response, "server"):
                break
        self.digest.accepted()
        return response

    async def take(self) -> SipRequest:
        request = await asyncio.wait_for(self.messages.get(), 5)
        assert isinstance(request, SipRequest)
        headers = [(n, request.value(n.lower()) or "") for n in ("Via", "From", "To", "Call-ID", "CSeq")]
        self.write(SipResponse(200, "OK", headers).to_bytes())
        return request


@pytest.mark.parametrize(("one", "other"), [("udp", "udp"), ("udp", "tcp"), ("tcp", "udp"), ("tcp", "tcp")])
@story
async def test_two_phones_exchange_messages(one: str, other: str) -> None:
    """SIP-1, SIP-3, OPS-10: there and back."""
    clock = LoopClock()
    users = [Address.parse(f"im:{name}@a.test") for name in ("alice", "bob")]
    keys = {
        u.key: Credentials(u, ha1={name: ha1(name, u.local, "a.test", "secret") for name in ("SHA-256", "MD5")})
        for u in users
    }
    pipeline = Pipeline(MemoryStore(), MemoryAccounts([user.uri for user in users], keys), clock, "a.test")
    binding = SipBinding(SipConfig(domains=("a.test",), listen=("udp://127.0.0.1:0", "tcp://127.0.0.1:0")))
    network = AsyncNetwork(clock)
    await pipeline.start({"sip": binding, "xmpp": DeviceBinding()})
    await binding.start(pipeline, network)
    ports = {bound.listener.transport: bound.address[1] for bound in await network.open(binding)}
    alice, bob = Phone("alice", one), Phone("bob", other)
    try:
        for phone in (alice, bob):
            await phone.open(ports["udp" if phone.transport == "udp" else "tcp"])
            assert (await phone.ask("REGISTER", "sip:a.test", f"sip:{phone.user}@a.test")).status_code == 200
        for sender, taker in ((alice, bob), (bob, alice)):
            to = f"sip:{taker.user}@a.test"
            asking = asyncio.ensure_future(sender.ask("MESSAGE", to, to, "zpráva".encode()))
            request = await taker.take()
            assert request.body == "zpráva".encode()
            assert str(request.from_.uri) == f"sip:{sender.user}@a.test"
            assert (await asking).status_code == 200
    finally:
        await alice.close()
        await bob.close()
        network.stop_listening()
        await binding.drain()
        await pipeline.stop()
        await network.close()
