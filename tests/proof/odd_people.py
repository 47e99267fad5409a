"""People of special runs: one who refuses every message."""

from __future__ import annotations

import uuid

from comity.bindings.sip.events import RequestReceived
from comity.client.base import Options
from comity.client.sip import SipClient
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


class RefusingPerson(Person):
    """Gets nothing, because it declines everything."""

    def _client(self) -> RefusingClient:
        server = self._server.port("sip", self.transport)
        authority = self._server.directory / "data" / "tls" / "ca.pem"
        # The same device each time: one that never comes back keeps the last word until its registration ends.
        instance = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, self.user)}"
        options = Options(address_of(self.user), PASSWORD, server, self.transport, authority, instance=instance)
        return RefusingClient(options)
