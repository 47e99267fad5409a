"""Datagram links: draining, answering, queueing, surviving poison."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import cast

import pytest

from comity.bindings.base import HostPort
from comity.net.limits import NetLimits
from comity.net.udp import DatagramLink
from tests.net.kit import EchoDatagramSession, run_async, serving


class Client(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: HostPort) -> None:
        self.received.put_nowait(data)


async def open_client(address: HostPort) -> tuple[asyncio.DatagramTransport, Client]:
    return await asyncio.get_running_loop().create_datagram_endpoint(Client, remote_addr=address)


@run_async
async def test_datagrams_are_answered_in_order() -> None:
    async with serving("udp") as (network, binding, [address]):
        transport, client = await open_client(address)
        for number in range(200):
            transport.sendto(b"%d" % number)
        for number in range(200):
            assert await asyncio.wait_for(client.received.get(), 5) == b"%d" % number
        with socket.socket(type=socket.SOCK_DGRAM) as plain:
            plain.sendto(b"", address)
        await binding.until(lambda: binding.lines()[-1] == b"")
        transport.sendto(b"x" * 60_000)
        assert len(await asyncio.wait_for(client.received.get(), 5)) == 60_000
        assert network.datagram_link(binding) is binding.links[0]
        assert network.datagram_link(binding, address) is binding.links[0]
        assert network.datagram_link(binding, ("127.0.0.1", 1)) is None
        assert binding.links[0].peer.remote == ("", 0)
        transport.close()


@run_async
async def test_poison_costs_one_datagram_and_one_log_entry(caplog: pytest.LogCaptureFixture) -> None:
    async with serving("udp") as (_, binding, [address]):
        transport, client = await open_client(address)
        for _ in range(50):
            transport.sendto(b"poison")
        transport.sendto(b"after")
        assert await asyncio.wait_for(client.received.get(), 5) == b"after"
        assert binding.closed == []
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
        transport.close()


@run_async
async def test_unsendable_datagrams_are_dropped_and_noted(caplog: pytest.LogCaptureFixture) -> None:
    async with serving("udp") as (_, binding, [address]):
        link = cast(DatagramLink, binding.links[0])
        session = cast(EchoDatagramSession, link._session)
        session.out += [(b"x" * 70_000, address), (b"x", ("::1", 9)), (b"x", ("127.0.0.1", 99_999))]
        link.flush()
        await asyncio.sleep(0)
        assert link.unsent == 0
        assert "A datagram could not be sent" in caplog.text
        transport, client = await open_client(address)
        transport.sendto(b"alive")
        assert await asyncio.wait_for(client.received.get(), 5) == b"alive"
        transport.close()


class Blocked:
    """A socket whose kernel buffer is full until ``is_open`` is set; loopback UDP cannot be made to block."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.is_open = False

    def sendto(self, data: bytes, address: HostPort) -> int:
        if not self.is_open:
            raise BlockingIOError
        return self.sock.sendto(data, address)

    def __getattr__(self, name: str) -> object:
        return getattr(self.sock, name)


@run_async
async def test_queue_while_the_kernel_takes_nothing_is_bounded_and_kept_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving("udp", limits=NetLimits(datagram_queue=10)) as (_, binding, [address]):
        link = cast(DatagramLink, binding.links[0])
        session = cast(EchoDatagramSession, link._session)
        blocked = Blocked(link._sock)
        link._sock = cast(socket.socket, blocked)
        transport, client = await open_client(address)
        target = transport.get_extra_info("sockname")
        session.out += [(b"1234", target), (b"5678", target), (b"dropped", target)]
        link.flush()
        await asyncio.sleep(0)
        assert link.unsent == 8
        assert "queue of datagrams is full" in caplog.text
        blocked.is_open = True
        assert await asyncio.wait_for(client.received.get(), 5) == b"1234"
        assert await asyncio.wait_for(client.received.get(), 5) == b"5678"
        assert link.unsent == 0
        transport.close()


@run_async
async def test_paused_socket_leaves_datagrams_to_the_kernel() -> None:
    async with serving("udp") as (_, binding, [address]):
        transport, client = await open_client(address)
        binding.links[0].pause_reading()
        transport.sendto(b"waits")
        for _ in range(10):
            await asyncio.sleep(0)
        assert binding.events == []
        binding.links[0].resume_reading()
        assert await asyncio.wait_for(client.received.get(), 5) == b"waits"
        transport.close()
