"""What devices say they support (XEP-0115): learnt from presence, asked for, remembered by a hash that holds.

Place on the path: before step 8, which makes a stanza the device can take.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from comity.bindings.xmpp import queries
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.wire import Element

#: Verified capability hashes kept.
MAX_CAPS = 1024
#: Seconds a device's messages wait for its answer.
PATIENCE = 10.0


class Capabilities:
    """Features of devices.

    Args:
        ground: shared.
        known: called when a device's features are known, or will not be.
    """

    def __init__(self, ground: Ground, known: Callable[[Connection], None]) -> None:
        self._ground = ground
        self._known = known
        self._caps: OrderedDict[tuple[str, str], frozenset[str]] = OrderedDict()

    def learn(self, connection: Connection, stanza: Element) -> None:
        """Look at a presence: what it announces is known, or asked for."""
        caps = stanza.find(f"{{{queries.CAPS}}}c")
        key = (caps.get("hash"), caps.get("ver")) if caps is not None else ("", "")
        if caps is None or not caps.get("ver") or key == connection.caps:
            return
        if key in self._caps:
            connection.features, connection.caps = self._caps[key], key
        elif connection.caps_asked is None:
            id = "caps-" + self._ground.random(8).hex()
            connection.caps_asked = (id, *key)
            node = f"{caps.get('node')}#{caps.get('ver')}"
            self._ground.reply(connection, queries.ask_features(self._ground.domains[0], str(connection.jid), id, node))
            self.wait(connection)

    def wait(self, connection: Connection) -> None:
        """Messages wait for the answer to our question, so that the first stored one goes out whole; not for ever."""
        assert connection.caps_asked is not None
        self._ground.service.clock.call_later(PATIENCE, partial(self._give_up, connection, connection.caps_asked[0]))

    def answered(self, connection: Connection, stanza: Element) -> None:
        """Take the device's answer; one whose hash is wrong counts for this device only (X-66)."""
        assert connection.caps_asked is not None
        _, hash_name, ver = connection.caps_asked
        connection.caps_asked = None
        query = stanza.find(f"{{{queries.DISCO_INFO}}}query")
        if stanza.get("type") == "result" and query is not None:
            connection.features, connection.caps = queries.kept_features(query), (hash_name, ver)
            if queries.is_hash_right(query, hash_name, ver):
                self._caps[hash_name, ver] = connection.features
                if len(self._caps) > MAX_CAPS:
                    self._caps.popitem(last=False)
        self._known(connection)

    def _give_up(self, connection: Connection, id: str) -> None:
        if connection.caps_asked is not None and connection.caps_asked[0] == id and not connection.is_registered:
            self._known(connection)
