"""People of special runs: one who refuses every message, one whose program resumes its stream."""

from __future__ import annotations

import uuid

from comity.bindings.base import Link
from comity.bindings.sip.events import RequestReceived
from comity.bindings.xmpp import events
from comity.bindings.xmpp.session_client import XmppClientSession
from comity.bindings.xmpp.sm import SmState
from comity.client.base import Options
from comity.client.sip import SipClient
from comity.client.xmpp import XmppClient
from tests.paths.kit import PASSWORD
from tests.proof.person import Person
from tests.proof.things import address_of


class RefusingClient(SipClient):
    """A SIP program that declines every MESSAGE."""

    def _received(self, event: RequestReceived) -> None:
        if event.request.method == "MESSAGE":
            self._respond(event.id, 603)
        else:
            super()._received(event)


class ResumingClient(XmppClient):
    """An XMPP program that goes on with the stream it had (XEP-0198 section 5), if the server still knows it."""

    def __init__(self, options: Options, former: SmState | None) -> None:
        super().__init__(options)
        self._former = former
        self.has_resumed = False

    @property
    def state(self) -> SmState | None:
        """What to resume by, once this connection is lost."""
        return None if self._session is None else self._session.sm_state

    def new_session(self, link: Link, role: str) -> XmppClientSession:
        """The one session of this client, which knows the former one's counts."""
        session = super().new_session(link, role)
        session._resume_from = self._former if self._former is not None and self._former.id else None
        return session

    def handle_event(self, link: Link, event: object) -> None:
        """Note that the former stream goes on."""
        self.has_resumed = self.has_resumed or isinstance(event, events.Resumed)
        super().handle_event(link, event)


class RefusingPerson(Person):
    """Gets nothing, because it declines everything."""

    def _client(self) -> RefusingClient:
        server = self._server.port("sip", self.transport)
        authority = self._server.directory / "data" / "tls" / "ca.pem"
        # The same device each time: one that never comes back keeps the last word until its registration ends.
        instance = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, self.user)}"
        options = Options(address_of(self.user), PASSWORD, server, self.transport, authority, instance=instance)
        return RefusingClient(options)


class ResumingPerson(Person):
    """Resumes after each break; what it had not confirmed comes again on the new connection, or from the store."""

    _last: ResumingClient | None = None

    def _client(self) -> ResumingClient:
        server = self._server.port("xmpp", self.transport)
        authority = self._server.directory / "data" / "tls" / "ca.pem"
        # No patience: this person comes back itself, so that the history shows each break.
        options = Options(address_of(self.user), PASSWORD, server, self.transport, authority, patience=0.0)
        self._last = ResumingClient(options, self._last.state if self._last is not None else None)
        return self._last
