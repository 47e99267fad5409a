"""Step 7 for domains that no route names: which protocol their servers are reached by is asked when a message is to leave.

Place on the path: between a hop's channel (``hops.py``) and the binding that speaks with the next server. The message is durable by
then; what DNS says decides about one attempt, so that a change of records, or of trouble with them, needs nobody's hand. A domain
that does not exist fails its messages for good, DNS that does not answer makes them wait (ADDR-18). The next protocol of a domain is
tried only where nothing of the message can have reached the server of the one before: two protocols have no common end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from comity.cpim.operations import Reason, Response, failure
from comity.errors import DeliveryError, NoRouteError
from comity.service.interfaces import Contact
from comity.service.routing import DNS, NOWHERE

log = logging.getLogger(__name__)


Kind = Literal["im", "pres"]


class Directory(Protocol):
    """Who knows where foreign domains are; ``net/finding.py`` by DNS."""

    async def find(
        self, domain: str, kind: Kind, protocols: Sequence[str], asker: str = ""
    ) -> Sequence[tuple[str, str]]:
        """Protocols that a domain is reached by, best first, each with what ``Contact.data`` says of the next hop.

        ``asker``, the protocol that the question came by, goes first where the domain speaks it.

        Raises NoRouteError if there is no such domain or service, DeliveryError if that cannot be said now."""


class HopFinder:
    """Makes a hop that is to be found into the hops to try.

    Args:
        directory: who knows.
        order: the protocols we speak between servers, as the operator wants them tried.
    """

    def __init__(self, directory: Directory, order: Sequence[str]) -> None:
        self._directory = directory
        self._order = tuple(order)

    @staticmethod
    def is_wanted(hop: Contact) -> bool:
        """True for a hop that is to be found. An APEX relay may have called us: its binding looks there first, and then itself."""
        return hop.is_hop and not hop.data and hop.binding not in ("apex", NOWHERE)

    async def hops(self, hop: Contact, asker: str = "", kind: Kind = "im", only: str = "") -> Sequence[Contact]:
        """The hops to try in order, each with a binding that exists.

        Args:
            hop: one that is to be found.
            asker: the protocol the operation came by.
            kind: messages or presence.
            only: the one protocol that can carry it, "" for any.

        Raises:
            NoRouteError: there is none.
            DeliveryError: DNS cannot say now.
        """
        protocols = self._order if hop.binding == DNS else (hop.binding,)
        found = await self._directory.find(hop.resource, kind, protocols, asker)
        hops = [
            replace(hop, binding=protocol, data=next_hop.encode(), is_protected=True)
            for protocol, next_hop in found
            if only in ("", protocol)
        ]
        if not hops:
            raise NoRouteError(f"{hop.resource} cannot be reached by {only.upper()}")
        return hops

    async def carry(
        self, hop: Contact, trans_id: str, asker: str, only: str, attempt: Callable[[Contact], asyncio.Future[Response]]
    ) -> Response:
        """One attempt at a domain: by the first of its protocols whose server can be reached."""
        try:
            hops = await self.hops(hop, asker, only=only)
        except NoRouteError as error:
            return failure(trans_id, Reason.NO_ROUTE, f"{_sentence(error)}.")
        except DeliveryError as error:
            log.info("%s cannot be looked up now: %s", hop.resource, error)
            return failure(trans_id, Reason.TIMEOUT, f"The servers of {hop.resource} cannot be looked up now.")
        refusal: Response | None = None
        for found in hops:
            response = await asyncio.shield(attempt(found))
            if not response.is_unsent:
                return response
            log.info("%s is not reached by %s: %s", hop.resource, found.binding, response.text)
            if refusal is None or (response.is_temporary and not refusal.is_temporary):
                refusal = response
        assert refusal is not None, "a domain that is found has a protocol"
        return refusal


def _sentence(error: DeliveryError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] if text.startswith("no ") else text
