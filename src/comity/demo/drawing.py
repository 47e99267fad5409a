"""The drawing of 2000, in the story: an APEX client, a server, SIP between servers, another server, an XMPP client.

Place on the path: along two of them, from outside. One signed object passes three protocols and two nodes, and is the same octets
at each of the four places where it can be looked at (SEED-1).
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from comity.demo.house import House, Via
from comity.demo.stage import Child, Ended, Failed, Person, Stage

TERMS = "Agreed as in December 2000: one object, three protocols 🤝"
ANSWER = "And back the same way, not an octet less."
TRACES = 20
"""Times that ``comity trace`` is asked until a delivery is noted there."""


class Drawing:
    """Erin of the first house by APEX, Dora of the second by XMPP.

    Args:
        stage: with the first server running.
        sent: hashes of what was sent, for whoever else listens.
    """

    def __init__(self, stage: Stage, sent: set[str]) -> None:
        self._stage = stage
        self._sent = sent
        self._erin, self._dora = stage.people["erin"], stage.people["dora"]

    async def there(self) -> str:
        """Erin signs and sends by APEX; Dora's XMPP client verifies."""
        stage = self._stage
        await stage.serve(stage.neighbour)
        await asyncio.gather(*(stage.settle(person, has_key=True) for person in (self._erin, self._dora)))
        dora = await stage.listen(self._dora, "xmpp", "tcp")
        sent = accepted(await stage.send(self._erin, self._dora, "apex", "tcp", TERMS, "--sign"))
        held = await self._holds(sent, dora, self._erin, TERMS, ("apex", "sip", "xmpp"))
        await dora.end(signal.SIGTERM)
        return held

    async def back(self) -> str:
        """Dora answers by XMPP; Erin's APEX client verifies."""
        stage = self._stage
        erin = await stage.listen(self._erin, "apex", "tls")
        sent = accepted(await stage.send(self._dora, self._erin, "xmpp", "tls", ANSWER, "--sign"))
        held = await self._holds(sent, erin, self._dora, ANSWER, ("xmpp", "sip", "apex"))
        await erin.end(signal.SIGTERM)
        return held

    async def _holds(self, sent: dict[str, Any], ear: Child, by: Person, text: str, path: tuple[Via, Via, Via]) -> str:
        """Check what arrived and what both nodes noted; gives the detail."""
        got = json.loads(await ear.line())
        self._sent |= {sent["sha256"], got["sha256"]}
        if (got["verdict"], got["signer"], got["text"]) != ("valid", by.address, text):
            raise Failed(f"{got['verdict']} by {got['signer']}: {got['text']!r}; {got['reason']}")
        first, second = by.house, self._other(by.house)
        nodes = [await noted(self._stage, house, got["sha256"]) for house in (first, second)]
        crossed = (nodes[0]["in"], nodes[0]["out"], nodes[1]["in"], nodes[1]["out"])
        if crossed != (path[0], path[1], path[1], path[2]):
            raise Failed(f"it went {crossed[0]} to {crossed[1]}, then {crossed[2]} to {crossed[3]}")
        hashes = {sent["sha256"], *(node["sha256"] for node in nodes), got["sha256"]}
        if len(hashes) != 1:
            raise Failed(f"the octets were changed: {hashes}")
        if [hop["node"] for hop in got["history"]] != [first.domain, second.domain]:
            raise Failed(f"its history is {got['history']}")
        way = f"{path[0].upper()} → {first.domain} → {path[1].upper()} → {second.domain} → {path[2].upper()}"
        return (
            f"“{text}”; {way}; valid, signed by {by.address}; sha256 {got['sha256'][:16]} at both ends and both nodes"
        )

    def _other(self, house: House) -> House:
        return self._stage.neighbour if house is self._stage.house else self._stage.house


async def noted(stage: Stage, house: House, sha256: str) -> dict[str, str]:
    """What a node has noted of a delivered message; it may come to know a moment after the recipient. Raises Failed."""
    steps: list[dict[str, str]] = []
    for _ in range(TRACES):
        steps = await stage.trace(sha256, house)
        if steps and steps[-1]["outcome"].startswith("delivered"):
            return steps[-1]
    raise Failed(f"{house.domain} knows of no delivery: {steps}")


def accepted(ended: Ended) -> dict[str, Any]:
    """What ``comity send --json`` printed of a message the server took. Raises Failed for another."""
    if ended.exit_code or not ended.stdout:
        raise Failed(f"it could not be sent: {ended.stderr[-400:].strip() or ended.stdout[:400]}")
    return dict(ended.json())
