"""An XMPP program for stories about connections: one sans-IO client session on a real socket that can be cut."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Coroutine

from comity.bindings.xmpp import events
from comity.bindings.xmpp.events import Event
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.session import ClientOptions, XmppClientSession
from comity.bindings.xmpp.sm import SmState
from comity.xml import Element
from tests.paths.kit import PASSWORD, ServerProcess

PATIENCE = 30.0
BODY = "{jabber:client}body"


OPEN: list[Wire] = []
"""Connections that ``run`` closes."""


def run(story: Coroutine[None, None, None]) -> None:
    """Run a story; whatever becomes of it, its connections are closed."""

    async def told() -> None:
        try:
            await story
        finally:
            while OPEN:
                await OPEN.pop().cut()

    asyncio.run(told())


class Wire:
    """One connection; ``await until(…)`` for what is to happen on it.

    Args:
        server: whose STARTTLS port to use.
        jid: whom to sign in as.
        resume: state of a lost connection to go on with.
    """

    def __init__(self, server: ServerProcess, jid: str, resume: SmState | None = None, *, has_sm: bool = True) -> None:
        self._server = server
        self._end_point: bytes | None = None
        options = ClientOptions(Jid.parse(jid), PASSWORD, use_stream_management=has_sm)
        self.session = XmppClientSession(options, lambda: self._end_point, os.urandom, 0.0, resume)
        self.events: list[Event] = []
        self.takes = True
        """False: what comes is read and never acknowledged or answered."""
        self.is_lost = False
        self._changed = asyncio.Event()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> Wire:
        """Connect and wait until stanzas may flow."""
        self._reader, self._writer = await asyncio.open_connection(*self._server.port("xmpp", "tcp"))
        self._task = asyncio.ensure_future(self._run())
        self.flush()
        OPEN.append(self)
        await self.until(lambda: bool(self.of(events.SmEnabled) or self.of(events.Resumed)) or self.is_lost)
        return self

    async def _run(self) -> None:
        assert self._reader is not None
        assert self._writer is not None
        try:
            while data := await self._reader.read(65536):
                self.session.receive_data(data, 0.0)
                while (event := self.session.next_event()) is not None:
                    self.events.append(event)
                    if isinstance(event, events.TlsWanted):
                        context = ssl.create_default_context(cafile=self._server.authority)
                        await self._writer.start_tls(context, server_hostname=event.host)
                        self._end_point = b""
                        self.session.tls_started()
                    elif isinstance(event, events.StanzaReceived) and self.takes:
                        self._take(event)
                self.flush()
                self._changed.set()
        except ConnectionError:
            pass  # the server was killed
        self.is_lost = True
        self._changed.set()

    def _take(self, event: events.StanzaReceived) -> None:
        self.session.stanza_handled(event.index)
        if event.stanza.find("{urn:xmpp:ping}ping") is not None:
            self.session.send_stanza(Element("{jabber:client}iq", {"type": "result", "id": event.stanza.get("id")}))

    def flush(self) -> None:
        """Write what the session has."""
        assert self._writer is not None
        for piece in self.session.data_to_send(0.0):
            if piece and not self.is_lost:
                self._writer.write(piece)

    def send(self, stanza: Element, key: object = None) -> None:
        """Send a stanza."""
        self.session.send_stanza(stanza, key)
        self.flush()

    def say(self, to: str, text: str, **attributes: str) -> None:
        """A chat message, without any id unless one is given; its key is the text."""
        message = Element("{jabber:client}message", {"to": to, "type": "chat", **attributes})
        self.send(message.append(Element(BODY, {}, [text])), text)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def cut(self) -> SmState:
        """Break the connection without a word; gives what is needed to go on."""
        assert self._writer is not None
        assert self._task is not None
        self._writer.transport.abort()
        await self._task
        return self.session.sm_state

    def of(self, kind: type[Event]) -> list[Event]:
        """Events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def stanzas(self) -> list[Element]:
        """Stanzas received."""
        return [event.stanza for event in self.events if isinstance(event, events.StanzaReceived)]

    @property
    def texts(self) -> list[str]:
        """Bodies of the messages received, in order."""
        return [body.text for stanza in self.stanzas if (body := stanza.find(BODY)) is not None]

    @property
    def acknowledged(self) -> list[object]:
        """Keys the server acknowledged, in order."""
        return [key for e in self.events if isinstance(e, events.StanzasAcknowledged) for key in e.keys]
