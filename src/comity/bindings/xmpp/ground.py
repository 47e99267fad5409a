"""What the parts of the XMPP binding stand on: options, the service, who is connected, background tasks.

Place on the path: under ``binding.py``, ``submission.py``, ``delivery.py``, ``streams.py``, ``availability.py`` and
``capabilities.py``, which know each other only as far as their constructors say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from comity.bindings.xmpp.config import XmppConfig
from comity.bindings.xmpp.devices import Connection, Devices
from comity.bindings.xmpp.jid import prepare_domain
from comity.errors import LocalProtocolError
from comity.service.interfaces import Service
from comity.xml import Element

log = logging.getLogger(__name__)


class Ground:
    """Shared by all parts of one binding.

    Args:
        config: its options.
        random: gives that many random octets.
    """

    def __init__(self, config: XmppConfig, random: Callable[[int], bytes]) -> None:
        self.config = config
        self.random = random
        self.domains = tuple(prepare_domain(domain) for domain in config.domains)
        self.devices = Devices()
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_draining = False
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        """The service given to ``start``."""
        assert self._service is not None, "start() comes first"
        return self._service

    def start(self, service: Service) -> None:
        """Remember the service."""
        self._service = service

    def reply(self, connection: Connection, stanza: Element | None) -> None:
        """Write a stanza of our own making, if there is one; a stream between two connections keeps it."""
        if stanza is None:
            return
        try:
            connection.send(stanza)
        except LocalProtocolError as error:
            log.warning("a stanza could not be written: %s", error)

    def pass_on(self, connection: Connection, stanza: Element, slot: str) -> None:
        """Write what says nothing later; it waits while nobody looks, and a newer one of its slot replaces it."""
        if connection.session.jid is None or connection.session.is_ended:
            return
        try:
            connection.session.send_passing(stanza, slot)
        except LocalProtocolError as error:
            log.warning("a stanza could not be written: %s", error)

    def pass_raw(self, connection: Connection, octets: bytes, slot: str) -> None:
        """The same for a stanza that is written already (``Notice.octets``)."""
        session = connection.session
        if session.jid is not None and not session.is_ended:
            session.send_raw(octets, slot)

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Run in the background; a failure is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the XMPP binding failed", exc_info=error)
