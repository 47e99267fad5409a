"""Stream links in the clear: octets both ways, ends, backpressure, caps, leaks."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from comity.bindings.base import ClientLink, Link, Listener, Network, Target
from comity.errors import ConfigError, DeliveryError, LocalProtocolError
from comity.net.driver import LoopClock
from comity.net.limits import NetLimits
from comity.net.listener import StreamListener
from comity.net.network import AsyncNetwork
from comity.net.stream import StreamLink
from comity.net.tcp import BUFFER
from comity.net.udp import DatagramLink
from comity.testing.clock import FakeClock
from tests.net.kit import PATIENCE, EchoBinding, LineReceived, PeerEnded, TimerFired, run_async, serving


@run_async
async def test_octets_arrive_whole_or_byte_by_byte() -> None:
    async with serving("tcp") as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"one\ntwo\n")
        assert await reader.readexactly(8) == b"one\ntwo\n"
        for octet in b"three\n":
            writer.write(bytes([octet]))
            await writer.drain()
        assert await reader.readline() == b"three\n"
        large = b"x" * 300_000 + b"\n"
        writer.write(large)
        assert await reader.readexactly(len(large)) == large
        peer = binding.links[0].peer
        assert (peer.transport, peer.local, peer.remote[0], peer.tls) == ("tcp", address, "127.0.0.1", None)
        writer.close()
        await writer.wait_closed()


@run_async
async def test_accepted_sockets_send_at_once_and_keep_alive() -> None:
    async with serving("tcp") as (_, binding, [address]):
        _, writer = await asyncio.open_connection(*address)
        await binding.until(lambda: bool(binding.links))
        sock = cast(StreamLink, binding.links[0])._transport.get_extra_info("socket")  # type: ignore[union-attr]  # connected
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        writer.close()
        await writer.wait_closed()


@run_async
async def test_close_writes_the_last_words_and_waits_for_the_peer() -> None:
    async with serving("tcp") as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        # More octets than are read before the close: without care the kernel would answer them with a reset.
        writer.write(b"close\n" + b"y" * 200_000)
        assert await reader.read() == b"bye\n"
        assert binding.closed == []
        writer.close()
        await binding.until(lambda: bool(binding.closed))
        assert binding.closed == [(binding.links[0], None)]
        assert binding.lines() == [b"close"]


@run_async
async def test_close_becomes_abort_when_the_peer_does_not_follow() -> None:
    clock = FakeClock()
    async with serving("tcp", clock=clock) as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"close\n")
        assert await reader.read() == b"bye\n"
        clock.advance(1.9)
        assert binding.links[0].unsent == 0
        assert binding.closed == []
        clock.advance(0.2)
        await binding.until(lambda: len(binding.closed) == 1)
        writer.close()


@run_async
async def test_abort_drops_what_is_queued() -> None:
    async with serving("tcp") as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"abort\n")
        assert await reader.read() == b""
        await binding.until(lambda: len(binding.closed) == 1)
        writer.close()


@run_async
async def test_empty_item_half_closes_after_what_stands_before() -> None:
    async with serving("tcp") as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"half\n")
        assert await reader.read() == b"half\n"
        writer.write(b"still heard\n")
        await binding.until(lambda: b"still heard" in binding.lines())
        writer.close()
        await binding.until(lambda: bool(binding.closed))
        assert binding.closed[0][1] is None


@run_async
async def test_peer_that_half_closes_still_gets_its_answers() -> None:
    async with serving("tcp") as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"question\n")
        writer.write_eof()
        assert await reader.read() == b"question\n"
        await binding.until(lambda: bool(binding.closed))
        assert [type(event) for _, event in binding.events] == [LineReceived, PeerEnded]
        writer.close()


@run_async
async def test_session_that_ignores_the_end_does_not_keep_the_socket_for_ever() -> None:
    clock = FakeClock()
    async with serving("tcp", clock=clock) as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        await binding.until(lambda: bool(binding.links))
        binding.sessions[binding.links[0]].ends_with_peer = False
        writer.write_eof()
        await binding.until(lambda: len(binding.events) == 1)
        clock.advance(61)
        assert await reader.read() == b""
        await binding.until(lambda: bool(binding.closed))
        writer.close()


@run_async
async def test_internal_error_closes_the_link_and_tells_the_peer_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with serving("tcp") as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"before\nraise\n")
        # The answer to the first line was still with the session; what a broken session holds is not trusted.
        assert b"secret" not in await reader.read()
        writer.close()
        await binding.until(lambda: bool(binding.closed))
        assert isinstance(binding.closed[0][1], RuntimeError)
        record = next(record for record in caplog.records if record.levelno == logging.ERROR)
        assert "binding echo" in record.getMessage()
        assert record.exc_info is not None
        other, writer = await asyncio.open_connection(*address)
        writer.write(b"alive\n")
        assert await other.readline() == b"alive\n"
        writer.close()


@run_async
async def test_reset_by_the_peer_is_reported_as_a_delivery_error() -> None:
    async with serving("tcp") as (_, binding, [address]):
        sock = socket.create_connection(address)
        await binding.until(lambda: bool(binding.links))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        await binding.until(lambda: bool(binding.closed))
        assert "was lost" in str(binding.closed[0][1])


@run_async
async def test_flushes_of_one_turn_cost_one_write() -> None:
    async with serving("tcp") as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        await binding.until(lambda: bool(binding.links))
        link = binding.links[0]
        session = binding.sessions[link]
        asked = 0
        take = session.data_to_send

        def counting(now: float) -> list[bytes]:
            nonlocal asked
            asked += 1
            return take(now)

        session.data_to_send = counting  # type: ignore[method-assign]  # counts calls of the real one
        for _ in range(10):
            session.out.append(b"x")
            link.flush()
        assert await reader.readexactly(10) == b"x" * 10
        assert asked == 2, "one call that gives all, one that gives nothing"
        writer.close()


@run_async
async def test_timer_is_armed_once_and_moves_with_the_session() -> None:
    clock = FakeClock()
    async with serving("tcp", clock=clock) as (_, binding, [address]):
        _, writer = await asyncio.open_connection(*address)
        await binding.until(lambda: bool(binding.links))
        link = binding.links[0]
        session = binding.sessions[link]

        async def flushed() -> None:
            link.flush()
            await asyncio.sleep(0)

        session.timer = clock.now() + 10
        await flushed()
        timers = clock.pending
        session.timer += 5
        await flushed()
        assert clock.pending == timers, "a later time re-arms nothing"
        clock.advance(10)
        assert binding.events == []
        clock.advance(5)
        assert [event for _, event in binding.events] == [TimerFired(clock.now())]
        session.timer = clock.now() + 10
        await flushed()
        session.timer = clock.now() + 1
        await flushed()
        clock.advance(1)
        assert len(binding.events) == 2
        writer.close()


async def fill(binding: EchoBinding, octets: int) -> None:
    """Queue ``octets`` to a peer that does not read, beyond what the kernel's buffers take."""
    link = binding.links[0]
    binding.sessions[link].out.append(b"z" * octets)
    link.flush()
    await asyncio.sleep(0)


