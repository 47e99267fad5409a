"""Measure what telling one change to many XMPP watchers costs: ``python -m tests.load.fanout [WATCHERS [ROUNDS]]``.

Microseconds of CPU for each watcher, in this process, without the kernel's and TLS's part: from the composed document to
octets in the link's hands, with stream management. "tree" writes a tree for each watcher, "raw" what ``notices.py`` wrote
once for all; "mapping" is what that one writing costs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from comity.bindings.xmpp.notices import Notice, content_to_stanzas, to_octets
from comity.bindings.xmpp.presence import stanza_to_statement
from comity.cpim.address import Address
from comity.cpim.composition import COMPOSED_TYPE
from comity.cpim.operations import MimeObject
from comity.service.presence.interfaces import Content, Statement
from comity.xml import Element, parse_document
from tests.bindings.xmpp.pair import ServerSide

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CAPS = (
    "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://x.test' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/>"
)


def content(show: str) -> Content:
    """What a device of bob's says."""
    inner = f"<show>{show}</show><status>gone fishing</status><priority>5</priority>{CAPS}"
    stanza = parse_document(f"<presence xmlns='jabber:client' from='bob@a.test/desk'>{inner}</presence>".encode())
    said = stanza_to_statement(stanza, "desk", NOON)
    assert isinstance(said, Statement)
    assert said.document is not None
    obj = MimeObject.of(COMPOSED_TYPE, said.document.raw)
    return Content(Address.parse("pres:bob@a.test"), said.document, obj, natives=said.natives)


def watchers(count: int) -> list[ServerSide]:
    """Signed in, with stream management, having heard something already."""
    sides = []
    for _ in range(count):
        side = ServerSide(tls=True)
        side.sign_in()
        side.feed(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        sides.append(side)
    return sides


def tell(sides: list[ServerSide], write: Callable[[ServerSide], None], total: int) -> float:
    """Microseconds of CPU for each; what was written, ``total`` stanzas by now, is acknowledged afterwards, unmeasured."""
    before = time.process_time()
    for side in sides:
        write(side)
        side.session.data_to_send(0.0)
    spent = time.process_time() - before
    for side in sides:
        side.session.sm_state.outgoing.confirm(total)
        assert len(side.session.sm_state.outgoing) == 0
    return spent / len(sides) * 1e6


def measure(count: int, rounds: int) -> dict[str, float]:
    """The best of ``rounds`` for each way."""
    sides = watchers(count)
    notices: tuple[Notice, ...] = ()
    best = dict.fromkeys(("mapping", "tree", "raw"), float("inf"))
    last = content("away")
    for turn in range(rounds):
        new = content("dnd" if turn % 2 else "xa")
        before = time.process_time()
        notices = content_to_stanzas(new, last, NOON)
        best["mapping"] = min(best["mapping"], (time.process_time() - before) * 1e6)
        (notice,) = notices
        tree = notice.element("alice@a.test/r")

        def as_tree(side: ServerSide, tree: Element = tree) -> None:
            to = {**tree.attributes, "to": str(side.session.jid)}
            side.session.send_passing(Element(tree.name, to, tree.children), "presence bob@a.test/desk")

        def as_octets(side: ServerSide, new: Content = new, last: Content = last) -> None:
            for one in content_to_stanzas(new, last, NOON):
                side.session.send_raw(one.octets(to_octets(str(side.session.jid))), one.slot)

        best["tree"] = min(best["tree"], tell(sides, as_tree, 2 * turn + 1))
        best["raw"] = min(best["raw"], tell(sides, as_octets, 2 * turn + 2))
        last = new
    return best


if __name__ == "__main__":
    numbers = [*(int(text) for text in sys.argv[1:]), *(1000, 5)[len(sys.argv) - 1 :]]
    for name, value in measure(numbers[0], numbers[1]).items():
        print(f"{name:8} {value:8.2f} us")
