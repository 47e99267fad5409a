"""The receiving side of a stream between servers: header, TLS, who the other side is, stanzas (RFC 6120, XEP-0220, XEP-0198).

Place on the path: step 3, beside ``session.py``, which has the clients; ``server_stream_out.py`` is the initiating side. A stream carries
stanzas one way, from who opened it. What leaves here as ``StanzaReceived`` came by a stream that proved a domain; whether the stanza is of
that domain, ``passing.py`` looks at.

A domain is proved by SASL EXTERNAL, for which the certificate must name it; others on the same stream by ``db:result``: at once where the
certificate names them too (XEP-0344 calls it dialback without dialback), by asking their server where the operator allows it.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Callable
from dataclasses import dataclass

from comity.bindings.base import TlsInfo
from comity.bindings.xmpp import dialback, wire
from comity.bindings.xmpp.dialback import DIALBACK, RESULT, VERIFY, Keys, names_domain
from comity.bindings.xmpp.events import (
    DialbackWanted,
    DomainProved,
    SignInFailed,
    SmEnabled,
    StanzaReceived,
    StreamEnded,
    TlsWanted,
)
from comity.bindings.xmpp.jid import Jid, prepare_domain
from comity.bindings.xmpp.sm import MAX_QUEUE
from comity.bindings.xmpp.stream import XmppStream
from comity.bindings.xmpp.wire import SASL, SM, TLS, Element, RootOpened
from comity.errors import AddressError, RemoteProtocolError
from comity.xml import XML_LANG, XmlLimits, serialize, start_tag

SERVER = "jabber:server"
PREFIXES = {**wire.PREFIXES, DIALBACK: "db"}

#: Longest stream id and dialback key looked at.
MOST_KEY = 1024


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """What both sides need to know; limits from reliability.md section 6.2."""

    domains: tuple[str, ...]
    """Served domains as prepared JID domains."""
    keys: Keys
    """Our own dialback keys."""
    dialback: frozenset[str] = frozenset()
    """Domains (prepared) that may be proved by dialback alone."""
    has_tls: bool = True
    most_domains: int = 50
    """Proved on one stream (D-18)."""
    max_failures: int = 5
    sm_queue: int = MAX_QUEUE
    idle_seconds: float = 600.0
    """After which a stream that we opened and that carries nothing is closed."""
    pre_auth_seconds: float = 30.0
    pre_auth_octets: int = 64 * 1024
    pre_auth_limits: XmlLimits = wire.PRE_AUTH_LIMITS
    stanza_limits: XmlLimits = XmlLimits(octets=512 * 1024)  # noqa: RUF009  frozen


class ServerStream(XmppStream):
    """What both sides of a stream between servers do.

    Args:
        options: limits, domains, keys.
        tls: what TLS proved, None before.
        random: gives that many random octets.
        now: monotonic seconds at which the connection was made; the deadline counts from there.
    """

    content_namespace = SERVER

    def __init__(
        self, options: PeerOptions, tls: Callable[[], TlsInfo | None], random: Callable[[int], bytes], now: float
    ) -> None:
        super().__init__(
            lambda: None if (info := tls()) is None else info.server_end_point, random, options.pre_auth_limits
        )
        self._options = options
        self._tls = tls
        self._deadline = now + options.pre_auth_seconds
        self._last_heard = self._spaces_at = now
        self._octets = 0

    def _write(self, element: Element) -> None:
        self._out.append(serialize(element, wire.CLIENT, PREFIXES))

    def _write_open(self, attributes: dict[str, str]) -> None:
        attributes = {name: value for name, value in attributes.items() if value}
        tag = start_tag(Element(wire.STREAM, {**attributes, "version": "1.0", XML_LANG: "en"}), SERVER, PREFIXES)
        self._out.append(b"<?xml version='1.0'?>" + tag)
        self._is_header_sent = True

    def _enter(self, domain: str) -> None:
        """Stanzas flow from now on."""
        if self._jid is None:
            self._jid = Jid("", domain)
            self._deadline = None
            self._reader.limits = self._options.stanza_limits

    def _count(self, octets: int) -> None:
        if self._jid is None:
            self._octets += octets
            if self._octets > self._options.pre_auth_octets:
                self._fail("policy-violation", "too much was sent before a domain was proved")

    def _is_version_one(self, opened: RootOpened) -> bool:
        major = opened.element.get("version").partition(".")[0]
        return major.isdigit() and int(major[:9]) >= 1

    def _answer_verify(self, element: Element) -> None:
        """Say whether a key shown to another server is ours (XEP-0220 section 2.3, D-05)."""
        receiving, originating = read_domain(element.get("from")), read_domain(element.get("to"))
        if originating not in self._options.domains:
            self._write(dialback.answer(element, "error", "item-not-found", "this domain is not served here"))
            return
        shown, id = element.text, element.get("id")
        is_sane = bool(receiving and id) and len(shown) <= MOST_KEY and len(id) <= MOST_KEY
        is_right = is_sane and self._options.keys.is_right(receiving, originating, id, shown)
        self._write(dialback.answer(element, "valid" if is_right else "invalid"))


class State(enum.Enum):
    """Where the negotiation stands."""

    OPENING = "opening"
    """A stream header is expected."""
    NEGOTIATING = "negotiating"
    """Features were sent."""
    WAITING = "waiting"
    """TLS was announced."""


class IncomingStream(ServerStream):
    """A stream that another server opened; arguments as of ``ServerStream``.

    Events: ``TlsWanted``, ``DomainProved``, ``DialbackWanted``, ``SignInFailed``, ``StanzaReceived``, ``StreamEnded``.
    """

    def __init__(
        self, options: PeerOptions, tls: Callable[[], TlsInfo | None], random: Callable[[int], bytes], now: float
    ) -> None:
        super().__init__(options, tls, random, now)
        self._state = State.OPENING
        self._id = ""
        self._ours = ""
        self._theirs = ""
        """What the header says, proved or not."""
        self._external = ""
        """Proved by EXTERNAL."""
        self._proved: set[str] = set()
        self._asking: dict[tuple[str, str], Element] = {}
        """Results whose server is being asked, by domain and ours."""
        self._failures = 0

    @property
    def claimed(self) -> str:
        """The domain the header says it is (U-labels), "" if it says none; proves nothing."""
        return self._theirs

    # --- verbs -------------------------------------------------------------------------------------------------------

    def dialback_checked(self, domain: str, to: str, is_valid: bool | None) -> None:
        """Answer ``DialbackWanted``; None: the domain's server could not be asked."""
        element = self._asking.pop((domain, to), None)
        if element is None or self._is_ended:
            return
        if is_valid is None:
            self._write(
                dialback.answer(element, "error", "remote-server-not-found", "the domain's server cannot be asked")
            )
        elif is_valid:
            self._prove(domain, "dialback")
            self._write(dialback.answer(element, "valid"))
        else:
            self._emit(SignInFailed(Jid("", domain), "not-authorized", "the dialback key is not the domain's"))
            self._write(dialback.answer(element, "invalid"))  # D-03

    # --- header ------------------------------------------------------------------------------------------------------

    def _handle_root(self, opened: RootOpened) -> None:
        root = opened.element
        if self._state is State.WAITING and not self.is_tls:
            raise RemoteProtocolError("TLS was announced and did not come", hint="policy-violation")
        self._ours = read_domain(root.get("to"))
        if self._ours not in self._options.domains:
            self._ours = ""
            raise RemoteProtocolError("this host is not served here", hint="host-unknown")
        self._theirs = read_domain(root.get("from"))
        if (root.get("from") and not self._theirs) or self._theirs in self._options.domains:
            raise RemoteProtocolError("that is not a domain of yours", hint="invalid-from")
        if self._external and self._theirs not in ("", self._external):
            raise RemoteProtocolError("the stream belongs to another domain", hint="invalid-from")
        self._write_header_if_needed()
        if not self._is_version_one(opened):
            raise RemoteProtocolError("XMPP 1.0 is needed", hint="unsupported-version")
        self._state = State.NEGOTIATING
        self._write(self._features())

    def _write_header(self) -> None:
        self._id = self._random(16).hex()
        sender = self._ours or (self._options.domains[0] if self._options.domains else "")
        self._write_open({"from": sender, "to": self._theirs, "id": self._id})

    def _features(self) -> Element:
        features = Element(f"{{{wire.STREAMS}}}features")
        if not self.is_tls:
            if self._options.has_tls:
                features.append(Element(f"{{{TLS}}}starttls", {}, [Element(f"{{{TLS}}}required")]))
            return features
        if not self._external and self._may_use_external:
            mechanism = Element(f"{{{SASL}}}mechanism", {}, ["EXTERNAL"])
            features.append(Element(f"{{{SASL}}}mechanisms", {}, [mechanism]))
        if self._external or self._theirs in self._options.dialback:
            features.append(Element(dialback.FEATURE, {}, [Element(dialback.ERRORS)]))
            features.append(Element(f"{{{SM}}}sm"))
        return features

    @property
    def _may_use_external(self) -> bool:
        return bool(self._theirs) and names_domain(self._tls(), self._theirs)  # D-10

    # --- elements ----------------------------------------------------------------------------------------------------

    def _handle_element(self, element: Element) -> None:
        if element.name in wire.STANZA_NAMES:
            if self._jid is None:
                raise RemoteProtocolError("no domain is proved yet", hint="not-authorized")
            self._emit(StanzaReceived(element, self._sm.incoming.receive()))
        elif element.name == f"{{{TLS}}}starttls":
            self._handle_starttls()
        elif element.name == f"{{{SASL}}}auth":
            self._handle_auth(element)
        elif element.name == RESULT:
            self._handle_result(element)
        elif element.name == VERIFY and self.is_tls:
            self._answer_verify(element)
        elif element.name == f"{{{SM}}}enable" and self._jid is not None:
            self._handle_enable()
        elif not self._handle_counts(element):
            raise RemoteProtocolError("this element is not understood here", hint="unsupported-stanza-type")

    def _handle_starttls(self) -> None:
        if self.is_tls or not self._options.has_tls or not self._reader.is_between:
            self._write(Element(f"{{{TLS}}}failure"))
            self._out += [wire.STREAM_CLOSE, b""]
            self._is_peer_done = True
            self._end(StreamEnded("", "STARTTLS was refused"))
            return
        self._write(Element(f"{{{TLS}}}proceed"))
        self._restart()
        self._state = State.WAITING
        self._emit(TlsWanted())

    # --- SASL EXTERNAL -----------------------------------------------------------------------------------------------

    def _handle_auth(self, element: Element) -> None:
        if not self.is_tls:
            self._refuse("encryption-required")
        elif element.get("mechanism") != "EXTERNAL" or self._external:
            self._refuse("invalid-mechanism")
        elif not self._may_use_external:
            self._refuse("not-authorized", "the certificate does not name that domain")
        elif self._identity(element.text) != self._theirs:
            self._refuse("invalid-authzid")
        else:
            self._succeed()

    def _identity(self, text: str) -> str:
        """The domain somebody wants to be (RFC 6120 section 6.3.8); that of the header if it says none."""
        if text.strip() in ("", "="):
            return self._theirs
        try:
            return read_domain(base64.b64decode(text.strip(), validate=True).decode("utf-8"))
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return ""

    def _succeed(self) -> None:
        if not self._reader.is_between:
            raise RemoteProtocolError("a new stream may begin only after success", hint="policy-violation")
        self._external = self._theirs
        self._write(Element(f"{{{SASL}}}success"))
        self._restart()
        self._state = State.OPENING
        self._prove(self._external, "EXTERNAL")

    def _refuse(self, condition: str, text: str = "") -> None:
        failure = Element(f"{{{SASL}}}failure", {}, [Element(f"{{{SASL}}}{condition}")])
        if text:
            failure.append(Element(f"{{{SASL}}}text", {XML_LANG: "en"}, [text]))
        self._write(failure)
        self._fail_once(self._theirs, condition, text)

    def _fail_once(self, domain: str, condition: str, text: str) -> None:
        self._emit(SignInFailed(Jid("", domain) if domain else None, condition, text))
        self._failures += 1
        if self._failures >= self._options.max_failures:
            self._fail("policy-violation", "too many failed attempts")

    def _prove(self, domain: str, mechanism: str) -> None:
        self._proved.add(domain)
        self._enter(domain)
        self._emit(DomainProved(domain, mechanism))

    # --- dialback, and several domains -------------------------------------------------------------------------------

    def _handle_result(self, element: Element) -> None:
        domain, to = read_domain(element.get("from")), read_domain(element.get("to"))
        if not domain or domain in self._options.domains:
            raise RemoteProtocolError("that is not a domain of yours", hint="invalid-from")  # D-04
        if not self.is_tls:
            self._write(dialback.answer(element, "error", "policy-violation", "TLS comes first"))
        elif to not in self._options.domains:
            self._write(dialback.answer(element, "error", "item-not-found", "this domain is not served here"))  # D-07
        elif domain in self._proved:
            self._write(dialback.answer(element, "valid"))
        elif len(self._proved) + len(self._asking) >= self._options.most_domains:
            raise RemoteProtocolError("too many domains on one stream", hint="policy-violation")  # D-18
        elif names_domain(self._tls(), domain):
            self._prove(domain, "certificate")
            self._write(dialback.answer(element, "valid"))
        elif domain not in self._options.dialback:
            self._write(
                dialback.answer(element, "error", "policy-violation", "a certificate for that domain is needed")
            )
            self._fail_once(domain, "policy-violation", "dialback is not allowed for that domain")  # D-02
        elif len(element.text) > MOST_KEY or (domain, to) in self._asking:
            self._write(dialback.answer(element, "invalid"))
        else:
            self._asking[domain, to] = element
            self._emit(DialbackWanted(domain, to, element.text.strip(), self._id))

    # --- stream management -------------------------------------------------------------------------------------------

    def _handle_enable(self) -> None:
        if self._is_sm_on:
            self._write(Element(f"{{{SM}}}failed", {}, [Element(f"{{{wire.STANZAS}}}unexpected-request")]))
            return
        self._sm.incoming.start()
        self._is_sm_on = True
        self._write(Element(f"{{{SM}}}enabled"))
        self._emit(SmEnabled("", 0.0))

    def _handle_counts(self, element: Element) -> bool:
        return self._handle_sm_counts(element)


def read_domain(text: str) -> str:
    """A domain as a header or a dialback element has it, prepared; "" if it is none."""
    if not text or "@" in text or "/" in text:
        return ""
    try:
        return prepare_domain(text)
    except AddressError:
        return ""