def slow_reader(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(address)
    return sock


@run_async
async def test_peer_that_reads_nothing_is_not_read_and_then_dropped() -> None:
    """L-04: the buffer of a connection is bounded, and so is the time it may stay full."""
    clock = FakeClock()
    async with serving("tcp", clock=clock) as (_, binding, [address]):
        with slow_reader(address) as sock:
            await binding.until(lambda: bool(binding.links))
            await fill(binding, 16_000_000)
            link = binding.links[0]
            assert link.unsent > 256 * 1024
            sock.sendall(b"not read\n")
            for _ in range(20):
                await asyncio.sleep(0)
            assert binding.lines() == []
            clock.advance(30)
            await binding.until(lambda: bool(binding.closed))
            assert "took no octet for 30 s" in str(binding.closed[0][1])


@run_async
async def test_slow_peer_that_makes_progress_stays() -> None:
    clock = FakeClock()
    async with serving("tcp", clock=clock) as (_, binding, [address]):
        with slow_reader(address) as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await binding.until(lambda: bool(binding.links))
            await fill(binding, 16_000_000)
            link = binding.links[0]
            total = 0
            for _ in range(4):
                before = link.unsent
                while link.unsent == before:
                    total += len(await loop.sock_recv(sock, 1_000_000))
                clock.advance(29)
                assert binding.closed == []
            while total < 16_000_000:
                total += len(await loop.sock_recv(sock, 1_000_000))
            clock.advance(60)
            assert (binding.closed, link.unsent) == ([], 0)
            await loop.sock_sendall(sock, b"read again\n")
            await binding.until(lambda: b"read again" in binding.lines())


@run_async
async def test_paused_reading_takes_nothing_until_resumed() -> None:
    async with serving("tcp") as (_, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"pause\n")
        await binding.until(lambda: b"pause" in binding.lines())
        writer.write(b"later\n")
        await writer.drain()
        for _ in range(20):
            await asyncio.sleep(0)
        assert binding.lines() == [b"pause"]
        binding.links[0].resume_reading()
        assert await reader.readline() == b"later\n"
        writer.close()


class TestCaps:
    """Reliability.md section 6.2, L-01, L-03."""

    @run_async
    async def test_connections_above_the_cap_of_one_address_are_closed_at_once(self) -> None:
        async with serving("tcp", limits=NetLimits(per_address=3)) as (network, binding, [address]):
            writers = []
            for _ in range(3):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"hello\n")
                assert await reader.readline() == b"hello\n"
                writers.append(writer)
            reader, refused = await asyncio.open_connection(*address)
            assert await reader.read() == b""
            refused.close()
            # Another address of the loopback network still gets in.
            reader, other = await asyncio.open_connection(*address, local_addr=("127.0.0.2", 0))
            other.write(b"canary\n")
            assert await reader.readline() == b"canary\n"
            writers[0].close()
            await binding.until(lambda: len(binding.closed) == 1)
            assert network.gate.total == 3
            reader, again = await asyncio.open_connection(*address)
            again.write(b"back\n")
            assert await reader.readline() == b"back\n"
            for writer in (*writers, other, again):
                writer.close()

    @run_async
    async def test_unauthenticated_cap_is_freed_by_authentication(self) -> None:
        async with serving("tcp", limits=NetLimits(unauthenticated=2)) as (network, binding, [address]):
            writers = []
            for _ in range(2):
                writers.append((await asyncio.open_connection(*address))[1])
            await binding.until(lambda: len(binding.links) == 2)
            reader, refused = await asyncio.open_connection(*address)
            assert await reader.read() == b""
            refused.close()
            binding.links[0].authenticated()
            binding.links[0].authenticated()
            assert network.gate.unauthenticated == 1
            reader, third = await asyncio.open_connection(*address)
            third.write(b"in\n")
            assert await reader.readline() == b"in\n"
            for writer in (*writers, third):
                writer.close()

    @run_async
    async def test_total_and_rate_caps_hold(self) -> None:
        async with serving("tcp", limits=NetLimits(total=1)) as (_, binding, [address]):
            writer = (await asyncio.open_connection(*address))[1]
            await binding.until(lambda: bool(binding.links))
            reader, refused = await asyncio.open_connection(*address)
            assert await reader.read() == b""
            writer.close()
            refused.close()
        clock = FakeClock()
        async with serving("tcp", limits=NetLimits(accepts_per_second=1), clock=clock) as (_, binding, [address]):
            first = (await asyncio.open_connection(*address))[1]
            await binding.until(lambda: bool(binding.links))
            reader, refused = await asyncio.open_connection(*address)
            assert await reader.read() == b""
            clock.advance(1)
            second = (await asyncio.open_connection(*address))[1]
            await binding.until(lambda: len(binding.links) == 2)
            for writer in (first, refused, second):
                writer.close()


