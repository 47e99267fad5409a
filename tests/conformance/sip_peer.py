"""A SIP server of another domain on a TCP port, written from the RFCs with nothing of ours but sockets."""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PATIENCE = 10.0
CRLF = "\r\n"


@dataclass(frozen=True)
class Heard:
    """One message as it came."""

    first: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    writer: asyncio.StreamWriter

    def value(self, name: str) -> str:
        """The first header of that name, "" if absent."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    @property
    def method(self) -> str:
        """Of a request, and of what a response answers."""
        return self.value("CSeq").partition(" ")[2]

    @property
    def status(self) -> int:
        """Of a response; 0 for a request."""
        return int(self.first.split(" ")[1]) if self.first.startswith("SIP/2.0 ") else 0

    @property
    def target(self) -> str:
        """URI of Contact."""
        found = re.search(r"<([^>]*)>", self.value("Contact"))
        assert found is not None, self
        return found[1]


class SipPeer:
    """Takes connections, and opens one to the server under test where it is to speak first."""

    def __init__(self) -> None:
        self.port = 0
        self._heard: asyncio.Queue[Heard] = asyncio.Queue()
        self._kept: list[Heard] = []
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._cseq = 100

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in list(self._tasks):
            await task
        await self._server.wait_closed()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split(CRLF)
                headers = tuple(
                    (name.strip(), value.strip()) for name, _, value in (one.partition(":") for one in lines)
                )
                size = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
                self._heard.put_nowait(Heard(first, headers, await reader.readexactly(size), writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def connect(self, port: int) -> asyncio.StreamWriter:
        """A connection of its own to the server under test."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        task = asyncio.ensure_future(self._take(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return writer

    async def next(self, method: str, *, status: int = 0) -> Heard:
        """The next request of that method (or the next answer to one); OPTIONS are answered on the way."""
        async with asyncio.timeout(PATIENCE):
            while True:
                heard = await self._heard.get()
                if heard.method == "OPTIONS" and not heard.status:
                    self.answer(heard, 200)
                elif heard.method == method and bool(heard.status) == bool(status):
                    assert heard.status == status, heard
                    return heard

    def answer(self, heard: Heard, status: int, *headers: tuple[str, str], tag: str = "ffd2") -> None:
        """Answer a request."""
        copied = [(name, value) for name, value in heard.headers if name in ("Via", "From", "Call-ID", "CSeq")]
        to = heard.value("To")
        copied.append(("To", to if "tag=" in to else f"{to};tag={tag}"))
        self.write(heard.writer, f"SIP/2.0 {status} As Told", [*copied, *headers])

    def write(
        self, writer: asyncio.StreamWriter, first: str, headers: list[tuple[str, str]], body: bytes = b""
    ) -> None:
        """Write a message."""
        lines = [first, *(f"{name}: {value}" for name, value in headers if name.lower() != "content-length")]
        writer.write(CRLF.join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)

    def send(
        self,
        writer: asyncio.StreamWriter,
        printed: str,
        **changed: str,
    ) -> None:
        """Send a request as printed in an RFC, with some headers changed (underscores stand for hyphens); ``uri`` is its target."""
        head, _, body = printed.partition("\r\n\r\n")
        first, *lines = head.split(CRLF)
        uri = changed.pop("uri", "")
        if uri:
            method, _, version = first.split(" ")
            first = f"{method} {uri} {version}"
        replaced = {name.replace("_", "-").lower(): value for name, value in changed.items()}
        given = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        headers = [(name, value) for name, value in given if name.lower() not in {*replaced, "via", "cseq"}]
        self._cseq += 1
        method = first.split(" ")[0]
        own = [
            ("Via", f"SIP/2.0/TCP 127.0.0.1:{self.port};branch=z9hG4bK{secrets.token_hex(8)}"),
            ("CSeq", f"{self._cseq} {method}"),
            *((name.title().replace("Call-Id", "Call-ID"), value) for name, value in replaced.items() if value),
        ]
        self.write(writer, first, [*own, *headers], body.encode())
