"""Memory of an idle connection before authentication (reliability.md G7: 16 KiB plain, 96 KiB under TLS).

By hand, with more connections: ``PYTHONPATH=src python -m tests.net.test_memory tls 2000``.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
from pathlib import Path

import pytest

from comity.bindings.base import Transport
from comity.net import memory
from comity.net.limits import NetLimits
from comity.net.tls import TlsContexts
from comity.testing.clock import FakeClock
from tests.net.kit import Ca, run_async, serving

CLIENT = """
import socket, ssl, sys
host, port, count, ca = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
kept = []
for _ in range(count):
    sock = socket.create_connection((host, port))
    if ca:
        sock = ssl.create_default_context(cafile=ca).wrap_socket(sock, server_hostname="chat.example")
    sock.sendall(b"x\\n")
    assert sock.recv(2) == b"x\\n"
    kept.append(sock)
print("ready", flush=True)
sys.stdin.read()
"""


def resident() -> int:
    """Resident octets of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure(transport: Transport, count: int, ca: Ca) -> float:
    """Octets a connection costs the server, its clients being another process."""
    limits = NetLimits(per_address=100_000, unauthenticated=100_000, total=100_000, accepts_per_second=100_000)
    tls = TlsContexts(*ca.issue("chat.example"))
    async with serving(transport, tls=tls, limits=limits) as (_, binding, [address]):
        clients = []
        sizes = []
        # The first ones pay for what is made once.
        for number in (50, count):
            arguments = (address[0], str(address[1]), str(number), str(ca.file) if transport == "tls" else "")
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-c", CLIENT, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            clients.append(client)
            assert client.stdout is not None
            assert await client.stdout.readline() == b"ready\n"
            sizes.append(resident())
        for client in clients:
            await client.communicate(b"")  # None would leave its stdin open before Python 3.12
        await binding.until(lambda: len(binding.closed) == len(binding.links))
    return (sizes[1] - sizes[0]) / count


@pytest.mark.parametrize(("transport", "most"), [("tcp", 16 * 1024), ("tls", 40 * 1024)])
@run_async
async def test_idle_connection_stays_within_its_budget(transport: Transport, most: int, ca: Ca) -> None:
    """G7; the bound for TLS is less than half of the gate's 96 KiB, so that a regression is seen early."""
    assert await measure(transport, 200, ca) < most


def test_heap_is_trimmed_some_time_after_many_closed_links(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    trimmer = memory.HeapTrimmer(clock)
    trims: list[int] = []
    monkeypatch.setattr(trimmer, "_trim", trims.append)
    for _ in range(memory.LINKS - 1):
        trimmer.link_gone()
    assert clock.pending == 0
    for _ in range(memory.LINKS):
        trimmer.link_gone()
    assert (clock.pending, trims) == (1, [])
    clock.advance(memory.QUIET_SECONDS)
    assert (clock.pending, trims) == (0, [0])
    for _ in range(memory.LINKS):
        trimmer.link_gone()
    trimmer.close()
    assert (clock.pending, trims) == (0, [0])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        octets = asyncio.run(measure("tls" if sys.argv[1] == "tls" else "tcp", int(sys.argv[2]), Ca(Path(folder))))
        sys.stdout.write(f"{octets / 1024:.1f} KiB for each idle {sys.argv[1]} connection\n")
