"""The attacker of the demo: a TCP relay that flips one bit of what passes through it.

Place on the path: between Alice's client and the server, in a process of its own:
``python -m comity.demo.relay PORT TEXT BIT``. It passes on every octet as it came, except that in the first ``TEXT`` on
the way to the server it flips bit ``BIT`` of the first octet. It prints its own port when it listens, and "flipped".
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

CHUNK = 64 * 1024
LOOPBACK = "127.0.0.1"


class Flipper:
    """Finds octets in a stream, however it is cut, and flips one bit of the first that is found.

    Args:
        wanted: the octets to look for; the first of them is changed.
        bit: which bit of it, 0 being the lowest.
    """

    def __init__(self, wanted: bytes, bit: int) -> None:
        self._wanted = wanted
        self._mask = 1 << bit
        self._held = b""
        """The end of what came, if it may be the beginning of ``wanted``."""
        self.is_done = False

    def feed(self, octets: bytes) -> bytes:
        """Take what came, give what goes on now."""
        octets, self._held = self._held + octets, b""
        if self.is_done:
            return octets
        at = octets.find(self._wanted)
        if at >= 0:
            self.is_done = True
            return octets[:at] + bytes([octets[at] ^ self._mask]) + octets[at + 1 :]
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


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flipper: Flipper | None) -> None:
    try:
        while octets := await reader.read(CHUNK):
            was_done = flipper is None or flipper.is_done
            writer.write(octets if flipper is None else flipper.feed(octets))
            if flipper is not None and flipper.is_done and not was_done:
                print("flipped", flush=True)
            await writer.drain()
        if flipper is not None:
            writer.write(flipper.end())
            await writer.drain()
    except ConnectionError:
        pass  # one side is gone: the other is closed below, which is all a relay can say
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def relay(port: int, wanted: bytes, bit: int) -> None:
    """Listen on a free port, and connect each caller with ``port`` of this machine, until the process ends."""

    async def caller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(_pass_on(reader, far_writer, Flipper(wanted, bit)))
            group.create_task(_pass_on(far_reader, writer, None))

    server = await asyncio.start_server(caller, LOOPBACK, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Run the relay by the arguments of the command line."""
    port, text, bit = sys.argv[1:]
    asyncio.run(relay(int(port), text.encode("utf-8"), int(bit)))


if __name__ == "__main__":
    main()
