"""Letting a BEEP peer sign in by SASL (RFC 3080 section 4.1): ``blob`` to and fro until the identity is known.

Place on the path: step 3, before there is a message. The machine takes the session's events first (``handle`` is True for its own).
Mechanisms: SCRAM with SHA-512, SHA-256 and SHA-1, each with -PLUS where TLS gives its data, PLAIN under TLS only, EXTERNAL (X38: no
DIGEST-MD5, no ANONYMOUS). None of them has a security layer, so that channels and greetings stand as they are. A session has one
sign-in: the identity is that of all its channels for its life, and a second attempt is refused with 520.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from comity import sasl
from comity.beep.events import (
    ChannelClosed,
    ChannelWanted,
    CloseWanted,
    CredentialsWanted,
    Event,
    ExternalCheckWanted,
    MessageReceived,
    PasswordCheckWanted,
    ProfileOffer,
    SignInFailed,
    SignInSucceeded,
)
from comity.beep.payload import beep_xml_body, parse_beep_xml, read_beep_xml
from comity.beep.sasl_profile import CODES, SASL, EndPoint, read_blob, write_blob
from comity.beep.session import BeepSession
from comity.beep.tls_profile import Emit
from comity.errors import LocalProtocolError, RemoteProtocolError
from comity.sasl import SaslFailure, ScramSecret
from comity.xml import Element


@dataclass(frozen=True, slots=True)
class SaslOptions:
    """What a server takes."""

    dummy_key: bytes
    """Secret from which the salts of accounts that do not exist are derived."""
    hashes: tuple[str, ...] = ("sha-512", "sha-256", "sha-1")
    iterations: int = 100_000
    """As new accounts get, so that one that does not exist looks the same."""
    allow_clear: bool = False
    """SCRAM and EXTERNAL without TLS (loopback, or a network that is exempt); PLAIN never."""
    has_external: bool = False
    """The peer showed a certificate that verified, or is known by its address."""
    max_failures: int = 5


class SaslServer:
    """Lets the peer sign in.

    Args:
        session: the session; ``profiles`` are what its greeting should name.
        emit: takes ``CredentialsWanted``, ``PasswordCheckWanted``, ``ExternalCheckWanted``, ``SignInSucceeded``, ``SignInFailed``.
        options: what is taken.
        end_point: channel binding data of our certificate.
        random: gives that many random octets.
    """

    def __init__(
        self,
        session: BeepSession,
        emit: Emit,
        options: SaslOptions,
        end_point: EndPoint,
        random: Callable[[int], bytes],
    ) -> None:
        self._session = session
        self._emit = emit
        self._options = options
        self._end_point = end_point
        self._random = random
        self._channel = 0
        self._uri = ""
        self._msgno = -1  # the message that waits for our answer; -1: the start of the channel does
        self._is_asked = False  # we owe the peer an answer
        self._failures = 0
        self._forget()

    def _forget(self) -> None:
        self._scram: sasl.ScramServer | None = None
        self._plain: sasl.PlainResponse | None = None
        self._username = ""
        self._is_begun = False
        self._is_known = False
        self._waits_for = ""  # the verb that must come from the caller

    @property
    def profiles(self) -> tuple[str, ...]:
        """URIs for the greeting, best first."""
        return tuple(SASL + name for name in self._mechanisms())

    def _mechanisms(self) -> list[str]:
        end_point = self._end_point()
        if end_point is None and not self._options.allow_clear:
            return []
        names = sasl.mechanisms_for(self._options.hashes, end_point, is_plain_allowed=end_point is not None)
        return ["EXTERNAL", *names] if self._options.has_external else names

    # --- verbs --------------------------------------------------------------------------------------------------------

    def credentials(self, secrets: Mapping[str, ScramSecret] | None) -> None:
        """Answer ``CredentialsWanted``: secrets by hash name, None if there is no such account."""
        if not self._expects("credentials"):
            return
        if self._plain is not None:
            self._check_plain(secrets)
            return
        scram = self._scram
        assert scram is not None
        found = sasl.secret_for(secrets, scram.hash_name)
        self._is_known = found is not None
        dummy = self._dummy(scram.hash_name)  # for everybody: it takes its time
        nonce = base64.b64encode(self._random(18)).decode("ascii")
        self._say(write_blob(scram.challenge(found or dummy, nonce)))

    def password_checked(self, is_right: bool) -> None:
        """Answer ``PasswordCheckWanted``."""
        if self._expects("password_checked"):
            if is_right and self._is_known:
                self._succeed(self._username, b"")
            else:
                self._fail(535, "the sign-in failed")

    def external_checked(self, identity: str | None) -> None:
        """Answer ``ExternalCheckWanted``."""
        if self._expects("external_checked"):
            if identity:
                self._succeed(identity, b"")
            else:
                self._fail(535, "the sign-in failed")

    def fail(self, code: int, text: str = "") -> None:
        """Answer any of them with an error: 454 if the accounts cannot be asked now, 537 for an authzid not allowed."""
        if self._session.is_ended or not self._is_asked:
            return
        self._fail(code, text)

    def _expects(self, verb: str) -> bool:
        """False if the question has gone with its session or channel."""
        if self._session.is_ended or not self._is_asked:
            return False
        if self._waits_for != verb:
            raise LocalProtocolError(f"{verb} was not wanted")
        self._waits_for = ""
        return True

    # --- events ---------------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> bool:
        """Take an event; True if it was about these profiles."""
        match event:
            case ChannelWanted():
                offers = [offer for offer in event.profiles if offer.uri.startswith(SASL)]
                if not offers:
                    return False
                self._wanted(event.number, offers)
            case MessageReceived() if self._channel and event.channel == self._channel:
                self._message(event)
            case CloseWanted() if self._channel and event.channel == self._channel:
                if self._is_asked:
                    self._session.refuse_close(event.channel, 550, "still working")
                else:
                    self._session.accept_close(event.channel)
            case ChannelClosed() if self._channel and event.channel == self._channel:
                self._channel = 0
                self._forget()
            case _:
                return False
        return True

    def _wanted(self, number: int, offers: list[ProfileOffer]) -> None:
        session = self._session
        if session.identity:
            session.refuse_channel(number, 520, "somebody is signed in already")
            return
        if self._channel:
            session.refuse_channel(number, 550, "a sign-in is under way")
            return
        mechanisms = self._mechanisms()
        offer = next((offer for offer in offers if offer.uri.removeprefix(SASL) in mechanisms), None)
        if offer is None:
            self._refuse_mechanism(number, offers)
            return
        if self._failures >= self._options.max_failures:
            session.close("too many failed attempts to sign in")
            return
        self._channel, self._uri = number, offer.uri
        self._msgno, self._is_asked = -1, True
        if offer.content:
            self._attempt(lambda: parse_beep_xml(offer.content))
        else:
            self._say(b"")  # the client speaks first in all of our mechanisms, now by a message

    def _refuse_mechanism(self, number: int, offers: list[ProfileOffer]) -> None:
        names = [offer.uri.removeprefix(SASL) for offer in offers]
        ours = {*sasl.mechanisms_for(self._options.hashes, b"-", is_plain_allowed=True), "EXTERNAL"}
        if self._end_point() is None and any(name in ours for name in names):
            self._session.refuse_channel(number, 538, "the mechanism requires encryption")
        elif "EXTERNAL" in names:
            self._session.refuse_channel(number, 535, "the sign-in failed")  # nothing was proved outside
        elif any(name in sasl.SCRAM_HASHES or name in ("DIGEST-MD5", "CRAM-MD5", "ANONYMOUS") for name in names):
            self._session.refuse_channel(number, 534, "the mechanism is too weak")
        else:
            self._session.refuse_channel(number, 550, "all requested profiles are unsupported")

    def _message(self, event: MessageReceived) -> None:
        if self._is_asked or self._session.identity:
            # A client waits for the challenge; there is nothing that this could answer.
            code, text = (520, "somebody is signed in already") if self._session.identity else (550, "still working")
            self._session.reply_error(event.channel, event.msgno, self._session.error_payload(code, text))
            return
        if self._failures >= self._options.max_failures:
            self._session.close("too many failed attempts to sign in")
            return
        self._msgno, self._is_asked = event.msgno, True
        self._attempt(lambda: read_beep_xml(event.payload))

    def _attempt(self, read: Callable[[], Element]) -> None:
        try:
            element = read()
        except RemoteProtocolError as error:
            if error.hint == "restricted-xml":
                self._session.close(error.reason)
            else:
                self._fail(500, error.reason)
            return
        try:
            self._step(*read_blob(element))
        except SaslFailure as failure:
            self._fail(CODES.get(failure.condition, 535), failure.text or "the sign-in failed")

    def _step(self, status: str, data: bytes) -> None:
        if status == "abort":
            raise SaslFailure("aborted", "the sign-in was aborted")
        if status != "continue":
            raise SaslFailure("malformed-request")
        name = self._uri.removeprefix(SASL)
        if self._is_begun and self._scram is not None:
            signature = self._scram.final(data, self._is_known)
            self._succeed(self._username, signature)
            return
        self._is_begun = True
        if name == "EXTERNAL":
            self._waits_for = "external_checked"
            self._emit(ExternalCheckWanted(_decode_authzid(data)))
        elif name == "PLAIN":
            self._plain = sasl.read_plain(data)
            self._want(self._plain.username, self._plain.authzid)
        else:
            self._scram = sasl.ScramServer(name, self._end_point(), bool(self._end_point()))
            self._scram.first(data)
            self._want(self._scram.username, self._scram.authzid)

    def _want(self, username: str, authzid: str) -> None:
        self._username = username
        self._waits_for = "credentials"
        self._emit(CredentialsWanted(username, authzid))

    def _check_plain(self, secrets: Mapping[str, ScramSecret] | None) -> None:
        assert self._plain is not None
        hash_name = next((name for name in self._options.hashes if secrets and name in secrets), "")
        self._is_known = bool(hash_name)
        hash_name = hash_name or self._options.hashes[0]
        dummy = self._dummy(hash_name)
        self._waits_for = "password_checked"
        secret = sasl.secret_for(secrets, hash_name) or dummy
        self._emit(PasswordCheckWanted(self._plain.password, hash_name, secret))

    def _dummy(self, hash_name: str) -> ScramSecret:
        return sasl.dummy_secret(self._username, hash_name, self._options.dummy_key, self._options.iterations)

    # --- answers ----------------------------------------------------------------------------------------------------------

    def _say(self, xml: bytes, *, is_error: bool = False) -> None:
        """Answer the start of the channel, inside ``profile``, or the message."""
        self._is_asked = False
        session = self._session
        if self._msgno < 0:
            session.accept_channel(self._channel, self._uri, xml)
        elif is_error:
            session.reply_error(self._channel, self._msgno, beep_xml_body(xml))
        else:
            session.reply(self._channel, self._msgno, beep_xml_body(xml))

    def _succeed(self, identity: str, signature: bytes) -> None:
        self._session.identity = identity
        self._say(write_blob(signature, "complete"))
        mechanism = self._uri.removeprefix(SASL)
        self._forget()
        self._emit(SignInSucceeded(identity, mechanism))

    def _fail(self, code: int, text: str) -> None:
        username = self._username
        self._say(self._session.error_xml(code, text), is_error=True)
        self._forget()
        self._failures += 1
        self._emit(SignInFailed(username, code, text))


def _decode_authzid(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise SaslFailure("malformed-request") from None
    if "\0" in text:
        raise SaslFailure("malformed-request")
    return text
