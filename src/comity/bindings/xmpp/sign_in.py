"""The server's side of a client stream until somebody is signed in: header, TLS, SASL (RFC 6120 sections 4 to 6).

Place on the path: step 3, the first part of it; ``session.py`` goes on from here and holds the table of both parts.
The principal that is proved here never changes afterwards.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from comity import sasl
from comity.bindings.xmpp import wire
from comity.bindings.xmpp.events import (
    CredentialsWanted,
    PasswordCheckWanted,
    SignInFailed,
    SignInSucceeded,
    StreamEnded,
    TlsWanted,
)
from comity.bindings.xmpp.jid import Jid, prepare_local
from comity.bindings.xmpp.sm import MAX_QUEUE
from comity.bindings.xmpp.stream import EndPoint, XmppStream
from comity.bindings.xmpp.wire import BIND, CSI, SASL, SESSION, SM, TLS, Element, RootOpened
from comity.errors import AddressError, LocalProtocolError, RemoteProtocolError
from comity.sasl import ScramSecret
from comity.xml import XML_LANG, XmlLimits

#: RFC 4422 section 3.1: a mechanism name has at most 20 characters; this much longer is an attack (X-45).
MAX_MECHANISM_NAME = 64


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What a server session needs to know; limits from reliability.md section 6.2."""

    domains: tuple[str, ...]
    """Served domains as prepared JID domains."""
    dummy_key: bytes
    """Secret from which the salts of accounts that do not exist are derived."""
    has_tls: bool = True
    """False if there is no certificate: STARTTLS is not offered."""
    allow_plaintext: bool = False
    """True for a peer of an exempt network: sign-in without TLS is allowed."""
    hashes: tuple[str, ...] = ("sha-512", "sha-256", "sha-1")
    iterations: int = 100_000
    """As new accounts get, so that one that does not exist looks the same."""
    resume_seconds: float = 300.0
    keeps_counts: bool = False
    """True: the ``h`` of a resumable stream is said only when ``count_kept`` allows it (``CountWanted``)."""
    has_presence: bool = False
    """True: contact lists have versions and may hold approvals given in advance; both are announced."""
    sm_queue: int = MAX_QUEUE
    pre_auth_seconds: float = 30.0
    pre_auth_octets: int = 64 * 1024
    max_failures: int = 5
    pre_auth_limits: XmlLimits = wire.PRE_AUTH_LIMITS
    stanza_limits: XmlLimits = wire.STANZA_LIMITS


class State(enum.Enum):
    """Where the negotiation stands."""

    OPENING = "opening"
    """A stream header is expected."""
    NEGOTIATING = "negotiating"
    """Features were sent; nobody is signed in."""
    CHALLENGED = "challenged"
    """A SASL exchange is under way."""
    AUTHENTICATED = "authenticated"
    """Signed in; a resource must be bound or a stream resumed."""
    BOUND = "bound"
    """Stanzas flow."""


