"""What the parts of the XMPP binding stand on: options, the service, who is connected, background tasks.

Place on the path: under ``binding.py`` and its parts (messages: ``submission.py``, ``delivery.py``; presence:
``availability.py``, ``roster.py``, ``asking.py``, ``watching.py``, ``directed.py``, ``blocking.py``; ``streams.py``,
``capabilities.py``), which know each other only as far as their constructors say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.config import XmppConfig
from comity.bindings.xmpp.devices import Connection, Devices
from comity.bindings.xmpp.extensions import PROTOCOL
from comity.bindings.xmpp.jid import prepare_domain
from comity.bindings.xmpp.notices import Notice
from comity.bindings.xmpp.sm import MAX_OCTETS
from comity.bindings.xmpp.typing import Typing
from comity.errors import LocalProtocolError, StoreError
from comity.service.interfaces import Origin, Service
from comity.service.presence.interfaces import PresenceService
from comity.xml import Element

log = logging.getLogger(__name__)

#: Octets that may wait for a client that reads nothing, beside what it asked for itself and its window of messages
#: (reliability.md section 6.2): people may send it presence and queries as long as they like. As much as with stream management.
MOST_UNREAD: Final = MAX_OCTETS

Act = Callable[[], Coroutine[None, None, None] | None]
"""Does what a stanza asks; what it gives has still to be waited for."""


async def _later(act: Act) -> None:
    work = act()
    if work is not None:
        await work


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
        self.components = tuple(prepare_domain(domain) for domain in config.accept)
        """Domains of the external components that may attach to us."""
        self.devices = Devices()
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_draining = False
        self.eased: Callable[[Connection], None] = lambda connection: None
        """Called when a connection's ``lane`` has become longer or shorter (set by ``submission.py``: it may pause reading)."""
        self.typing = Typing(lambda: self.service)
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        """The service given to ``start``."""
        assert self._service is not None, "start() comes first"
        return self._service

    @property
    def presence(self) -> PresenceService | None:
        """The presence service; None if presence is switched off (SEED-45)."""
        return self.service.presence

    def start(self, service: Service) -> None:
        """Remember the service."""
        self._service = service

    def origin(self, connection: Connection) -> Origin:
        """Who hands something in by this connection."""
        assert connection.account is not None
        return Origin(connection.account, PROTOCOL, connection.host, connection.session.is_tls)

    def in_order(self, connection: Connection, act: Act, stanza: Element, index: int) -> None:
        """Do what a client asked for by ``stanza`` after all it asked for before (XMPP-4), at once if nothing of that waits.

        The stanza counts as handled when it is done. What is refused is for ``act`` to tell; what goes wrong is told here.
        """
        if connection.is_working:
            connection.lane.append((_later(act), stanza, index))
            self.eased(connection)
            return
        work = act()
        if work is None:
            connection.session.stanza_handled(index)
            return
        connection.lane.append((work, stanza, index))
        connection.is_working = True
        task = asyncio.get_running_loop().create_task(self._work(connection))
        self.tasks.add(task)
        task.add_done_callback(self._task_done)
        connection.submitting.add(task)
        task.add_done_callback(connection.submitting.discard)

    async def _work(self, connection: Connection) -> None:
        try:
            while connection.lane:
                work, stanza, index = connection.lane.popleft()
                try:
                    await work
                except StoreError as error:
                    log.error("a client's request could not be stored: %s", error)
                    self._not_now(connection, stanza)
                except Exception:  # whatever one of them raises, the client hears it and the next one is done
                    log.exception("a client's request failed")
                    self._not_now(connection, stanza)
                connection.current.handled(index)
                connection.current.link.flush()
                self.eased(connection.current)
        finally:
            connection.is_working = False

    def _not_now(self, connection: Connection, stanza: Element) -> None:
        text = "This cannot be done now."
        reply = wire.error_reply(
            stanza, "internal-server-error", text, kind="wait", sender=None if stanza.get("to") else ""
        )
        self.answer(connection, reply)

    def reply(self, connection: Connection, stanza: Element | None) -> None:
        """Write a stanza of our own making, if there is one; a stream between two connections keeps it."""
        if stanza is None or not self._keeps_up(connection):
            return
        try:
            connection.send(stanza)
        except LocalProtocolError as error:
            log.warning("a stanza could not be written: %s", error)

    def answer(self, connection: Connection, stanza: Element | None) -> None:
        """Write an answer that took its time, wherever the stream is now."""
        self.reply(connection.current, stanza)
        connection.current.link.flush()

    def pass_on(self, connection: Connection, stanza: Element, slot: str) -> None:
        """Write what says nothing later; it waits while nobody looks, and a newer one of its slot replaces it."""
        if connection.session.jid is None or connection.session.is_ended or not self._keeps_up(connection):
            return
        try:
            connection.session.send_passing(stanza, slot)
        except LocalProtocolError as error:
            log.warning("a stanza could not be written: %s", error)

    def pass_raw(self, connection: Connection, octets: bytes, slot: str) -> None:
        """The same for a stanza that is written already (``Notice.octets``)."""
        session = connection.session
        if session.jid is not None and not session.is_ended and self._keeps_up(connection):
            session.send_raw(octets, slot)

    def tell(self, connection: Connection, notice: Notice, to: bytes) -> None:
        """The same for presence that many are told."""
        self.pass_raw(connection, notice.octets(to), notice.slot)

    def _keeps_up(self, connection: Connection) -> bool:
        """False if so much waits unread that the stream ends: then nothing more is added to it."""
        if connection.link.unsent < MOST_UNREAD or not connection.is_live:
            return True
        connection.session.close("resource-constraint", "too much waits to be read")
        connection.link.flush()
        return False

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Run in the background; a failure is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the XMPP binding failed", exc_info=error)
