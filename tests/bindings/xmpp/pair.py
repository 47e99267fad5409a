"""A server and a client session wired together in memory, with a clock that only moves when told to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from comity import sasl
from comity.bindings.xmpp import events
from comity.bindings.xmpp.events import Event
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.session import ClientOptions, ServerOptions, XmppClientSession, XmppServerSession
from comity.bindings.xmpp.sm import SmState
from comity.bindings.xmpp.stream import XmppStream
from comity.xml import Element, RootOpened, StreamReader, XmlLimits

PASSWORD = "pencil ☃"
HASHES = ("sha-512", "sha-256", "sha-1")
SECRETS = {name: sasl.derive_secret(PASSWORD, name, b"salt", 4096) for name in HASHES}
ACCOUNTS: dict[Jid, dict[str, sasl.ScramSecret]] = {
    Jid("alice", "a.test"): SECRETS,
    Jid("old", "a.test"): {"sha-1": SECRETS["sha-1"]},
}
END_POINT = hashlib.sha256(b"certificate").digest()
HEADER = (
    b"<?xml version='1.0'?><stream:stream to='a.test' xmlns='jabber:client' "
    b"xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)


def counting_random(seed: bytes = b"") -> Callable[[int], bytes]:
    """Octets that differ at every call and are the same in every run."""
    calls = 0

    def random(size: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_128(seed + calls.to_bytes(4, "big")).digest(size)

    return random


def options(**changes: object) -> ServerOptions:
    values: dict[str, object] = {
        "domains": ("a.test", "b.test"),
        "dummy_key": b"key",
        "iterations": 4096,
        **changes,
    }
    return ServerOptions(**values)  # type: ignore[arg-type]  # test helper: names are checked by the dataclass


class ServerSide:
    """A server session with somebody who answers its questions from ``ACCOUNTS`` and ``states``."""

    def __init__(self, *, tls: bool = False, **changes: object) -> None:
        self.now = 0.0
        self.end_point: bytes | None = END_POINT if tls else None
        self.session = XmppServerSession(options(**changes), lambda: self.end_point, counting_random(), 0.0)
        self.events: list[Event] = []
        self.states: dict[str, SmState] = {}
        self.handles_at_once = True

    def answer(self) -> None:
        """Take all events and answer those that ask something."""
        while (event := self.session.next_event()) is not None:
            self.events.append(event)
            match event:
                case events.CredentialsWanted(account):
                    self.session.credentials(ACCOUNTS.get(account))
                case events.PasswordCheckWanted(password, hash_name, secret):
                    self.session.password_checked(sasl.check_password(password, hash_name, secret))
                case events.ResumeWanted(previous_id):
                    state = self.states.pop(previous_id, None)
                    if state is not None and state.jid.bare == self.session.account:
                        self.session.resume(state)
                    else:
                        self.session.refuse_resume()
                case events.TlsWanted():
                    pass
                case events.StanzaReceived(_, index) if self.handles_at_once:
                    self.session.stanza_handled(index)

    def feed(self, *pieces: bytes) -> bytes:
        """Give octets as a stranger would; returns everything written."""
        out = b""
        for piece in pieces:
            self.session.receive_data(piece, self.now)
            self.answer()
            out += b"".join(self.session.data_to_send(self.now))
            if self.end_point is None and any(isinstance(e, events.TlsWanted) for e in self.events):
                self.end_point = END_POINT
        return out

    def sign_in(self, resource: str = "r") -> bytes:
        """The quickest way to a bound resource: PLAIN, on a connection that allows it."""
        plain = b"AGFsaWNlAHBlbmNpbCDimIM="
        return self.feed(
            HEADER,
            b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + plain + b"</auth>",
            HEADER,
            b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>"
            + resource.encode()
            + b"</resource></bind></iq>",
        )

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


class Pair:
    """Both sides; ``run`` passes octets to and fro, cut into ``size`` octets, until nothing moves."""

    def __init__(
        self,
        *,
        tls: bool = False,
        size: int = 1 << 20,
        jid: str = "alice@a.test/phone",
        password: str = PASSWORD,
        resume: SmState | None = None,
        client_end_point: bytes | None = END_POINT,
        states: dict[str, SmState] | None = None,
        **changes: object,
    ) -> None:
        self.size = size
        self.server = ServerSide(tls=tls, **changes)
        if states is not None:
            self.server.states = states
        self.client_end_point: bytes | None = client_end_point if tls else None
        self._late_end_point = client_end_point
        self.events: list[Event] = []
        self.handles_at_once = True
        self.client = XmppClientSession(
            ClientOptions(Jid.parse(jid), password, allow_plaintext=bool(changes.get("allow_plaintext"))),
            lambda: self.client_end_point,
            counting_random(b"client"),
            0.0,
            resume,
        )

    def run(self) -> Pair:
        moved = True
        while moved:
            moved = self._move(self.client, self._to_server) | self._move(self.server.session, self._to_client)
        return self

    def _move(self, sender: XmppStream, give: Callable[[bytes], None]) -> bool:
        octets = b"".join(sender.data_to_send(self.server.now))
        for start in range(0, len(octets), self.size):
            give(octets[start : start + self.size])
        return bool(octets)

    def _to_server(self, data: bytes) -> None:
        self.server.session.receive_data(data, self.server.now)
        self.server.answer()

    def _to_client(self, data: bytes) -> None:
        self.client.receive_data(data, self.server.now)
        while (event := self.client.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, events.TlsWanted):
                self.server.end_point = END_POINT
                self.client_end_point = self._late_end_point
                self.client.tls_started()
            elif isinstance(event, events.StanzaReceived) and self.handles_at_once:
                self.client.stanza_handled(event.index)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


def read_stream(octets: bytes) -> list[Element]:
    """What a server wrote: top-level elements after its (possibly repeated) headers."""
    found: list[Element] = []
    for part in octets.split(b"<?xml version='1.0'?>"):
        reader = StreamReader(XmlLimits())
        reader.receive_data(part if part.startswith(b"<stream:stream") else HEADER + part)
        while (unit := reader.next_unit()) is not None:
            if isinstance(unit, Element):
                found.append(unit)
            elif not isinstance(unit, RootOpened):
                break
    return found
