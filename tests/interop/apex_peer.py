"""An APEX application and an APEX relay of our own making that share nothing with Comity (RFC 3340 to 3343 read again).

Stands on `apex_peer_beep`; neither imports `comity`. An `Application` is the initiator of the endpoint-relay mode and, by
`bind`, of the relay-relay mode; a `Relay` listens: it accepts bind, attach, data and terminate, keeps every `data` it was
sent in `arrived`, hands on what is for an endpoint attached to it, and sends data over the sessions others opened.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import os
import queue
import re
import socket
import ssl
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from types import TracebackType
from xml.sax.saxutils import quoteattr

from tests.interop.apex_peer_beep import (
    BEEP_XML,
    SASL,
    TLS,
    Broken,
    Message,
    Refused,
    Session,
    error_of,
    refusal,
    xml_of,
)

APEX = "http://iana.org/beep/APEX"


@dataclass(frozen=True)
class Data:
    """One data element with what it carries: `headers` and `body` of the MIME part, or `inline` for a data-content."""

    request: Message
    element: ET.Element
    headers: bytes = b""
    body: bytes = b""
    inline: ET.Element | None = None

    @property
    def originator(self) -> str:
        """Who says it is from."""
        return _identity(self.element.find("originator"))

    @property
    def recipients(self) -> list[str]:
        """Whom it is for."""
        return [_identity(one) for one in self.element.findall("recipient")]

    def option(self, name: str) -> ET.Element | None:
        """The per-data option of that internal or external name."""
        options = self.element.findall("option")
        return next((one for one in options if name in (one.get("internal"), one.get("external"))), None)

    def header(self, name: str) -> str:
        """A header of the part."""
        return str(BytesHeaderParser().parsebytes(self.headers).get(name, ""))


def _identity(element: ET.Element | None) -> str:
    if element is None or not element.get("identity"):
        raise Broken("an originator or recipient without identity")
    return element.get("identity", "")


def option(name: str, trans_id: int, content: str = "", hop: str = "final", must: bool = False) -> str:
    """An option element; a name with a colon is external."""
    kind = "external" if ":" in name else "internal"
    understood = " mustUnderstand='true'" if must else ""
    return f"<option {kind}={quoteattr(name)} targetHop='{hop}'{understood} transID='{trans_id}'>{content}</option>"


def timing(trans_id: int, **attributes: object) -> str:
    """The dataTiming option as RFC 3342, section 2 wants it: targetHop all, mustUnderstand true."""
    return _packed("dataTiming", trans_id, attributes)


def hopping(trans_id: int, **attributes: object) -> str:
    """The dataHopping option as RFC 3342, section 4 wants it."""
    return _packed("dataHopping", trans_id, attributes)


def _packed(name: str, trans_id: int, attributes: dict[str, object]) -> str:
    listed = "".join(f" {key}='{value}'" for key, value in attributes.items())
    return option(name, trans_id, f"<{name}{listed} />", "all", must=True)


def data_payload(
    originator: str,
    recipients: list[str],
    *,
    part: tuple[bytes, bytes] | None = None,
    inline: str = "",
    options: str = "",
    per_recipient: str = "",
    content_id: str = "",
) -> bytes:
    """A data element as a BEEP payload: with a MIME part (headers, body) as multipart/related, or with in-line XML."""
    people = f"<originator identity={quoteattr(originator)} />" + "".join(
        f"<recipient identity={quoteattr(one)}>{per_recipient}</recipient>" for one in recipients
    )
    if part is None:
        body = f"<data-content Name='Content'>{inline}</data-content>"
        return BEEP_XML + f"<data content='#Content'>{people}{options}{body}</data>".encode()
    headers, content = part
    named = content_id or f"{os.urandom(8).hex()}@peer.invalid"
    boundary = b"peer-" + os.urandom(12).hex().encode()
    control = f"<data content='cid:{named}'>{people}{options}</data>".encode()
    top = b'Content-Type: multipart/related; boundary="%s"; start="<control-%s>"; type="application/beep+xml"\r\n\r\n'
    return b"".join(
        [
            top % (boundary, named.encode()),
            b"--%s\r\nContent-Type: application/beep+xml\r\nContent-ID: <control-%s>\r\n\r\n"
            % (boundary, named.encode()),
            control + b"\r\n--%s\r\n" % boundary,
            headers + b"Content-ID: <%s>\r\n\r\n" % named.encode() + content,
            b"\r\n--%s--\r\n" % boundary,
        ]
    )


def read_data(request: Message) -> Data | ET.Element:
    """What a MSG on an APEX channel carries: `Data`, or the element of another operation."""
    head, _, rest = request.payload.partition(b"\r\n\r\n")
    parsed = BytesHeaderParser().parsebytes(head + b"\r\n\r\n")
    if parsed.get_content_type() != "multipart/related":
        element = xml_of(request.payload)
        return _inline(request, element) if element.tag == "data" else element
    boundary = b"--" + str(parsed.get_param("boundary")).encode()
    pieces = (b"\r\n" + rest).split(b"\r\n" + boundary)
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise Broken("a multipart/related without its closing delimiter")
    parts: dict[str, tuple[bytes, bytes]] = {}
    for piece in pieces[1:-1]:
        piece = re.sub(rb"\A[ \t]*\r\n", b"", piece)
        headers, _, body = (b"\r\n" + piece).partition(b"\r\n\r\n")
        name = str(BytesHeaderParser().parsebytes(headers[2:] + b"\r\n\r\n").get("Content-ID", "")).strip("<> ")
        parts[name] = (headers[2:] + b"\r\n", body)
    start = str(parsed.get_param("start") or "").strip("<>") or next(iter(parts))
    control = parts[start]
    element = xml_of(control[0] + b"\r\n" + control[1])
    content = element.get("content", "")
    if content.startswith("#"):
        return _inline(request, element)
    headers, body = parts[content.removeprefix("cid:")]
    return Data(request, element, headers, body)


def _inline(request: Message, element: ET.Element) -> Data:
    named = element.get("content", "").removeprefix("#")
    inner = next((one for one in element.findall("data-content") if one.get("Name") == named), None)
    return Data(request, element, inline=inner)


# -- signing in (RFC 5802, RFC 4616) -------------------------------------------------------------------------------------


def sign_in(session: Session, account: str, password: str, mechanism: str = "SCRAM-SHA-256") -> None:
    """Sign in with one of the SASL profiles; `Refused` when the other side says no.

    The channel is closed then: only one tuning channel may be there at a time (RFC 3080, section 2).
    """
    scram = _Scram(account, password)
    plain = "" if mechanism == "EXTERNAL" else f"\0{account}\0{password}"
    first = scram.first() if mechanism == "SCRAM-SHA-256" else plain
    number, _, answer = session.start([(SASL + mechanism, _blob(first.encode()))])
    try:
        element = ET.fromstring(answer)
        if mechanism == "SCRAM-SHA-256":
            element = session.ask(number, BEEP_XML + _blob(scram.second(_blob_of(element)).encode()).encode())
            scram.check(_blob_of(element))
            if element.get("status") != "complete":
                element = session.ask(number, BEEP_XML + _blob(b"").encode())
        _blob_of(element)
    except Refused:
        session.close_channel(number)
        raise
    if element.get("status") != "complete":
        raise Broken(f"the exchange is not complete: {ET.tostring(element)!r}")


class _Scram:
    """The client of SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding."""

    def __init__(self, account: str, password: str) -> None:
        self._nonce = base64.b64encode(os.urandom(18)).decode()
        self._bare = f"n={account.replace('=', '=3D').replace(',', '=2C')},r={self._nonce}"
        self._password = password
        self._expected = b""

    def first(self) -> str:
        """client-first-message."""
        return "n,," + self._bare

    def second(self, server_first: bytes) -> str:
        """client-final-message."""
        fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
        if not fields["r"].startswith(self._nonce) or len(fields["r"]) == len(self._nonce):
            raise Broken("the server did not add to our nonce")
        salted = _salted(self._password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
        without_proof = f"c=biws,r={fields['r']}"
        signed = f"{self._bare},{server_first.decode()},{without_proof}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}"

    def check(self, server_final: bytes) -> None:
        """The server knows the password too."""
        if server_final != b"v=" + base64.b64encode(self._expected):
            raise Broken("the server does not know the password either")


@functools.lru_cache
def _salted(password: bytes, salt: bytes, iterations: int) -> bytes:
    """The slow half, once a password and salt: hundreds of sessions sign in in a second."""
    return hashlib.pbkdf2_hmac("sha256", password, salt, iterations)


def _blob(octets: bytes) -> str:
    return f"<blob>{base64.b64encode(octets).decode()}</blob>"


def _blob_of(element: ET.Element) -> bytes:
    if element.tag == "error":
        raise refusal(element)
    return base64.b64decode((element.text or "").strip(), validate=True)


# -- the initiator -------------------------------------------------------------------------------------------------------


class Application:
    """An application (or, by `bind`, a relay) that calls a relay."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        name: str = "",
        source: str = "",
        at_once: bool = False,
        **more: object,
    ) -> None:
        """`tls`: by the TLS profile, or with `at_once` from the first octet; `source`: the address to call from."""
        sock = socket.create_connection((host, port), timeout=10, source_address=(source, 0) if source else None)
        if at_once and tls is not None:
            sock, tls = tls.wrap_socket(sock, server_hostname=name or host), None
        self.session = Session(sock, listening=False, **more)  # type: ignore[arg-type]  # passed on as they are
        self.profiles = self.session.greet()
        if tls is not None:
            self.profiles = self.session.start_tls(tls, name or host)
        self.channel = 0
        self.endpoint = ""
        self._trans_id = 0

    def __enter__(self) -> Application:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.hang_up()

    def sign_in(self, account: str, password: str, mechanism: str = "SCRAM-SHA-256") -> None:
        """Sign in as that account."""
        sign_in(self.session, account, password, mechanism)

    def open(self, content: str = "", server_name: str = "") -> ET.Element | None:
        """Start a channel with the APEX profile; the answer to what rides on it, `Refused` if that is an error."""
        self.channel, _, answer = self.session.start([(APEX, content)], server_name)
        if not content:
            return None
        element = ET.fromstring(answer)
        if element.tag == "error":
            raise refusal(element)
        return element

    def next_id(self) -> int:
        """A transaction-identifier not used yet."""
        self._trans_id += 1
        return self._trans_id

    def attach(self, endpoint: str, options: str = "") -> int:
        """Attach as an endpoint: the first rides on `start`; the transaction-identifier."""
        self.endpoint = self.endpoint or endpoint
        return self._associate(f"<attach endpoint={quoteattr(endpoint)}", options)

    def bind(self, domain: str) -> int:
        """Say that we are a relay of that domain."""
        return self._associate(f"<bind relay={quoteattr(domain)}", "")

    def _associate(self, start: str, options: str) -> int:
        number = self.next_id()
        name = start.partition(" ")[0][1:]
        element = f"{start} transID='{number}'>{options}</{name}>"
        answer = self.operate(element) if self.channel else self.open(element)
        if answer is None or answer.tag != "ok":
            raise Broken(f"{name} answered by {answer!r}")
        return number

    def terminate(self, number: int = 0) -> None:
        """Release one association, or with 0 all of them."""
        self.operate(f"<terminate transID='{number}' />")

    def operate(self, element: str) -> ET.Element:
        """One operation and its answer."""
        return self.session.ask(self.channel, BEEP_XML + element.encode())

    def data(self, originator: str, recipients: list[str] | str, **content: object) -> None:
        """Send data and wait for the ok."""
        self.send(data_payload(originator, _listed(recipients), **content))  # type: ignore[arg-type]  # passed on

    def send(self, payload: bytes) -> None:
        """Send a payload and wait for the ok; `Refused` when it is an error."""
        if self.session.ask(self.channel, payload).tag != "ok":
            raise Broken("data is answered by ok or error")

    def receive(self, timeout: float | None = None, answer: bool = True) -> Data:
        """The next data sent to us; answered with ok at once unless told not to."""
        got = read_data(self.session.next_request(timeout))
        if not isinstance(got, Data):
            raise AssertionError(f"not data but {ET.tostring(got)!r}")
        if answer:
            self.ok(got.request)
        return got

    def terminated(self, timeout: float | None = None) -> ET.Element:
        """The terminate the relay sends us; answered."""
        request = self.session.next_request(timeout)
        element = xml_of(request.payload)
        if element.tag != "terminate":
            raise AssertionError(f"not terminate but {ET.tostring(element)!r}")
        self.ok(request)
        return element

    def ok(self, request: Message) -> None:
        """Say ok."""
        self.session.reply(request, BEEP_XML + b"<ok />")

    def refuse(self, request: Message, code: str, text: str = "") -> None:
        """Say no."""
        self.session.reply(request, error_of(Refused(code, text)), "ERR")

    def release(self) -> None:
        """End the session as the RFC asks: close channel 0, wait for the ok."""
        self.session.close_channel(0)