@run_async
async def test_accept_rests_while_descriptors_are_out_and_existing_work_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F-09."""
    clock = FakeClock()
    async with serving("tcp", clock=clock) as (network, binding, [address]):
        reader, writer = await asyncio.open_connection(*address)
        client = socket.socket()
        client.setblocking(False)
        [listener] = network._listeners
        rested = asyncio.Event()
        rest = listener._rest

        def resting() -> None:
            rest()
            rested.set()

        monkeypatch.setattr(listener, "_rest", resting)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(client.fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            await asyncio.get_running_loop().sock_connect(client, address)
            await asyncio.wait_for(rested.wait(), PATIENCE)
            writer.write(b"still served\n")
            assert await reader.readline() == b"still served\n"
            assert listener.is_resting, "no busy loop: the listener is not watched"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        clock.advance(1)
        assert not listener.is_resting
        await binding.until(lambda: len(binding.links) == 2)
        writer.close()
        client.close()


class TestListeners:
    @pytest.mark.parametrize("transport", ["tcp", "udp"])
    @run_async
    async def test_busy_port_is_said_with_the_process_that_holds_it(self, transport: str) -> None:
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        with socket.socket(type=kind) as holder:
            holder.bind(("127.0.0.1", 0))
            if transport == "tcp":
                holder.listen()
            port = holder.getsockname()[1]
            free = Listener("tcp", "127.0.0.1", 0)
            listener = Listener("udp" if transport == "udp" else "tcp", "127.0.0.1", port)
            network = AsyncNetwork(LoopClock())
            with pytest.raises(ConfigError) as caught:
                await network.open(EchoBinding(free, listener))
            assert caught.value.key == f"{transport}://127.0.0.1:{port}"
            assert f"(process {os.getpid()})" in caught.value.problem
            assert f"errno {errno.EADDRINUSE}, EADDRINUSE" in caught.value.problem
            assert caught.value.cure
            assert network.bound == []

    @run_async
    async def test_foreign_address_and_missing_certificate_are_said(self) -> None:
        network = AsyncNetwork(LoopClock())
        with pytest.raises(ConfigError, match="is not an address of this machine"):
            await network.open(EchoBinding(Listener("tcp", "192.0.2.1", 0)))
        with pytest.raises(ConfigError, match="needs a certificate"):
            await network.open(EchoBinding(Listener("tls", "127.0.0.1", 0)))
        with pytest.raises(ConfigError, match="has no address"):
            await network.open(EchoBinding(Listener("tcp", "not a host", 0)))

    @run_async
    async def test_both_families_can_have_the_same_port(self) -> None:
        network = AsyncNetwork(LoopClock())
        [four] = await network.open(EchoBinding(Listener("tcp", "0.0.0.0", 0)))
        try:
            await network.open(EchoBinding(Listener("tcp", "::", four.address[1])))
        except ConfigError as error:
            pytest.skip(f"no IPv6 here: {error}")
        finally:
            await network.close()


class TestConnect:
    @run_async
    async def test_outgoing_connection_runs_a_session(self) -> None:
        async with serving("tcp") as (network, _, [address]):
            client = EchoBinding(is_quiet=True)
            link = await network.connect(client, Target("tcp", *address), role="out")
            assert client.links == [link]
            client.sessions[link].out.append(b"close\n")
            link.flush()
            await client.until(lambda: b"bye" in client.lines())
            await client.until(lambda: bool(client.closed))
            assert network.gate.total <= 1, "outgoing connections are not counted as strangers"

    @run_async
    async def test_refused_and_silent_hosts_are_delivery_errors(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = unused.getsockname()
            network = AsyncNetwork(LoopClock(), limits=NetLimits(connect_seconds=0.05))
            with pytest.raises(DeliveryError, match="Connection refused"):
                await network.connect(EchoBinding(), Target("tcp", *address))
            # A full backlog answers no further SYN.
            unused.listen(0)
            fillers = []
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(address)
                fillers.append(filler)
            with pytest.raises(DeliveryError, match=r"within 0\.05 s"):
                await network.connect(EchoBinding(), Target("tcp", *address))
            for filler in fillers:
                filler.close()
            await network.close()

    @run_async
    async def test_start_tls_without_a_certificate_is_the_callers_mistake(self) -> None:
        async with serving("tcp") as (network, _, [address]):
            client = EchoBinding(is_quiet=True)
            link = await network.connect(client, Target("tcp", *address))
            with pytest.raises(LocalProtocolError):
                link.start_tls()
            link.abort()
            await client.until(lambda: bool(client.closed))


@run_async
async def test_many_connections_leave_no_descriptors_behind() -> None:
    """L-02; tasks, links and counts are checked by ``serving``."""
    limits = NetLimits(accepts_per_second=10_000)
    async with serving("tcp", limits=limits) as (network, binding, [address]):
        before = len(os.listdir("/proc/self/fd"))
        for number in range(500):
            reader, writer = await asyncio.open_connection(*address)
            if number % 2:
                writer.write(b"close\n")
                assert await reader.read() == b"bye\n"
            writer.close()
            await writer.wait_closed()
        await binding.until(lambda: network.links == 0)
        await binding.until(lambda: len(binding.closed) == len(binding.links))
        assert len(os.listdir("/proc/self/fd")) == before


@run_async
async def test_listener_closes_while_resting() -> None:
    clock = FakeClock()
    async with serving("tcp", clock=clock) as (network, _, _):
        listener: StreamListener = network._listeners[0]
        listener._rest()
        network.stop_listening()
        clock.advance(5)
        assert network._listeners == []


def test_implementations_keep_the_contracts() -> None:
    """Mypy checks the returns; the rest is that every name of a contract is there at run time."""

    def network(made: AsyncNetwork) -> Network:
        return made

    def link(made: StreamLink) -> ClientLink:
        return made

    def datagram_link(made: DatagramLink) -> Link:
        return made

    for check, made, contract in ((network, AsyncNetwork, Network), (link, StreamLink, ClientLink)):
        assert callable(check)
        names = [name for name in dir(contract) if not name.startswith("_")]
        assert [name for name in names if not hasattr(made, name)] == []
    assert all(hasattr(DatagramLink, name) for name in dir(Link) if not name.startswith("_"))
    assert callable(datagram_link)


@run_async
async def test_nothing_reaches_the_binding_after_abort_but_link_closed() -> None:
    async with serving("tcp") as (_, binding, [address]):
        _, writer = await asyncio.open_connection(*address)
        writer.write(b"abort\nnot seen\n")
        await binding.until(lambda: bool(binding.closed))
        assert binding.lines() == [b"abort"]
        writer.close()


@run_async
async def test_network_that_is_closing_connects_no_more() -> None:
    async with serving("tcp") as (network, _, [address]):
        await network.close()
        with pytest.raises(DeliveryError, match="shutting down"):
            await network.connect(EchoBinding(), Target("tcp", *address))


def test_each_thread_reads_into_a_buffer_of_its_own() -> None:
    """Two loops in two threads of one program: what one has read, the other must not write over before it is taken."""
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(lambda: BUFFER.view).result()
    BUFFER.view[:4] = b"ours"
    theirs[:4] = b"them"
    assert bytes(BUFFER.view[:4]) == b"ours"
