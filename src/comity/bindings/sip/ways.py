"""The way to a peer server for NOTIFY, and what we are called there.

Place on the path: step 9, for ``notifier.py`` and ``abroad.py``. The way is the ``[[route]]`` of a domain, as it is for what
``exchange.py`` sends; one connection that stands is used for all of it. Nothing here leads to an address that a message named.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from comity.bindings.base import HostPort, Target
from comity.bindings.sip.requests import LinkState
from comity.cpim.address import Address, to_sip_uri
from comity.errors import DeliveryError
from comity.service.interfaces import Contact

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

log = logging.getLogger(__name__)

BY_DNS = "dns"
"""``Contact.binding`` of a hop that DNS has to name."""
ANYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound
Reached = Callable[[LinkState | None, HostPort | None], None]
"""Called with the link and, for a datagram, the address; (None, None) if there is no way."""


class Ways:
    """Finds and opens ways to the servers of other domains."""

    def __init__(self, binding: SipBinding) -> None:
        self._binding = binding

    def hop(self, domain: str) -> Contact | None:
        """The next hop to that domain's people, if they are reached by SIP."""
        hop = self._binding.service.routes.hop(domain)
        if hop is not None and hop.binding == "dns":
            return replace(hop, binding=self._binding.name, is_protected=True)  # by SIP's own records then
        return hop if hop is not None and hop.binding == self._binding.name else None

    def contact(self, hop: Contact, account: Address) -> str:
        """Where requests from there are to go, with angle brackets: the listener of the same transport, which stands when the
        connection is gone; "gr" since it leads to this very server (RFC 6665 section 4.5.1)."""
        user = to_sip_uri(account)[len("sip:") :].rpartition("@")[0]
        transport = hop.data.decode().partition("://")[0] or "tls"
        listeners = self._binding.listeners()
        near = next((one for one in listeners if one.transport == transport), None) or next(iter(listeners), None)
        if near is None:
            return f"<sip:{user}@{self._binding.config.domains[0]};gr>"
        host = f"[{near.host}]" if ":" in near.host else near.host
        if near.host in ANYWHERE:
            host = self._binding.config.domains[0]
        return f"<sip:{user}@{host}:{near.port};transport={near.transport};gr>"

    def reach(self, hop: Contact, reached: Reached, *, is_large: bool = False) -> None:
        """Call ``reached`` when there is a way to the server of a hop, or known to be none.

        ``is_large``: what is to be sent is too large for a datagram (RFC 3261 section 18.1.1).
        """
        self._binding.run(self._look_up(hop, reached, is_large))

    async def _look_up(self, hop: Contact, reached: Reached, is_large: bool) -> None:
        targets: Sequence[Target] = ()
        try:
            if hop.binding == BY_DNS:
                hops = await self._binding.service.find_hops(hop.resource, asker=self._binding.name, kind="pres")
                hop = next((one for one in hops if one.binding == self._binding.name), hop)
            targets = await self._binding.exchanges.targets(hop.resource, hop.data.decode())
        except DeliveryError as error:
            log.info("no address of a peer server: %s", error)
        except Exception:  # whatever it was, who waits must not wait for ever
            log.exception("a peer server could not be found")
        self._go(targets, reached, is_large)

    def _go(self, targets: Sequence[Target], reached: Reached, is_large: bool) -> None:
        """Try them in order."""
        if not targets:
            reached(None, None)
            return
        target, *others = targets
        if target.transport == "udp":
            link = self._binding.network.datagram_link(self._binding)
            state = None if link is None else self._binding.state_of(link)
            if state is not None and not is_large:
                reached(state, (target.host, target.port))
                return
            target = replace(target, transport="tcp")
        self._binding.connections.reach(target, partial(self._connected, others, reached, is_large))

    def _connected(self, others: Sequence[Target], reached: Reached, is_large: bool, state: LinkState | None) -> None:
        if state is None and others:
            self._go(others, reached, is_large)
        else:
            reached(state, None)
