"""The attacker on the line, in the demo: a TCP relay that flips one bit of what passes through it, or keeps all of it.

Place on the path: between Alice's client and the server, in a process of its own:
``python -m comity.demo.relay PORT TEXT BIT``. It passes on every octet as it came, except that in each ``TEXT`` on the
way to the server it flips bit ``BIT`` of the first octet: in each, because a SIP request is sent again once the server
has asked for credentials. It prints its own port when it listens, and "flipped" at the first. With a ``FILE`` instead of
``TEXT BIT`` it changes nothing and writes what the client sends there, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

CHUNK = 64 * 1024
LOOPBACK = "127.0.0.1"


class Tap(Protocol):
    """What stands in the way to the server."""

    found: int
    """How many times it did something."""

    def feed(self, octets: bytes) -> bytes:
        """Take what came, give what goes on now."""

    def end(self) -> bytes:
        """What is still held when the stream ends."""


class Recorder:
    """Passes on everything, and keeps it in ``file``."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.found = 0

    def feed(self, octets: bytes) -> bytes:
        """See ``Tap``; in the file before it goes on."""
        with self._file.open("ab") as record:
            record.write(octets)
        return octets

    def end(self) -> bytes:
        """See ``Tap``: nothing."""
        return b""


class Flipper:
    """Finds octets in a stream, however it is cut, and flips one bit wherever they are.

    Args:
        wanted: the octets to look for; the first octet of them is changed, so that they are no longer there.
        bit: which bit of it, 0 being the lowest.
    """

    def __init__(self, wanted: bytes, bit: int) -> None:
        self._wanted = wanted
        self._changed = bytes([wanted[0] ^ 1 << bit]) + wanted[1:]
        self._held = b""
        """The end of what came, if it may be the beginning of ``wanted``."""
        self.found = 0

    def feed(self, octets: bytes) -> bytes:
        """Take what came, give what goes on now."""
        octets, self._held = self._held + octets, b""
        self.found += octets.count(self._wanted)
        octets = octets.replace(self._wanted, self._changed)
        keep = self._beginning(octets)
        self._held = octets[len(octets) - keep :]
        return octets[: len(octets) - keep]

    def _beginning(self, octets: bytes) -> int:
        """Length of the longest end of ``octets`` that ``wanted`` begins with."""
        longest = min(len(self._wanted) - 1, len(octets))
        return next((n for n in range(longest, 0, -1) if octets.endswith(self._wanted[:n])), 0)

    def end(self) -> bytes:
        """What is still held when the stream ends."""
        held, self._held = self._held, b""
        return held


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tap: Tap | None) -> None:
    try:
        while octets := await reader.read(CHUNK):
            before = tap.found if tap is not None else 0
            writer.write(octets if tap is None else tap.feed(octets))
            if tap is not None and not before and tap.found:
                print("flipped", flush=True)
            await writer.drain()
        if tap is not None:
            writer.write(tap.end())
            await writer.drain()
    except ConnectionError:
        pass  # one side is gone: the other is closed below, which is all a relay can say
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def relay(port: int, make: Callable[[], Tap]) -> None:
    """Listen on a free port, and connect each caller with ``port`` of this machine, until the process ends."""

    async def caller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(_pass_on(reader, far_writer, make()))
            group.create_task(_pass_on(far_reader, writer, None))

    server = await asyncio.start_server(caller, LOOPBACK, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Run the relay by the arguments of the command line."""
    port, what, *bit = sys.argv[1:]
    make = partial(Flipper, what.encode("utf-8"), int(bit[0])) if bit else partial(Recorder, Path(what))
    asyncio.run(relay(int(port), make))


if __name__ == "__main__":
    main()
