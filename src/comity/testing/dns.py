"""A DNS server on the loopback network for tests: it answers from a zone text and misbehaves when told to.

Place on the path: beside it; ``net/resolver.py`` asks it over real sockets.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from comity.bindings.base import HostPort


class DnsServer(asyncio.DatagramProtocol):
    """Answers over UDP, and over TCP what UDP truncates; use it with ``async with``.

    Args:
        zone: records one per line, as in a master file: ``name ttl IN type data`` with absolute names.
    """

    def __init__(self, zone: str) -> None:
        self._records: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset] = {}
        self.load(zone)
        self.asked: list[str] = []
        """Questions in the order they came, as ``name type``."""
        self.is_silent = False
        """Answer nothing."""
        self.rcode: dns.rcode.Rcode = dns.rcode.NOERROR
        """Answer everything with this error if it is not NOERROR."""
        self.truncates = False
        """Set TC over UDP and give no records, so that the asker must come by TCP."""
        self.forges = False
        """Send an answer with another ID before the right one."""
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self.address: HostPort = ("", 0)

    def load(self, zone: str) -> None:
        """Serve the records of ``zone`` instead of those before."""
        grouped: dict[tuple[str, str], tuple[int, list[str]]] = {}
        for line in zone.splitlines():
            if line.strip():
                name, ttl, _, kind, data = line.split(None, 4)
                grouped.setdefault((name, kind), (int(ttl), []))[1].append(data)
        self._records = {
            (dns.name.from_text(name), dns.rdatatype.from_text(kind)): dns.rrset.from_text_list(
                name, ttl, "IN", kind, texts
            )
            for (name, kind), (ttl, texts) in grouped.items()
        }

    async def __aenter__(self) -> DnsServer:
        loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = self._server.sockets[0].getsockname()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=self.address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._transport is not None
        assert self._server is not None
        self._transport.close()
        self._server.close()
        await self._server.wait_closed()

    def datagram_received(self, data: bytes, addr: HostPort) -> None:
        """Answer one question, or not, as the switches say."""
        if self.is_silent or self._transport is None:
            return
        answer = self._answer(data, is_stream=False)
        if self.forges:
            forged = bytes([answer[0] ^ 0xFF]) + answer[1:]
            self._transport.sendto(forged, addr)
        self._transport.sendto(answer, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            answer = self._answer(await reader.readexactly(size), is_stream=True)
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            # The asker went away; there is nobody to answer.
            return
        finally:
            writer.close()

    def _answer(self, data: bytes, *, is_stream: bool) -> bytes:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        question = query.question[0]
        self.asked.append(f"{question.name.to_text(omit_final_dot=True)} {dns.rdatatype.to_text(question.rdtype)}")
        if self.rcode != dns.rcode.NOERROR:
            response.set_rcode(self.rcode)
        elif self.truncates and not is_stream:
            response.flags |= dns.flags.TC
        else:
            self._fill(response, question)
        try:
            return response.to_wire(max_size=65535 if is_stream else 1232)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()

    def _fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> None:
        name = question.name
        for _ in range(64):
            records = self._records.get((name, question.rdtype))
            if records is not None:
                response.answer.append(records)
                return
            alias = self._records.get((name, dns.rdatatype.CNAME))
            if alias is None:
                break
            response.answer.append(alias)
            name = alias[0].target
        if not any(known == name for known, _ in self._records):
            response.set_rcode(dns.rcode.NXDOMAIN)
