"""Two server processes, a.test and b.test, that speak SIP over TLS with each other: each believes the other's authority."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from comity.cpim.address import Address
from tests.paths.kit import ServerProcess

ALICE, BOB = Address.parse("im:alice@a.test"), Address.parse("im:bob@b.test")
CAROL = Address.parse("im:carol@a.test")
FAST = "user_messages = 100000\nuser_message_burst = 100000\nuser_octets = 100000000\nconnections_per_address = 1000"


class Neighbours:
    """Alice and Carol at ``a``, Bob at ``b``."""

    def __init__(self, directory: Path) -> None:
        self.a = ServerProcess(directory / "a", FAST, ("a.test",), (ALICE, CAROL))
        self.b = ServerProcess(directory / "b", FAST, ("b.test",), (BOB,))
        trust = directory / "trust.pem"
        trust.write_bytes(self.a.authority.read_bytes() + self.b.authority.read_bytes())
        _, tls_a = self.a.port("sip", "tls")
        _, tls_b = self.b.port("sip", "tls")
        _add(self.a, trust, "b.test", tls_b)
        _add(self.b, trust, "a.test", tls_a)

    def __enter__(self) -> Neighbours:
        self.a.start()
        self.b.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Whatever happened: nothing of it runs on."""
        self.a.kill()
        self.b.kill()


def _add(server: ServerProcess, trust: Path, domain: str, port: int) -> None:
    """Let a server know its neighbour."""
    text = server.config.read_text(encoding="utf-8")
    more = (
        f'[tls]\ntrust = "{trust}"\n[[route]]\ndomain = "{domain}"\nvia = "sip"\nnext_hop = "tls://127.0.0.1:{port}"\n'
    )
    server.config.write_text(text + more, encoding="utf-8")
