"""A slixmpp client or component for stories with stock XMPP servers: it says what it likes and remembers what it is told."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

from tests.peers import need_module

STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
PATIENCE = 15.0


class Guest:
    """One slixmpp program, a person's or a component.

    Args:
        program: the client or component, not yet connected.
        address: where to connect to.
    """

    def __init__(self, program: Any, address: tuple[str, int]) -> None:
        self.client = program
        self._address = address
        self._changed = asyncio.Event()
        self.events: list[str] = []
        self.messages: list[Any] = []
        self.presences: list[tuple[str, str]] = []
        """From (bare) and type of each."""
        for name in ("session_start", "disconnected"):
            program.add_event_handler(name, lambda _, name=name: self._note(self.events, name))
        for name in ("message", "message_error"):
            program.add_event_handler(name, lambda stanza: self._note(self.messages, stanza))
        for kind in ("subscribe", "subscribed", "unsubscribed", "available", "unavailable", "away", "dnd"):
            program.add_event_handler(f"presence_{kind}", self._presence)

    @classmethod
    def person(cls, jid: str, password: str, address: tuple[str, int], ca_file: str) -> Guest:
        """Somebody with an account."""
        need_module("slixmpp")
        client = importlib.import_module("slixmpp").ClientXMPP(jid, password)
        client.ca_certs = ca_file
        for plugin in ("xep_0030", "xep_0054", "xep_0092", "xep_0100", "xep_0199"):
            client.register_plugin(plugin)
        return cls(client, address)

    @classmethod
    def component(cls, domain: str, secret: str, address: tuple[str, int]) -> Guest:
        """An external component (XEP-0114)."""
        need_module("slixmpp")
        program = importlib.import_module("slixmpp").ComponentXMPP(domain, secret, *address)
        for plugin in ("xep_0030", "xep_0199"):
            program.register_plugin(plugin)
        return cls(program, address)

    def _note(self, where: list[Any], what: Any) -> None:
        where.append(what)
        self._changed.set()

    def _presence(self, stanza: Any) -> None:
        self._note(self.presences, (stanza["from"].bare, stanza["type"]))

    @property
    def texts(self) -> list[str]:
        """Bodies of what came."""
        return [message["body"] for message in self.messages if message["type"] != "error"]

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Sender and condition of each error about a message."""
        return [(str(m["from"]), _condition(m)) for m in self.messages if m["type"] == "error"]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something to be so."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            heard = [str(stanza) for stanza in self.messages], self.presences, self.events
            raise AssertionError(f"in vain; heard were {heard}") from None

    async def __aenter__(self) -> Guest:
        self.client.connect(*self._address)
        await self.until(lambda: "session_start" in self.events)
        if not self.client.is_component:
            await self.client.get_roster()
            self.client.send_presence()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.disconnect(wait=1.0)


def _condition(message: Any) -> str:
    """Read from the XML: a component's own reader makes an empty error and says that it found that one."""
    names = [element.tag for element in message.xml.iter() if element.tag.startswith(f"{{{STANZAS}}}")]
    return str(names[0]).rpartition("}")[2]
