"""Who is attached as which endpoint: attach and terminate (RFC 3340 sections 4.4.1 and 4.4.3; RFC 3342 section 1).

Place on the path: step 3, and the registrar's part of step 6. An application may attach as its account's own endpoint and as
subaddresses of it (section 4.5.1), spelled as the account is: endpoints are compared exactly (section 2.2.1, ADDR-27). Whoever
writes to another spelling reaches the same person, since our accounts are named without regard to case; that is allowed there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from comity.bindings.apex.elements import Attach, Error, Ok, Terminate
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.ground import Attachment, Connection, Ground
from comity.bindings.apex.mapping import PROTOCOL
from comity.bindings.apex.options import ATTACH_OVERRIDE, not_understood
from comity.cpim.address import Address
from comity.errors import AddressError
from comity.service.interfaces import Contact

OVERRIDDEN: Final = 556


class Attachments:
    """The endpoints that applications are attached as here."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._by_contact: dict[tuple[str, str], Attachment] = {}
        """By address key and contact id."""
        self._listeners: list[Callable[[Endpoint], None]] = []
        self.on_detached: Callable[[Attachment], None] = lambda attachment: None
        """Called with each one that ended (set by ``delivery.py``)."""

    # --- verbs of the application ---------------------------------------------------------------------------------------

    def attach(self, connection: Connection, channel: int, element: Attach) -> Ok | Error:
        """Do what the steps of RFC 3340 section 4.4.1 say, in their order."""
        if (channel, element.trans_id) in connection.attachments:
            return Error(555, "that transaction-identifier is in use")
        endpoint = element.endpoint
        if not self._ground.is_ours(endpoint.domain):
            return Error(553, "that domain is not served here")
        if (refused := self._not_authorized(connection, endpoint)) is not None:
            return refused
        if (refused := not_understood(element.options, "attach")) is not None:
            return refused
        contact = self._contact(connection, endpoint)
        present = self._by_contact.get((contact.aor.key, contact.id))
        if present is not None:
            if not any(option.internal == ATTACH_OVERRIDE for option in element.options):
                return Error(554, "another application is attached as this endpoint")
            self.end(present, OVERRIDDEN, "overridden")
        elif self._count(contact.aor) >= self._ground.config.attachments:
            return Error(554, "too many applications are attached for this account")
        attachment = Attachment(connection, channel, element.trans_id, endpoint, contact)
        connection.attachments[channel, element.trans_id] = attachment
        self._by_contact[contact.aor.key, contact.id] = attachment
        # Not before this handler has returned, so after the ``ok`` was queued.
        self._ground.run(self._present(attachment))
        return Ok()

    def terminate(self, connection: Connection, channel: int, element: Terminate) -> Ok | Error:
        """Release one attachment of this channel, or all of this session (RFC 3340 section 4.4.3)."""
        if not element.trans_id:
            self.lost(connection)
            return Ok()
        attachment = connection.attachments.get((channel, element.trans_id))
        if attachment is None:
            return Error(550, "unknown transaction-identifier")
        self._forget(attachment)
        return Ok()

    def _not_authorized(self, connection: Connection, endpoint: Endpoint) -> Error | None:
        if connection.account is None:
            if connection.is_tls or connection.is_exempt:
                return Error(530, "sign in first")
            return Error(538, "signing in needs TLS here")
        try:
            is_own = endpoint.to_address() == connection.account
        except AddressError:
            is_own = False
        return None if is_own else Error(537, "access denied")

    # --- the relay's own side -------------------------------------------------------------------------------------------

    def end(self, attachment: Attachment, code: int, text: str) -> None:
        """Terminate an attachment and tell its application why."""
        connection = attachment.connection
        self._forget(attachment)
        if connection.is_live:
            connection.session.send(attachment.channel, Terminate(attachment.trans_id, code, text))
            connection.link.flush()

    def channel_closed(self, connection: Connection, channel: int) -> None:
        """A channel is gone, and with it what was attached on it (RFC 3340 section 6.1.1)."""
        for attachment in [one for one in connection.attachments.values() if one.channel == channel]:
            self._forget(attachment)

    def lost(self, connection: Connection) -> None:
        """Everything of a session ends."""
        for attachment in list(connection.attachments.values()):
            self._forget(attachment)

    # --- who is there ---------------------------------------------------------------------------------------------------

    def of(self, contact: Contact) -> Attachment | None:
        """The attachment behind a contact of the registrar."""
        return self._by_contact.get((contact.aor.key, contact.id))

    def find(self, endpoint: Endpoint) -> Attachment | None:
        """Who is attached as exactly this endpoint."""
        try:
            aor = endpoint.to_address()
        except AddressError:
            return None
        return self._by_contact.get((aor.key, _contact_id(endpoint)))

    def on_attached(self, told: Callable[[Endpoint], None]) -> None:
        """See ``Relay.on_attached``."""
        self._listeners.append(told)

    def _count(self, aor: Address) -> int:
        return sum(1 for key, _ in self._by_contact if key == aor.key)

    def _contact(self, connection: Connection, endpoint: Endpoint) -> Contact:
        assert connection.account is not None, "only who signed in may attach"
        return Contact(
            _contact_id(endpoint),
            connection.account,
            PROTOCOL,
            endpoint.subaddress,
            # A subaddress is an application of its own: it gets what names it (RFC 3340 section 2.2).
            priority=-1 if endpoint.subaddress else 0,
            window=self._ground.config.in_flight,
            is_protected=connection.is_tls,
            confirms=True,
        )

    async def _present(self, attachment: Attachment) -> None:
        if self.of(attachment.contact) is attachment:
            await self._ground.service.registrar.register(attachment.contact, None)
            for told in self._listeners:
                told(attachment.endpoint)

    def _forget(self, attachment: Attachment) -> None:
        contact = attachment.contact
        del attachment.connection.attachments[attachment.channel, attachment.trans_id]
        del self._by_contact[contact.aor.key, contact.id]
        self._ground.run(self._absent(attachment))

    async def _absent(self, attachment: Attachment) -> None:
        contact = attachment.contact
        await self._ground.service.registrar.unregister(contact.aor, PROTOCOL, contact.id)
        self.on_detached(attachment)


def _contact_id(endpoint: Endpoint) -> str:
    """Unique for an account: "" is no name of a contact."""
    return endpoint.subaddress or "@"
