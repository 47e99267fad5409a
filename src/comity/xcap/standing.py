"""Whose presence stays although no device says it (RFC 4827): published again after a restart.

Place on the path: beside it, for ``resources.py``. RFC 4827 section 3 gives such a document no end: it is what its owner wants
to be said while no device speaks, so it is the one publication that a restart brings back. Space "setting" of the store
holds a row an account, ``xcap-standing/ACCOUNT``; the document itself is among the account's documents.
"""

from __future__ import annotations

import logging
from typing import Final

from comity.cpim.address import Address
from comity.cpim.operations import Response
from comity.cpim.presence import PresenceDocument
from comity.errors import MalformedMessage
from comity.service.interfaces import Delete, Origin, Put, Store
from comity.service.presence.interfaces import PresenceService, Statement

log = logging.getLogger(__name__)

HARD_STATE: Final = "xcap"
"""Key of the publication."""
DOCUMENT: Final = "pidf-manipulation/index"
_PREFIX: Final = "xcap-standing/"


class Standing:
    """Remembers the accounts.

    Args:
        store: where.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, account: Address) -> None:
        """Remember; durable when this returns. Raises StoreError."""
        await self._store.commit([Put("setting", _PREFIX + account.key, b"")])

    async def remove(self, account: Address) -> None:
        """Forget. Raises StoreError."""
        await self._store.commit([Delete("setting", _PREFIX + account.key)])

    async def publish_all(self, presence: PresenceService) -> None:
        """Publish the document of each; who has none any more is forgotten. Raises StoreError."""
        for key, _ in await self._store.scan("setting", _PREFIX):
            account = Address.parse(key.removeprefix(_PREFIX))
            stored = await presence.documents.get(account, DOCUMENT)
            if stored is None:
                await self.remove(account)
                continue
            origin = Origin(account, "xcap", "", is_protected=True)
            try:
                statement = Statement(PresenceDocument.parse(stored.octets))
            except MalformedMessage as error:  # an older version took what this one does not
                log.warning("the presence that %s keeps by XCAP cannot be read: %s", account, error)
                continue
            answer = presence.publish(account.with_scheme("pres"), statement, origin, key=HARD_STATE)
            if isinstance(answer, Response):
                log.warning("the presence that %s keeps by XCAP is not published: %s", account, answer.text)
