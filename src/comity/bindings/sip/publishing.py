"""PUBLISH: what a phone says of its user, put to the presence service (RFC 3903, RFC 3856 section 7).

Place on the path: steps 4 and 5 of a publish, for ``binding.py``. The checks stand in the order of RFC 3903 section 6, and nothing
waits between them: a PUBLISH is taken whole or not at all, one after the other as they came. What is refused leaves the last good
state standing. Contact and Record-Route say nothing here and are not read.
"""

from __future__ import annotations

import secrets
from math import ceil
from typing import TYPE_CHECKING

from comity.bindings.sip.headers import clean_text, quoted
from comity.bindings.sip.mapping import Refusal, address_of, header_block, is_sender, response_to_status
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.packages import ACCEPT_PUBLISHED, bad_event, duration_of, event_of, if_match_of
from comity.bindings.sip.protection import came_under_tls
from comity.bindings.sip.rates import UserRates
from comity.bindings.sip.requests import Request
from comity.cpim.address import Address
from comity.cpim.entity import SECURED, signed_part
from comity.cpim.message import DEFAULT as LIMITS
from comity.cpim.operations import MimeObject, Reason, Response
from comity.cpim.presence import PIDF_TYPE, PresenceDocument
from comity.errors import AddressError, MalformedMessage
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import PresenceService, Statement

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding


class Publishing:
    """The event state compositor's door for phones."""

    def __init__(self, binding: SipBinding) -> None:
        self._binding = binding
        config = binding.config
        self._rates = UserRates(config.user_publications, config.user_publication_burst, config.user_octets)

    def take(self, received: Request, principal: Address, presence: PresenceService) -> None:
        """Take an authenticated PUBLISH; it is answered here. Raises RemoteProtocolError for what cannot be read (400)."""
        request = received.request
        answer: list[tuple[str, str]] | Refusal
        if not is_sender(str(request.from_.uri), principal):
            answer = Refusal(403)
        elif not self._binding.is_for_us(received):
            answer = Refusal(403, "No Relaying")
        elif wait := self._rates.take(principal.key, len(request.body), self._binding.service.clock.now()):
            answer = Refusal(503, "Too Many Publications", (("Retry-After", str(ceil(wait))),))
        else:
            answer = self._publish(received, principal, presence)
        if isinstance(answer, Refusal):
            self._binding.refuse(received, answer)
        else:
            self._binding.respond(received, 200, headers=answer)

    def _publish(
        self, received: Request, principal: Address, presence: PresenceService
    ) -> list[tuple[str, str]] | Refusal:
        request = received.request
        entity = self._entity(request)
        if entity is None:
            return Refusal(404)
        if not is_sender(request.uri_text, principal) and not presence.rights.may_publish(entity, principal):
            return Refusal(403, headers=_warning("Only the account itself, and whom it permits to, publishes for it."))
        event = event_of(request)
        if event is None or event.package != "presence":
            return bad_event()
        etag = if_match_of(request)
        if etag and not presence.has_publication(entity, etag):
            return Refusal(412)
        lease = duration_of(request, self._binding.config.min_expires)
        if isinstance(lease, Refusal):
            return lease
        statement = read_statement(request)
        if isinstance(statement, Refusal):
            return statement
        if statement is None and not etag:
            return Refusal(400, "Nothing Is Published")
        origin = Origin(
            principal, self._binding.name, received.source[0], came_under_tls(request, received.state.transport)
        )
        if lease == 0:
            refusal = presence.unpublish(entity, origin, etag=etag) if etag else None
            # Each 2xx has a tag of its own, though nothing stands under this one (SIP-32).
            return _refusal_of(refusal) if refusal else _granted(secrets.token_hex(16), 0)
        result = presence.publish(entity, statement, origin, etag=etag, lease=lease)
        return _refusal_of(result) if isinstance(result, Response) else _granted(result.etag, result.lease)

    def _entity(self, request: SipRequest) -> Address | None:
        """The presentity: the Request-URI, if it is of a domain of ours."""
        try:
            entity = address_of(request.uri_text)[0].with_scheme("im")
        except AddressError:
            return None
        return entity if self._binding.service.accounts.serves(entity.domain) else None


def read_statement(request: SipRequest) -> Statement | Refusal | None:
    """What a PUBLISH says; None without a body.

    A document, or a signed entity with the document inside, or one that only those can read it is meant for. What an opaque
    signature (application/pkcs7-mime) holds is not looked at: it is carried as it is, or nothing is said.
    """
    if not request.body:
        return None
    if (request.value("content-encoding") or "identity").lower() not in ("identity", ""):
        return Refusal(415, headers=(("Accept-Encoding", "identity"),))
    obj = MimeObject(header_block(request), request.body)
    try:
        return _statement_of(obj)
    except MalformedMessage as error:
        if error.hint == "size":
            return Refusal(413, headers=_warning(str(error)))
        # COMPAT pjsip 2.15: writes notes without escaping "&" and "<"; what is wrong is said so that somebody sees why.
        return Refusal(400, "Bad Presence Document", _warning(f"The presence document cannot be read: {error}"))


def _statement_of(obj: MimeObject) -> Statement | Refusal:
    inner = obj
    for _ in range(LIMITS.depth):
        if inner.media_type != "multipart/signed":
            break
        inner = signed_part(inner)
    secured = None if inner is obj else obj
    if inner.media_type == PIDF_TYPE:
        return Statement(PresenceDocument.of(inner), secured)
    if inner.media_type in SECURED and inner.media_type != "multipart/signed":
        return Statement(None, obj)
    return Refusal(415, headers=(("Accept", ACCEPT_PUBLISHED),))


def _granted(etag: str, lease: int) -> list[tuple[str, str]]:
    return [("SIP-ETag", etag), ("Expires", str(lease))]


def _refusal_of(response: Response) -> Refusal:
    """What a PUBLISH is answered that the service refused (T1)."""
    status_code, reason, headers = response_to_status(response)
    if response.reason is Reason.QUOTA:
        reason = "Too Many Publications"
    return Refusal(status_code, reason, tuple(headers))


def _warning(text: str) -> tuple[tuple[str, str], ...]:
    return (("Warning", f"399 comity {quoted(clean_text(text)[:256])}"),)
