"""What a device took, without stream management: it is asked (XEP-0199), and its answer proves what stood before.

Place on the path: step 3. A kernel that took the octets proves nothing about the program behind it; an answer to a
question written after a message does, as both are read in order. One question is out at a time, so a device that is
given many messages answers few. A program that lives but never answers is believed from then on: nothing better
exists for it, and holding its messages back would lose them for it.
"""

from __future__ import annotations

from collections import deque

from comity.bindings.xmpp.wire import IQ, Element

PING = "urn:xmpp:ping"


class LifeSigns:
    """Stanzas written since the device last proved that it reads."""

    def __init__(self) -> None:
        self.is_mute = False
        """True once the device was seen alive and did not answer."""
        self.question = ""
        """Id of the question under way, "" none."""
        self._waiting: deque[object] = deque()
        self._asked = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: object) -> None:
        """A stanza was written that somebody wants to know the end of."""
        self._waiting.append(key)

    def ask(self, id: str, sender: str, to: str) -> Element:
        """The question; everything written before it is proved by the answer."""
        self.question, self._asked = id, len(self._waiting)
        return Element(IQ, {"type": "get", "id": id, "from": sender, "to": to}, [Element(f"{{{PING}}}ping")])

    def answered(self) -> tuple[object, ...]:
        """The answer has come: the keys of what is proved, in order."""
        count, self._asked, self.question = self._asked, 0, ""
        return tuple(self._waiting.popleft() for _ in range(count))

    def give_up(self) -> tuple[object, ...]:
        """No answer will come from this device: the keys of all that was written."""
        self.is_mute, self.question, self._asked = True, "", 0
        keys = tuple(self._waiting)
        self._waiting.clear()
        return keys
