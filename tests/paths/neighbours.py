"""Several server processes that speak with each other under TLS: each believes the others' authorities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from comity.bindings.base import Transport
from comity.cpim.address import Address
from tests.paths.kit import ServerProcess, Via

ALICE, BOB = Address.parse("im:alice@a.test"), Address.parse("im:bob@b.test")
CAROL = Address.parse("im:carol@a.test")
FAST = "user_messages = 100000\nuser_message_burst = 100000\nuser_octets = 100000000\nconnections_per_address = 1000"


@dataclass(frozen=True, slots=True)
class Way:
    """One ``[[route]]``."""

    at: str
    """Domain of the server that has it."""
    to: str
    """Domain it leads to."""
    by: str
    """Domain of the next server."""
    via: Via = "sip"
    transit: tuple[str, ...] = ()
    transport: Transport = "tls"
    """"tcp" is STARTTLS for XMPP."""


class Servers:
    """One server a domain, with its people and its ways."""

    def __init__(
        self, directory: Path, people: Mapping[str, tuple[Address, ...]], ways: Sequence[Way], limits: str = ""
    ) -> None:
        limits = f"{FAST}\n{limits}"
        self._at = {domain: ServerProcess(directory / domain, limits, (domain,), people[domain]) for domain in people}
        trust = directory / "trust.pem"
        trust.write_bytes(b"".join(server.authority.read_bytes() for server in self._at.values()))
        for domain, server in self._at.items():
            text = server.config.read_text(encoding="utf-8") + f'[tls]\ntrust = "{trust}"\n'
            text += "".join(self._route(way) for way in ways if way.at == domain)
            server.config.write_text(text + self._peers(domain, ways), encoding="utf-8")

    def _route(self, way: Way) -> str:
        _, port = self._at[way.by].port("server" if way.via == "xmpp" else way.via, way.transport)
        transit = f"transit = {list(way.transit)}\n" if way.transit else ""
        target = f'via = "{way.via}"\nnext_hop = "{way.transport}://localhost:{port}"'
        return f'[[route]]\ndomain = "{way.to}"\n{target}\n{transit}'

    def _peers(self, domain: str, ways: Sequence[Way]) -> str:
        """Who hands in what others sent has to be trusted with that."""
        others = {way.at for way in ways if way.by == domain and way.to != domain}
        others |= {way.at for way in ways if way.by == domain and way.transit}
        text = '[[peer]]\nname = "{name}"\nspeaks_for = ["*"]\n'
        return "".join(text.format(name=name) for name in sorted(others))

    def __getitem__(self, domain: str) -> ServerProcess:
        return self._at[domain]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self._at.values():
                stack.enter_context(server)
                server.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Whatever happened: nothing of it runs on."""
        self._stack.close()


class Neighbours(Servers):
    """Alice and Carol at ``a``, Bob at ``b``; one protocol between them."""

    def __init__(self, directory: Path, via: Via = "sip", transport: Transport = "tls", *, limits: str = "") -> None:
        to_b = Way("a.test", "b.test", "b.test", via, transport=transport)
        ways = [to_b, Way("b.test", "a.test", "a.test", via, transport=transport)]
        super().__init__(directory, {"a.test": (ALICE, CAROL), "b.test": (BOB,)}, ways, limits)

    @property
    def a(self) -> ServerProcess:
        return self["a.test"]

    @property
    def b(self) -> ServerProcess:
        return self["b.test"]
