"""Several real servers that are each other's relays, an application of nobody's making, and a listener on the wire between."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from comity.cpim.address import Address
from tests.interop.apex_peer import Application
from tests.paths.kit import PASSWORD, ServerProcess

PEOPLE = ("alice", "bob")
HISTORY, MASK = b"urn:comity:history:0", b"urn:nobody:history:0"


class RelayServer(ServerProcess):
    """One `comity serve` of a domain of its own, with alice and bob; restart it to use other routes."""

    def __init__(self, directory: Path, domain: str) -> None:
        people = tuple(Address.im(name, domain) for name in PEOPLE)
        super().__init__(directory, domains=(domain,), people=people)

    @property
    def domain(self) -> str:
        return self.domains[0]

    def hop(self, transport: str = "tls") -> str:
        """How others write it in a route."""
        return f"{transport}://127.0.0.1:{self.port('apex', 'tls' if transport == 'tls' else 'tcp')[1]}"

    def join(self, trust: Path, *sections: str) -> None:
        """Believe these authorities, and have these sections instead of those of an earlier call."""
        base = self.config.read_text("utf-8").partition("\n[tls]\n")[0]
        text = f"{base}\n[tls]\ntrust = {json.dumps(str(trust))}\n" + "\n".join(sections)
        self.config.write_text(text, encoding="utf-8")

    def application(self, *endpoints: str) -> Application:
        """An application attached as these endpoints of one account."""
        context = ssl.create_default_context(cafile=str(self.authority))
        application = Application(*self.port("apex", "tls"), tls=context, name="localhost", at_once=True)
        application.sign_in(endpoints[0], PASSWORD)
        for endpoint in endpoints:
            application.attach(endpoint)
        return application

    def as_relay(self, other: RelayServer) -> Application:
        """A session with ``other`` that shows this server's certificate."""
        context = ssl.create_default_context(cafile=str(other.authority))
        tls = self.directory / "data" / "tls"
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        return Application(*other.port("apex", "tls"), tls=context, name="localhost", at_once=True)


def servers(folder: Path, *domains: str) -> tuple[list[RelayServer], Path]:
    """A server for each domain, none of them started, and the file of all their authorities."""
    made = [RelayServer(folder / domain, domain) for domain in domains]
    trust = folder / "trust.pem"
    trust.write_text("".join(server.authority.read_text("utf-8") for server in made), encoding="utf-8")
    return made, trust


def route(domain: str, next_hop: str, *transit: str) -> str:
    """A ``[[route]]`` by APEX."""
    lines = [f'domain = "{domain}"', 'via = "apex"', f'next_hop = "{next_hop}"', f"transit = {json.dumps(transit)}"]
    return "\n".join(["[[route]]", *lines, ""])


def peer(name: str, *speaks_for: str, address: str = "") -> str:
    """A ``[[peer]]``."""
    lines = [f'name = "{name}"', f"speaks_for = {json.dumps(speaks_for)}"]
    if address:
        lines.append(f'address = ["{address}"]')
    return "\n".join(["[[peer]]", *lines, ""])


class Tap:
    """Stands before a server on a link in the clear: counts what goes to it, and may make our history somebody else's.

    Args:
        address: the server's.
        is_masking: change the name of the history option on the way, both ways.
        change: what becomes of each piece that goes to the server; it has to come as one, and to keep its length where that is said.
    """

    def __init__(
        self, address: tuple[str, int], *, is_masking: bool = False, change: Callable[[bytes], bytes] | None = None
    ) -> None:
        self.address = address
        self.change = change
        self.is_masking = is_masking
        self.octets = bytearray()
        """Everything that went to the server."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def hop(self) -> str:
        """How to write it in a route."""
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def count(self, word: bytes) -> int:
        """How often something went to the server."""
        return bytes(self.octets).count(word)

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.address)
            except OSError:  # the server is not there yet
                near.close()
                continue
            self._sockets += [near, far]
            for source, sink, is_heard in ((near, far, True), (far, near, False)):
                thread = threading.Thread(target=self._carry, args=(source, sink, is_heard), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_heard: bool) -> None:
        kept = b""
        with suppress(OSError):
            while data := source.recv(65536):
                if is_heard:
                    self.octets += data
                if self.change is not None and is_heard:
                    data = self.change(data)
                if self.is_masking:
                    data, kept = _masked(kept + data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


def _masked(data: bytes) -> tuple[bytes, bytes]:
    """The octets with the name replaced, and what has to wait since it may be the beginning of one."""
    data = data.replace(HISTORY, MASK)
    for size in range(len(HISTORY) - 1, 0, -1):
        if data.endswith(HISTORY[:size]):
            return data[:-size], data[-size:]
    return data, b""


def nodes_of(history: str) -> Sequence[str]:
    """The nodes in a history option, in order."""
    return re.findall(r"node=[\"']([^\"']+)", history)
