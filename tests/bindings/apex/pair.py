"""Two APEX sessions tied together in memory, one octet at a time if wanted; TLS is what the pair says it is."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TypeVar

from comity.beep.options import BeepOptions
from comity.beep.sasl_server import SaslOptions
from comity.bindings.apex import events
from comity.bindings.apex.session import ApexSession
from comity.bindings.apex.signing_in import SessionOptions
from comity.sasl import check_password, derive_secret

Kind = TypeVar("Kind")
PASSWORD = "wonderland"
SECRETS = {"sha-256": derive_secret(PASSWORD, "sha-256", b"salt", 4096)}
LISTENER = SessionOptions(has_tls=True, sign_in=SaslOptions(b"key", ("sha-256",), iterations=4096, has_external=True))
PLAIN = SessionOptions(has_tls=True, sign_in=SaslOptions(b"key", ("sha-256",), iterations=4096, allow_clear=True))
INITIATOR = SessionOptions()


@dataclass
class End:
    session: ApexSession
    seen: list[object] = field(default_factory=list)

    def take(self, kind: type[Kind]) -> Kind:
        """The first event of its kind not taken yet."""
        found = next((event for event in self.seen if isinstance(event, kind)), None)
        assert found is not None, f"{kind.__name__} not among {self.seen}"
        self.seen.remove(found)
        return found


class Pair:
    """A listener that lets alice in, and an initiator."""

    def __init__(self, listener: SessionOptions = LISTENER, *, size: int = 1 << 20) -> None:
        self.end_point: bytes | None = None
        self.now = 0.0
        self._size = size
        numbers = itertools.count()

        def random(size: int) -> bytes:
            return next(numbers).to_bytes(size, "big")

        self.relay = End(ApexSession("listener", listener, lambda: self.end_point, random, 0.0))
        self.app = End(ApexSession("initiator", INITIATOR, lambda: self.end_point, random, 0.0))
        self.run()

    def run(self) -> None:
        """Until neither has anything to say."""
        while True:
            wants_tls = [end for end in (self.relay, self.app) if self._events(end)]
            if wants_tls:
                self.end_point = b"certificate"
            for end in wants_tls:
                end.session.tls_started(self.now)
            if not any([self._carry(self.relay, self.app), self._carry(self.app, self.relay), wants_tls]):
                return

    def _carry(self, one: End, other: End) -> bool:
        octets = b"".join(one.session.data_to_send(self.now))
        for start in range(0, len(octets), self._size):
            other.session.receive_data(octets[start : start + self._size], self.now)
        return bool(octets)

    def _events(self, end: End) -> bool:
        wants_tls = False
        while (event := end.session.next_event()) is not None:
            end.seen.append(event)
            if isinstance(event, events.TlsWanted):
                self._carry(end, self.app if end is self.relay else self.relay)
                wants_tls = True
            elif isinstance(event, events.CredentialsWanted):
                end.session.credentials(SECRETS if event.username in ("alice", "alice@a.test") else None)
            elif isinstance(event, events.PasswordCheckWanted):
                end.session.password_checked(check_password(event.password, event.hash_name, event.secret))
        return wants_tls

    def sign_in(self) -> None:
        """TLS, then alice."""
        self.app.session.start_tls()
        self.run()
        self.app.session.sign_in("alice", PASSWORD)
        self.run()
        self.relay.take(events.SignInSucceeded)
        self.app.take(events.SignInSucceeded)

    def open(self) -> int:
        """An APEX channel with nothing riding."""
        self.app.session.open()
        self.run()
        return self.app.take(events.ChannelOpened).channel


def limits(**changes: int) -> SessionOptions:
    """A listener with other limits."""
    return SessionOptions(BeepOptions(**changes), sign_in=SaslOptions(b"key", ("sha-256",)))  # type: ignore[arg-type]  # all ints
