"""A SUBSCRIBE about one person becomes a subscription of the presence service (RFC 6665 section 4.2.1, RFC 3856, RFC 3857).

Place on the path: steps 4 and 5 of a subscribe, for ``notifier.py``. The yes is written after the subscription is durable and
before its first NOTIFY (OPS-21).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comity.bindings.sip.headers import clean_text
from comity.bindings.sip.mapping import Refusal, response_to_status
from comity.bindings.sip.notifications import Kept
from comity.bindings.sip.packages import TYPES, Event, accepted, bad_event, duration_of, event_of
from comity.bindings.sip.protection import came_under_tls
from comity.bindings.sip.requests import Request
from comity.bindings.sip.subscriptions import request_to_subscription, subscript_id
from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Subscription, Terms

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding
    from comity.bindings.sip.notifier import Notifier


class Subscribing:
    """SUBSCRIBE requests from principal to answer."""

    def __init__(self, binding: SipBinding, notifier: Notifier) -> None:
        self._binding = binding
        self._notifier = notifier

    async def subscribe(self, received: Request, principal: Address, peer: str = "") -> Refusal | None:
        """Subscribe, refresh, fetch or end; answered here unless refused. Raises RemoteProtocolError for what cannot be read.

        ``peer``: domain of the server that asks for a user of its own, where it is not our user who asks.
        """
        request, config = received.request, self._binding.config
        event = event_of(request)
        package = None if event is None else event.package
        if event is None or package is None:
            return bad_event()
        duration = duration_of(request, config.min_expires)
        if isinstance(duration, Refusal):
            return duration
        taken = accepted(request, package)
        if taken is None:
            return Refusal(406, headers=(("Accept", TYPES[package]),))
        known = self._in_dialog(received, principal, event) if request.to.tag else None
        if isinstance(known, Refusal):
            return known
        target = self._binding.trunk.target(received) if peer and known is None else None
        operation = request_to_subscription(request, target if known is None else known[0].target)
        if isinstance(operation, Refusal):
            return operation
        if peer:  # its link may have another name for the watcher
            operation = replace(operation, watcher=principal.with_scheme("pres"))
        kept = self._notifier.kept(received, event, None if known is None else known[1])
        kept = replace(kept, partial=taken.partial, peer=peer)
        origin = Origin(
            principal,
            self._binding.name,
            received.source[0],
            came_under_tls(request, received.state.transport),
            domains=frozenset({peer} if peer else ()),
        )
        terms = Terms(
            self._binding.name,
            package,
            is_durable=True,
            interval=config.presence_interval,
            takes_secured=taken.secured,
            data=kept.encode(),
            most=config.max_expires,
            text=clean_text(request.value("subject") or "")[:512],
        )
        result = await self._notifier.presence.subscribe(replace(operation, duration=duration), origin, terms)
        if isinstance(result, Response):
            return _refusal_of(result, is_in_dialog=known is not None)
        self._notifier.open_dialog(result.subscription, kept, received.state)
        headers = [("Expires", str(result.duration)), ("Contact", f"<{kept.contact}>")]
        self._binding.respond(received, 200, headers=headers)
        self._notifier.presence.begin(result.subscription)
        return None

    def _in_dialog(self, received: Request, principal: Address, event: Event) -> tuple[Subscription, Kept] | Refusal:
        """The subscription a request in a dialog is about, with the dialog as it is after that request."""
        request = received.request
        id = subscript_id(request.call_id, request.from_.tag)
        subscription = self._notifier.presence.find(self._binding.name, id)
        if subscription is None or subscription.watcher.key != principal.key:
            return Refusal(481)  # N-08: also for somebody else's
        kept = Kept.decode(subscription.data)
        if kept.dialog.local_tag != request.to.tag:
            return Refusal(481)
        if str(event) != kept.event:
            return Refusal(403, "One Subscription In A Dialog")  # RFC 6665 section 4.5.2
        status_code = kept.dialog.take(request)
        return Refusal(status_code) if status_code else (subscription, kept)


def _refusal_of(response: Response, *, is_in_dialog: bool) -> Refusal:
    """What a SUBSCRIBE is answered that the service refused (T1)."""
    status_code, reason, headers = response_to_status(response)
    if response.reason is Reason.NO_SUCH_USER and is_in_dialog:
        return Refusal(481)
    if response.reason is Reason.QUOTA:
        reason = "Too Many Subscriptions"
    return Refusal(status_code, reason, tuple(headers))