class SignIn(XmppStream):
    """A client's stream up to its sign-in.

    Args:
        options: the server's side.
        end_point: gives tls-server-end-point data of our certificate once TLS is up, None before.
        random: gives that many random octets.
        now: monotonic seconds at which the connection was made; the deadline counts from there.
    """

    def __init__(self, options: ServerOptions, end_point: EndPoint, random: Callable[[int], bytes], now: float) -> None:
        super().__init__(end_point, random, options.pre_auth_limits)
        self._options = options
        self._deadline = now + options.pre_auth_seconds
        self._last_heard = now
        self._spaces_at = now
        self._state = State.OPENING
        self._domain = ""
        self._header_to = ""
        self._account: Jid | None = None
        self._claimed: Jid | None = None
        self._scram: sasl.ScramServer | None = None
        self._plain: sasl.PlainResponse | None = None
        self._is_known = False
        self._failures = 0
        self._octets = 0
        self._wants_tls = False

    @property
    def state(self) -> State:
        """Where the negotiation stands."""
        return self._state

    @property
    def account(self) -> Jid | None:
        """The bare JID that signed in, None before. It never changes afterwards (X-30 to X-32)."""
        return self._account

    # --- verbs -------------------------------------------------------------------------------------------------

    def credentials(self, secrets: Mapping[str, ScramSecret] | None) -> None:
        """Answer ``CredentialsWanted``: secrets by hash name, None if there is no such account."""
        if self._claimed is None or self._is_ended:
            return
        if self._plain is not None:
            self._check_plain(secrets)
            return
        if self._scram is None:
            raise LocalProtocolError("no credentials were wanted")
        found = sasl.secret_for(secrets, self._scram.hash_name)
        self._is_known = found is not None
        dummy = self._dummy(self._scram.username, self._scram.hash_name)  # for everybody: it takes its time
        secret = found or dummy
        nonce = base64.b64encode(self._random(18)).decode("ascii")
        challenge = self._scram.challenge(secret, nonce)
        self._write(Element(f"{{{SASL}}}challenge", {}, [base64.b64encode(challenge).decode("ascii")]))
        self._state = State.CHALLENGED
        self._resume_reading()

    def password_checked(self, is_right: bool) -> None:
        """Answer ``PasswordCheckWanted``."""
        if self._is_ended or self._plain is None:
            return
        self._plain = None
        if is_right and self._is_known:
            self._succeed("PLAIN", None)
        else:
            self._fail_sign_in("not-authorized")
        self._resume_reading()

    # --- stream header -----------------------------------------------------------------------------------------

    def _handle_root(self, opened: RootOpened) -> None:
        root = opened.element
        if self._wants_tls and not self.is_tls:
            raise RemoteProtocolError("TLS was announced and did not come", hint="policy-violation")
        self._wants_tls = False
        self._check_host(root.get("to"))
        self._check_sender(root.get("from"))
        self._write_header_if_needed()
        major = root.get("version").partition(".")[0]
        if not major.isdigit() or int(major[:9]) < 1:
            raise RemoteProtocolError("XMPP 1.0 is needed", hint="unsupported-version")
        self._state = State.AUTHENTICATED if self._account else State.NEGOTIATING
        self._write(self._features())

    def _check_host(self, to: str) -> None:
        if not to and len(self._options.domains) == 1:
            to = self._options.domains[0]
        try:
            host = str(Jid.parse(to))
        except AddressError:
            host = ""
        if self._header_to and host != self._header_to:
            # the principal belongs to the host it signed in at.
            raise RemoteProtocolError("the stream was opened for another host", hint="not-authorized")
        if host not in self._options.domains:
            raise RemoteProtocolError("this host is not served here", hint="host-unknown")
        self._domain = host
        if self._account:
            self._header_to = host

    def _check_sender(self, sender: str) -> None:
        if not sender or self._account is None:
            return
        try:
            claimed = Jid.parse(sender)
        except AddressError:
            claimed = None
        if claimed is None or claimed.bare != self._account:
            raise RemoteProtocolError("the stream belongs to another account", hint="invalid-from")

    def _write_header(self) -> None:
        attributes = {"id": self._random(12).hex(), "version": "1.0", XML_LANG: "en"}
        domain = self._domain or (self._options.domains[0] if self._options.domains else "")
        if domain:
            attributes["from"] = domain
        if self._account:
            attributes["to"] = str(self._account)
        self._out.append(wire.stream_header(attributes))
        self._is_header_sent = True

    def _features(self) -> Element:
        features = Element(f"{{{wire.STREAMS}}}features")
        if self._account is not None:
            features.append(Element(f"{{{BIND}}}bind"))
            features.append(Element(f"{{{SESSION}}}session", {}, [Element(f"{{{SESSION}}}optional")]))
            features.append(Element(f"{{{SM}}}sm"))
            features.append(Element(f"{{{CSI}}}csi"))
            if self._options.has_presence:  # RFC 6121 sections 2.6.1 and 3.4
                features.append(Element("{urn:xmpp:features:rosterver}ver"))
                features.append(Element("{urn:xmpp:features:pre-approval}sub"))
            return features
        if self._options.has_tls and not self.is_tls:
            starttls = Element(f"{{{TLS}}}starttls")
            if not self._options.allow_plaintext:
                starttls.append(Element(f"{{{TLS}}}required"))
            features.append(starttls)
        names = self._mechanisms()
        if names:
            mechanisms = Element(f"{{{SASL}}}mechanisms")
            for name in names:
                mechanisms.append(Element(f"{{{SASL}}}mechanism", {}, [name]))
            features.append(mechanisms)
            if self._end_point():
                # XEP-0440: which of RFC 5929's types we can check.
                cb = wire.SASL_CHANNEL_BINDING
                announced = Element(f"{{{cb}}}channel-binding", {"type": sasl.CHANNEL_BINDING})
                features.append(Element(f"{{{cb}}}sasl-channel-binding", {}, [announced]))
        return features

    def _mechanisms(self) -> Sequence[str]:
        if not self.is_tls and not self._options.allow_plaintext:
            return ()
        return sasl.mechanisms_for(self._options.hashes, self._end_point(), is_plain_allowed=True)

    # --- TLS and SASL ------------------------------------------------------------------------------------------

    def _handle_starttls(self, element: Element) -> None:
        if self.is_tls or not self._options.has_tls or not self._reader.is_between:
            # what came in the same breath as <starttls/> would be read as if it had come under TLS.
            self._write(Element(f"{{{TLS}}}failure"))
            self._out += [wire.STREAM_CLOSE, b""]
            self._is_peer_done = True
            self._end(StreamEnded("", "STARTTLS was refused"))
            return
        self._write(Element(f"{{{TLS}}}proceed"))
        self._restart()
        self._domain = ""
        self._wants_tls = True
        self._state = State.OPENING
        self._emit(TlsWanted())

    def _handle_auth(self, element: Element) -> None:
        name = element.get("mechanism")
        if len(name) > MAX_MECHANISM_NAME:
            raise RemoteProtocolError("the mechanism name is too long for one", hint="policy-violation")
        if not self.is_tls and not self._options.allow_plaintext:
            self._fail_sign_in("encryption-required")
        elif name not in self._mechanisms():
            self._fail_sign_in("invalid-mechanism")
        else:
            self._attempt(lambda: self._begin(name, element))

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except sasl.SaslFailure as failure:
            self._fail_sign_in(failure.condition, failure.text)

    def _begin(self, name: str, element: Element) -> None:
        self._claimed = None
        if name == "PLAIN":
            self._plain, self._scram = None, None
            if not element.children:
                self._plain_challenge()
            else:
                self._read_plain(sasl.decode_base64(element.text))
            return
        has_plus = bool(self._end_point())
        self._scram = sasl.ScramServer(name, self._end_point(), has_plus)
        if not element.children:
            self._plain_challenge()
            return
        self._read_scram_first(sasl.decode_base64(element.text))

    def _plain_challenge(self) -> None:
        """The client sent no initial response: ask for it (RFC 6120 section 6.4.2)."""
        self._write(Element(f"{{{SASL}}}challenge", {}, ["="]))
        self._state = State.CHALLENGED

    def _read_plain(self, data: bytes) -> None:
        self._plain = sasl.read_plain(data)
        self._want_credentials(self._plain.username, self._plain.authzid)

    def _read_scram_first(self, data: bytes) -> None:
        assert self._scram is not None
        self._scram.first(data)
        self._want_credentials(self._scram.username, self._scram.authzid)

    def _want_credentials(self, username: str, authzid: str) -> None:
        try:
            account = Jid(prepare_local(username), self._domain)
        except AddressError:
            # No such account can exist; do the same work as for any other.
            account = Jid("", self._domain)
        if authzid:
            try:
                is_same = Jid.parse(authzid) == account
            except AddressError:
                is_same = False
            if not is_same:
                raise sasl.SaslFailure("invalid-authzid")
        self._claimed = account
        self._is_waiting = True
        self._emit(CredentialsWanted(account))

    def _handle_response(self, element: Element) -> None:
        self._attempt(lambda: self._respond(sasl.decode_base64(element.text)))

    def _respond(self, data: bytes) -> None:
        if self._scram is None:
            self._read_plain(data)
        elif self._claimed is None:
            self._read_scram_first(data)
        else:
            signature = self._scram.final(data, self._is_known)
            name = {v: k for k, v in sasl.SCRAM_HASHES.items()}[self._scram.hash_name]
            self._succeed(name + ("-PLUS" if self._scram.is_plus else ""), signature)

    def _handle_abort(self, element: Element) -> None:
        self._fail_sign_in("aborted")

    def _check_plain(self, secrets: Mapping[str, ScramSecret] | None) -> None:
        assert self._plain is not None
        hash_name = next((name for name in self._options.hashes if secrets and name in secrets), "")
        self._is_known = bool(hash_name)
        hash_name = hash_name or self._options.hashes[0]
        dummy = self._dummy(self._plain.username, hash_name)
        secret = sasl.secret_for(secrets, hash_name) or dummy
        self._emit(PasswordCheckWanted(self._plain.password, hash_name, secret))

    def _dummy(self, username: str, hash_name: str) -> ScramSecret:
        key = self._options.dummy_key + self._domain.encode()
        return sasl.dummy_secret(username, hash_name, key, self._options.iterations)

    def _succeed(self, mechanism: str, signature: bytes | None) -> None:
        if not self._reader.is_between:
            raise RemoteProtocolError("a new stream may begin only after success", hint="policy-violation")
        assert self._claimed is not None
        self._account = self._claimed
        self._header_to = self._domain
        children: list[Element | str] = [base64.b64encode(signature).decode("ascii")] if signature else []
        self._write(Element(f"{{{SASL}}}success", {}, children))
        self._scram = None
        self._deadline = self._now + self._options.pre_auth_seconds
        self._restart()
        self._reader.limits = self._options.stanza_limits
        self._state = State.OPENING
        self._emit(SignInSucceeded(self._account, mechanism))

    def _fail_sign_in(self, condition: str, text: str = "") -> None:
        failure = Element(f"{{{SASL}}}failure", {}, [Element(f"{{{SASL}}}{condition}")])
        if text:
            failure.append(Element(f"{{{SASL}}}text", {XML_LANG: "en"}, [text]))
        self._write(failure)
        self._emit(SignInFailed(self._claimed, condition, text))
        self._scram, self._plain, self._claimed = None, None, None
        self._state = State.NEGOTIATING
        self._failures += 1
        if self._failures >= self._options.max_failures:
            self._fail("policy-violation", "too many failed attempts")

    # --- small parts -------------------------------------------------------------------------------------------

    def _count(self, octets: int) -> None:
        if self._account is None:
            self._octets += octets
            if self._octets > self._options.pre_auth_octets:
                self._fail("policy-violation", "too much was sent before signing in")
