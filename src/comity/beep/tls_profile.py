"""The TLS profile, both sides (RFC 3080 section 3.1): ``ready``, ``proceed``, and silence until TLS is up.

Place on the path: step 3, before there is a message. A machine takes the session's events first (``handle`` is True for its own)
and reports with ``TlsWanted``: the caller starts TLS on the connection once what is queued is written, and calls
``BeepSession.reset`` when it is up. What comes in the clear after ``proceed`` ends the session (P-12). The suites are the
connection's business, modern ones (X38); the ``version`` of ``ready`` says the earliest that the peer would accept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from comity.beep.events import (
    ChannelRefused,
    ChannelStarted,
    ChannelWanted,
    CloseWanted,
    Event,
    MessageReceived,
    ProfileOffer,
    TlsRefused,
    TlsWanted,
    TuningEvent,
)
from comity.beep.management import read_error
from comity.beep.payload import parse_beep_xml, read_beep_xml, write_beep_xml
from comity.beep.session import BeepSession
from comity.errors import RemoteProtocolError
from comity.xml import Element, serialize

TLS: Final = "http://iana.org/beep/TLS"
_VERSION = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3})?")
_BEST = (1, 3)

Emit = Callable[[TuningEvent], None]


class TlsServer:
    """Answers ``ready``.

    Args:
        session: the session; its greeting should name the profile if TLS is to be had.
        emit: takes ``TlsWanted``.
        has_tls: there is a certificate, and TLS is not on yet.
    """

    def __init__(self, session: BeepSession, emit: Emit, has_tls: bool) -> None:
        self._session = session
        self._emit = emit
        self._has_tls = has_tls
        self._channel = 0

    def handle(self, event: Event) -> bool:
        """Take an event; True if it was about this profile."""
        match event:
            case ChannelWanted():
                offer = next((offer for offer in event.profiles if offer.uri == TLS), None)
                if offer is None:
                    return False
                self._wanted(event.number, offer)
            case MessageReceived() if self._channel and event.channel == self._channel:
                self._message(event)
            case CloseWanted() if self._channel and event.channel == self._channel:
                self._channel = 0
                self._session.accept_close(event.channel)
            case _:
                return False
        return True

    def _wanted(self, number: int, offer: ProfileOffer) -> None:
        session = self._session
        if session.identity:
            # RFC 3080 section 4.1: once a sign-in succeeded, no transport security may begin (P-18).
            session.close("TLS was to begin behind a sign-in")
        elif not self._has_tls or self._channel:
            session.refuse_channel(number, 550, "TLS is not to be had")
        elif not offer.content:
            self._channel = number
            session.accept_channel(number, TLS)
        else:
            refusal = self._refusal(lambda: parse_beep_xml(offer.content))
            if refusal is None:
                session.accept_channel(number, TLS, serialize(Element("proceed")))
                self._begin()
            else:
                # The channel is made and the operation within it fails (RFC 3080 section 3.1.1).
                self._channel = number
                session.accept_channel(number, TLS, session.error_xml(*refusal))

    def _message(self, event: MessageReceived) -> None:
        refusal = self._refusal(lambda: read_beep_xml(event.payload))
        if refusal is None:
            self._session.reply(event.channel, event.msgno, write_beep_xml(Element("proceed")))
            self._begin()
        else:
            self._session.reply_error(event.channel, event.msgno, self._session.error_payload(*refusal))

    def _refusal(self, read: Callable[[], Element]) -> tuple[int, str] | None:
        try:
            element = read()
        except RemoteProtocolError as error:
            return 500, error.reason
        if element.name != "ready":
            return 501, "the element is not expected here"
        version = element.get("version", "1")
        if not _VERSION.fullmatch(version) or element.children:
            return 501, "version attribute poorly formed in <ready> element"
        major, _, minor = version.partition(".")
        if (int(major), int(minor or 0)) > _BEST:
            return 504, "TLS is not to be had"
        if self._session.pending > 1:
            return 450, "still working"  # "until any pending replies have been generated and sent"
        return None

    def _begin(self) -> None:
        self._session.suspend()
        if not self._session.is_ended:
            self._emit(TlsWanted())


class TlsClient:
    """Asks for TLS.

    Args:
        session: the session.
        emit: takes ``TlsWanted`` or ``TlsRefused``.
    """

    def __init__(self, session: BeepSession, emit: Emit) -> None:
        self._session = session
        self._emit = emit
        self._number = 0

    def start(self, server_name: str = "") -> None:
        """Send ``ready`` with the start of the channel; nothing goes out behind it until the answer is there."""
        offer = ProfileOffer(TLS, serialize(Element("ready")))
        self._number = self._session.start_channel([offer], server_name, is_last=True)

    def handle(self, event: Event) -> bool:
        """Take an event; True if it was about this profile."""
        match event:
            case ChannelStarted() if self._number and event.number == self._number:
                self._started(event)
            case ChannelRefused() if self._number and event.number == self._number:
                self._number = 0
                self._emit(TlsRefused(event.code, event.text))
            case CloseWanted() if self._number and event.channel == self._number:
                self._session.accept_close(event.channel)
            case _:
                return False
        return True

    def _started(self, event: ChannelStarted) -> None:
        session = self._session
        try:
            element = parse_beep_xml(event.content)
            if element.name == "proceed":
                session.suspend()
                if not session.is_ended:
                    self._emit(TlsWanted())
                return
            error = read_error(element)
        except RemoteProtocolError as problem:
            session.close(f"the answer to <ready>: {problem.reason}")
            return
        session.close_channel(event.number)
        self._emit(TlsRefused(error.code, error.text))