def _listed(recipients: list[str] | str) -> list[str]:
    return [recipients] if isinstance(recipients, str) else recipients


# -- the listener --------------------------------------------------------------------------------------------------------


@dataclass
class Caller:
    """One session somebody opened to the relay, and the thread that reads it."""

    session: Session
    channel: int = 0
    endpoints: dict[int, str] = field(default_factory=dict)
    domains: dict[int, str] = field(default_factory=dict)
    jobs: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue)


class Relay:
    """A relay that listens, for one domain: each session is read by one thread, which is the only one to write to it."""

    def __init__(
        self, domain: str, tls: ssl.SSLContext | None = None, *, at_once: bool = False, window: int = 65536
    ) -> None:
        """`tls`: offered as the TLS profile, or with `at_once` spoken from the first octet."""
        self.domain, self.tls, self.at_once, self.window = domain, tls, at_once, window
        self.arrived: queue.SimpleQueue[Data] = queue.SimpleQueue()
        self.bound: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.broken: list[str] = []
        self.refuse: Callable[[Data], Refused | None] = lambda data: None
        self.callers: list[Caller] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop listening, hang up on everybody, wait for the threads."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for caller in self.callers:
            caller.jobs.put(caller.session.hang_up)
            with contextlib.suppress(OSError):
                caller.session.wake()
        for thread in self._threads:
            thread.join(10)

    def send(self, domain: str, payload: bytes, timeout: float = 10.0) -> None:
        """Send data over the session that was bound for `domain`, and wait for its ok."""
        caller = next(one for one in self.callers if domain in one.domains.values() and not one.session.is_over)
        if (problem := self._later(caller, payload).get(timeout=timeout)) is not None:
            raise problem

    def _forward(self, caller: Caller, payload: bytes, result: queue.SimpleQueue[BaseException | None]) -> None:
        try:
            result.put(None if caller.session.ask(caller.channel, payload).tag == "ok" else Broken("no ok"))
        except (Broken, Refused, TimeoutError) as problem:
            result.put(problem)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        offered = None if self.at_once else self.tls
        profiles = (*((TLS,) if offered else ()), SASL + "EXTERNAL", APEX)
        if self.tls and self.at_once:
            sock = self.tls.wrap_socket(sock, server_side=True)
        session = Session(sock, listening=True, profiles=profiles, window=self.window, tls_context=offered)
        caller = Caller(session)
        session.on_start = lambda number, offers: self._started(caller, number, offers)
        self.callers.append(caller)
        try:
            session.greet(wait=False)
            while not session.is_over:
                session.pump(lambda: bool(session.requests) or not caller.jobs.empty() or session.is_over, 3600)
                while not caller.jobs.empty():
                    caller.jobs.get()()
                while session.requests:
                    self._served(caller, session.requests.popleft())
        except (Broken, Refused, OSError) as problem:
            if "closed the connection" not in str(problem) and "is over" not in str(problem):
                self.broken.append(str(problem))
        finally:
            session.hang_up()

    def _started(self, caller: Caller, number: int, offers: list[tuple[str, str]]) -> tuple[str, str]:
        for uri, content in offers:
            if uri == APEX:
                caller.channel = number
                return uri, self._answer(caller, ET.fromstring(content)) if content else ""
            if uri == SASL + "EXTERNAL":
                proved = isinstance(caller.session.sock, ssl.SSLSocket) and caller.session.sock.getpeercert()
                return uri, "<blob status='complete' />" if proved else "<error code='535' />"
        raise Refused("550", "all requested profiles are unsupported")

    def _answer(self, caller: Caller, element: ET.Element) -> str:
        """attach, bind or terminate: the element that answers it."""
        number = int(element.get("transID", "0"))
        known = caller.endpoints | caller.domains
        if element.tag in ("attach", "bind") and number in known:
            return "<error code='555'>that transaction-identifier is in use</error>"
        if element.tag == "attach":
            caller.endpoints[number] = element.get("endpoint", "")
        elif element.tag == "bind":
            caller.domains[number] = element.get("relay", "")
            self.bound.put(element.get("relay", ""))
        elif number and number not in known:
            return "<error code='550'>unknown transaction-identifier</error>"
        else:
            for one in [number] if number else list(known):
                caller.endpoints.pop(one, None)
                caller.domains.pop(one, None)
        return "<ok />"

    def _served(self, caller: Caller, request: Message) -> None:
        got = read_data(request)
        if not isinstance(got, Data):
            answer = self._answer(caller, got)
            keyword = "ERR" if answer.startswith("<error") else "RPY"
            caller.session.reply(request, BEEP_XML + answer.encode(), keyword)
            return
        if refused := self.refuse(got):
            caller.session.reply(request, error_of(refused), "ERR")
            return
        caller.session.reply(request, BEEP_XML + b"<ok />")
        self.arrived.put(got)
        for recipient in got.recipients:
            self._hand_on(recipient, got)

    def _hand_on(self, recipient: str, data: Data) -> None:
        """Step 5.3 of RFC 3340, section 4.4.4.1, for one recipient attached here; nobody waits for the answer."""
        for caller in self.callers:
            if recipient in caller.endpoints.values() and not caller.session.is_over:
                self._later(caller, data.request.payload)

    def _later(self, caller: Caller, payload: bytes) -> queue.SimpleQueue[BaseException | None]:
        """Have the caller's own thread send a payload; what comes of it arrives in the queue."""
        result: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        caller.jobs.put(lambda: self._forward(caller, payload, result))
        caller.session.wake()
        return result
