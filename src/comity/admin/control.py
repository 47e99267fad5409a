"""The control socket: administrative commands reach the running server by it.

Place on the path: beside it. ``DATA/control.sock``, mode 0600, one JSON line asks and one answers. The kernel says
who is at the other end (SO_PEERCRED): the server's own user and root, nobody else.

Sockets belong to ``net``; this one is the exception, because it is no part of any protocol, speaks to this machine
only, and has to work for the command line without a binding.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from comity.admin.commands import Commands
from comity.admin.requests import AnyRequest, CommandRefused, Request
from comity.errors import ComityError, StoreError

logger = logging.getLogger(__name__)

MAX_LINE = 1 << 20
"""Octets of a request; an answer may be 16 times that."""
IDLE_SECONDS = 30.0
#: Linux's sun_path holds 108 octets with the final NUL.
_LONGEST_PATH = 107


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line back: a result, or an error with the exit code of the command."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    exit_code: int = 0


class NotRunning(ComityError):
    """No server listens on the control socket."""


class ControlServer:
    """Answers on the control socket.

    Args:
        commands: what carries the requests out.
        path: where the socket is made; a socket that a killed server left is replaced. Its caller holds the
            process lock of the data directory, so it cannot belong to a live server.
    """

    def __init__(self, commands: Commands, path: Path) -> None:
        self._commands = commands
        self._path = path
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._acts: set[asyncio.Task[Answer]] = set()

    async def start(self) -> None:
        """Make the socket and begin to answer. Raises StoreError if it cannot be made."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _reachable(self._path) as name:
                self._path.unlink(missing_ok=True)
                # The directory is 0700 already; the mode is set before anybody can connect (no listen yet).
                listening.bind(name)
                self._path.chmod(0o600)
            self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=MAX_LINE)
        except OSError as error:
            listening.close()
            raise StoreError(f"cannot make the control socket {self._path}: {error.strerror}") from error

    async def stop(self) -> None:
        """Stop answering and remove the socket; an act under way is finished."""
        if self._server is None:
            return
        self._server.close()
        self._path.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._acts, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _is_allowed(writer.get_extra_info("socket")):
                while line := await asyncio.wait_for(reader.readline(), IDLE_SECONDS):
                    writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                    await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):  # idle, a line too long, gone: nothing is owed
            logger.info("control connection ended early")
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = msgspec.json.decode(line, type=AnyRequest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return Answer(error=f"The running server does not understand this command: {error}.", exit_code=2)
        # Shielded: when the caller goes away half-way, the act is still finished.
        act = asyncio.get_running_loop().create_task(carry_out(self._commands, request))
        self._acts.add(act)
        act.add_done_callback(self._acts.discard)
        return await asyncio.shield(act)


async def carry_out(commands: Commands, request: Request) -> Answer:
    """Run ``request`` and put what came of it into an answer; every expected error becomes its sentence."""
    try:
        return Answer(result=msgspec.Raw(msgspec.json.encode(await commands.run(request))))
    except CommandRefused as refused:
        return Answer(error=str(refused), exit_code=refused.exit_code)
    except ComityError as error:
        return Answer(error=str(error), exit_code=2)


async def call(path: Path, request: Request) -> Answer:
    """Ask the server that listens on ``path``.

    Raises:
        NotRunning: there is no socket, or nobody listens on it.
        StoreError: the connection broke before the answer came, or this user may not connect.
    """
    try:
        with _reachable(path) as name:
            reader, writer = await asyncio.open_unix_connection(name, limit=MAX_LINE * 16)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise NotRunning(f"no server listens on {path}") from error
    except OSError as error:
        cure = "Run the command as the server's user or as root."
        raise StoreError(f"cannot connect to {path}: {error.strerror}. {cure}") from error
    try:
        writer.write(msgspec.json.encode(request) + b"\n")
        await writer.drain()
        line = await reader.readline()
        return msgspec.json.decode(line, type=Answer)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        cure = "The command may or may not have been carried out: look, then try again (as the server's user or root)."
        raise StoreError(f"the running server broke off. {cure}") from error
    finally:
        writer.close()


def _is_allowed(peer: socket.socket) -> bool:
    """True for the server's own user and for root, as the kernel says it."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid in (0, os.geteuid()):
        return True
    logger.warning("control connection of user %d refused", uid)
    return False


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A name of ``path`` short enough for a Unix socket: its directory may lie too deep."""
    name = str(path)
    if len(os.fsencode(name)) <= _LONGEST_PATH:
        yield name
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
