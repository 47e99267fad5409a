"""Presence in the story: who asks, who may see, who is blocked politely, and what a crash leaves of it.

Place on the path: along subscribe and notify (RFC 3859 section 3.4), from outside. The facts are what ``comity watch --json``
prints; ``comity publish`` and ``comity contacts`` are what Alice, who uses SIP, and Carol, who uses XMPP, type.
"""

from __future__ import annotations

import json
import signal
from typing import Any

from comity.demo.house import Transport, Via
from comity.demo.stage import Child, Failed, Person, Stage

GARDEN = "In the garden 🌷 <until 5 & no longer>"
LUNCH = "Zu Tisch 🍜"
BACK = "Back, with soil on my shoes"


class Seen:
    """What the people of the story see of each other.

    Args:
        stage: with a running server.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._alice, self._carol, self._mallory = (stage.people[name] for name in ("alice", "carol", "mallory"))
        self._running: list[Child] = []
        """What says how people are; the server's end ends them too."""
        self._eyes: dict[str, Child] = {}

    async def alice_sees_carol(self) -> str:
        """Alice asks by SIP, Carol allows it by XMPP and says how she is."""
        eyes = self._eyes["alice"] = await self._stage.watch(self._alice, self._carol, "sip", "udp")
        pending = await _next(eyes)
        if pending["standing"] != "pending":
            raise Failed(f"she was not asked to wait: {pending}")
        await self._stage.contacts(self._carol, "allow", self._alice)
        await self._say(self._carol, "away", GARDEN, "xmpp", "tls")
        await _until(eyes, "away", GARDEN)
        return f"pending until Carol allows it, then away: “{GARDEN}”"

    async def carol_sees_alice(self) -> str:
        """The other way; Alice's phone cannot answer, another program of hers does."""
        eyes = self._eyes["carol"] = await self._stage.watch(self._carol, self._alice, "xmpp", "tcp")
        await self._stage.contacts(self._alice, "allow", self._carol)
        lunch = await self._say(self._alice, "busy", LUNCH, "sip", "tls")
        await _until(eyes, "busy", LUNCH)
        await self._take_back(lunch)
        await _until(eyes, "closed")
        await self._say(self._alice, "open", BACK, "sip", "tls")
        await _until(eyes, "open", BACK)
        await self._take_back(self._eyes.pop("carol"))  # by XMPP who watches is there, and Mallory would see that
        return f"busy: “{LUNCH}”, gone, and open again: “{BACK}”"

    async def politely_blocked(self) -> str:
        """Mallory is let in and then blocked, and is not told."""
        await self._stage.contacts(self._carol, "allow", self._mallory)
        eyes = await self._stage.watch(self._mallory, self._carol, "xmpp", "tls")
        await _until(eyes, "away", GARDEN)
        await self._stage.contacts(self._carol, "block", self._mallory)
        last = await _until(eyes, "closed")
        await eyes.end(signal.SIGTERM)
        if last["standing"] != "active" or last["note"]:
            raise Failed(f"Mallory was told more than that she is away: {last}")
        once = await self._stage.look(self._alice, self._carol, "sip", "tcp")
        if once["state"] != "away":
            raise Failed(f"Alice no longer sees her: {once}")
        return "Mallory sees what everybody sees of somebody who is not there; Alice still sees her away"

    async def after_the_crash(self) -> str:
        """What was said before the server was killed does not come back; what was allowed does."""
        for child in (*self._running, *self._eyes.values()):
            await child.end(signal.SIGTERM)
        gone = await self._stage.look(self._alice, self._carol, "sip", "udp")
        if gone["standing"] != "active" or gone["state"] != "closed":
            raise Failed(f"she is shown as {gone['state']} though she said nothing: {gone}")
        await self._say(self._carol, "open", BACK, "xmpp", "tls")
        back = await self._stage.look(self._alice, self._carol, "sip", "udp")
        if (back["state"], back["note"]) != ("open", BACK):
            raise Failed(f"she said that she is back, and is shown as {back}")
        await self._take_back(self._running[-1])
        return f"Alice, still allowed, sees Carol closed until she speaks again: “{BACK}”"

    async def _say(self, person: Person, state: str, note: str, via: Via, transport: Transport) -> Child:
        child = await self._stage.publish(person, state, note, via, transport)
        self._running.append(child)
        return child

    async def _take_back(self, child: Child) -> None:
        await child.end(signal.SIGTERM)


async def _next(eyes: Child) -> dict[str, Any]:
    return dict(json.loads(await eyes.line()))


async def _until(eyes: Child, state: str, note: str = "") -> dict[str, Any]:
    """The first line that says so. Raises Failed if none does in time."""
    while (seen := await _next(eyes))["state"] != state or seen["note"] != note:
        pass
    return seen
