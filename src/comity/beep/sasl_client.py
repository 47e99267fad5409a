"""Signing in at a BEEP peer by SASL (RFC 3080 section 4.1), with the best mechanism that both sides have.

Place on the path: step 3, before there is a message. The machine takes the session's events first (``handle`` is True for its own).
A server that cannot prove that it knows the password is left without another word (T13).
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from comity import sasl
from comity.beep.events import (
    ChannelClosed,
    ChannelRefused,
    ChannelStarted,
    CloseRefused,
    CloseWanted,
    ErrorReceived,
    Event,
    MessageReceived,
    ProfileOffer,
    ReplyReceived,
    SignInFailed,
    SignInSucceeded,
)
from comity.beep.management import read_error
from comity.beep.payload import beep_xml_body, parse_beep_xml, read_beep_xml
from comity.beep.sasl_profile import SASL, EndPoint, read_blob, write_blob
from comity.beep.session import BeepSession
from comity.beep.tls_profile import Emit
from comity.errors import RemoteProtocolError
from comity.sasl import SaslFailure
from comity.xml import Element


class SaslClient:
    """Signs in; the mechanism is the best that both sides have.

    Args:
        session: the session.
        emit: takes ``SignInSucceeded`` or ``SignInFailed``.
        end_point: channel binding data of the *server's* certificate.
        random: gives that many random octets.
    """

    def __init__(self, session: BeepSession, emit: Emit, end_point: EndPoint, random: Callable[[int], bytes]) -> None:
        self._session = session
        self._emit = emit
        self._end_point = end_point
        self._random = random
        self._number = 0
        self._is_over = True
        self._identity = ""
        self._mechanism = ""
        self._scram: sasl.ScramClient | None = None
        self._is_proved = False  # the server showed that it knows the password, or need not

    def sign_in(self, username: str, password: str, profiles: tuple[str, ...], *, server_name: str = "") -> None:
        """Sign in with a password by one of ``profiles``, those of the server's greeting."""
        offered = [uri.removeprefix(SASL) for uri in profiles if uri.startswith(SASL)]
        end_point = self._end_point()
        name = sasl.choose_mechanism(offered, end_point, is_plain_allowed=end_point is not None)
        self._identity = username
        if name is None:
            self._emit(SignInFailed(username, 0, "the server offers no mechanism we may use"))
            return
        if name == "PLAIN":
            self._scram, first = None, sasl.write_plain(username, password)
        else:
            nonce = base64.b64encode(self._random(18)).decode("ascii")
            has_plus = any(other.endswith("-PLUS") for other in offered)
            self._scram = sasl.ScramClient(
                name, username, password, nonce, end_point=end_point, server_offers_plus=has_plus
            )
            first = self._scram.first()
        self._start(name, first, server_name)

    def sign_in_external(self, authzid: str = "", *, server_name: str = "") -> None:
        """Sign in as what TLS or the network proved (EXTERNAL)."""
        self._identity = authzid
        self._scram = None
        self._start("EXTERNAL", authzid.encode(), server_name)

    def _start(self, name: str, first: bytes, server_name: str) -> None:
        self._mechanism = name
        self._is_proved = self._scram is None
        self._is_over = False
        self._number = self._session.start_channel([ProfileOffer(SASL + name, write_blob(first))], server_name)

    def handle(self, event: Event) -> bool:
        """Take an event; True if it was about these profiles."""
        number = self._number
        match event:
            case ChannelStarted() if number and event.number == number:
                self._attempt(lambda: parse_beep_xml(event.content))
            case ChannelRefused() if number and event.number == number:
                self._number = 0
                self._fail(event.code, event.text)
            case ReplyReceived() | ErrorReceived() if number and event.channel == number:
                self._attempt(lambda: read_beep_xml(event.payload))
            case MessageReceived() if number and event.channel == number:
                self._session.reply_error(
                    number, event.msgno, self._session.error_payload(550, "the element is not expected here")
                )
            case CloseWanted() if number and event.channel == number:
                self._session.accept_close(number)
            case ChannelClosed() if number and event.channel == number:
                self._number = 0
                if not self._is_over:
                    self._fail(0, "the server closed the channel")
            case CloseRefused() if number and event.channel == number:
                pass  # it stays, and is quiet
            case _:
                return False
        return True

    def _attempt(self, read: Callable[[], Element]) -> None:
        if self._is_over:
            return
        try:
            element = read()
            if element.name == "error":
                error = read_error(element)
                self._leave()
                self._fail(error.code, error.text)
            else:
                self._step(*read_blob(element))
        except (RemoteProtocolError, SaslFailure) as error:
            # What the server says makes no sense, or is not to be trusted: no word more to it.
            self._fail(0, str(getattr(error, "text", "") or error))
            self._session.close(f"signing in by {self._mechanism}: {error}")

    def _step(self, status: str, data: bytes) -> None:
        if status == "complete":
            if not self._is_proved:
                assert self._scram is not None
                self._scram.verify(data)
            self._is_over = True
            self._leave()
            self._session.identity = self._identity
            self._emit(SignInSucceeded(self._identity, self._mechanism))
        elif status == "abort":
            raise SaslFailure("aborted", "a server does not abort")
        elif self._scram is None:
            raise SaslFailure("aborted", "the server challenged a mechanism that has no challenge")
        elif data.startswith(b"v="):
            # The signature in a challenge of its own; the answer is empty.
            self._scram.verify(data)
            self._is_proved = True
            self._session.send_message(self._number, beep_xml_body(write_blob(b"")))
        else:
            self._session.send_message(self._number, beep_xml_body(write_blob(self._scram.final(data))))

    def _leave(self) -> None:
        """The channel has done its work."""
        self._session.close_channel(self._number)

    def _fail(self, code: int, text: str) -> None:
        self._is_over = True
        self._emit(SignInFailed(self._identity, code, text[:500]))
