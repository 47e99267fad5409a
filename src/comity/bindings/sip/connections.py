"""Connections we open to devices, where theirs is gone or a datagram is too small.

Place on the path: steps 9 and 10, for ``delivery.py`` and ``notifier.py``. Only to the very address a device registered or
subscribed from, if its Contact names it: a Contact host is never looked up (reliability.md 6.1 item 8). One that stands is used
again and closed when nobody used it for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from comity.bindings.base import HostPort, Link, Target, Transport
from comity.bindings.sip.requests import LinkState
from comity.bindings.sip.uri import SipUri
from comity.errors import DeliveryError
from comity.service.interfaces import Timer

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

log = logging.getLogger(__name__)

Reached = Callable[[LinkState | None], None]
"""Called with the link, or None if there is no way."""


def target_for(uri: SipUri, remote: HostPort, transport: Transport) -> Target | None:
    """Where a device can be dialled; None if its address is not its own (SSRF)."""
    if uri.bare_host != remote[0]:
        return None
    port = uri.port or (5061 if transport == "tls" else 5060)
    return Target(transport, remote[0], port, uri.bare_host if transport == "tls" else "")


class Connections:
    """Connections we opened, by where they lead."""

    def __init__(self, binding: SipBinding) -> None:
        self._binding = binding
        self._dialled: dict[Target, Link] = {}
        self._idle: dict[Link, Timer] = {}
        """When those that stand are closed."""
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: dict[Target, list[Reached]] = {}
        """Who waits for a connection that is being opened."""

    def standing(self, target: Target) -> LinkState | None:
        """The open connection to ``target``."""
        link = self._dialled.get(target)
        state = None if link is None else self._binding.state_of(link)
        return None if state is None or state.session.is_closed else state

    def reach(self, target: Target, reached: Reached) -> None:
        """Call ``reached`` at once with a connection that stands, else when one was opened or could not be."""
        state = self.standing(target)
        if state is not None:
            reached(state)
            return
        waiting = self._waiting.get(target)
        if waiting is not None:
            waiting.append(reached)
            return
        self._waiting[target] = [reached]
        task = asyncio.get_running_loop().create_task(self._connect(target))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, target: Target) -> None:
        state = None
        try:
            link = await self._binding.network.connect(self._binding, target, role=target.transport)
            state = self._binding.state_of(link)
            if state is not None and not _is_named(link, target):
                log.warning("the certificate of %s names no %s", target.host, target.server_name)
                link.abort()
                state = None
        except DeliveryError as error:
            log.info("no connection to a device: %s", error)
        except Exception:  # whatever it was, who waits must not wait for ever
            log.exception("no connection to a device")
        finally:
            waiting = self._waiting.pop(target)
        if state is not None:
            self._dialled[target] = state.link
            self._close_later(state.link)
        for reached in waiting:
            reached(state)

    def rest(self, link: Link) -> None:
        """A connection was used: if it is one of ours, close it when nobody uses it for a while."""
        old = self._idle.get(link)
        if old is not None:
            old.cancel()
            self._close_later(link)

    def _close_later(self, link: Link) -> None:
        clock = self._binding.service.clock
        self._idle[link] = clock.call_later(self._binding.config.connect_idle, link.close)

    def link_closed(self, link: Link) -> None:
        """The link is gone."""
        timer = self._idle.pop(link, None)
        if timer is not None:
            timer.cancel()
        for target in [target for target, dialled in self._dialled.items() if dialled is link]:
            del self._dialled[target]


def _is_named(link: Link, target: Target) -> bool:
    """True if the certificate may be that of who was meant. Of a server it names the domain as a dNSName of its own: no wildcard
    and no common name stands for one (RFC 5922 section 7.2)."""
    if target.transport != "tls" or target.check != "chain":
        return True
    tls = link.peer.tls
    return tls is not None and target.server_name.lower() in {name.lower().removesuffix(".") for name in tls.names}
