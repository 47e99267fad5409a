"""The attached bindings, all told alike.

Place on the path: between what keeps relations (``pairs.py``, ``contacts.py``) and the edges; what belongs to one subscription
goes to that subscription's own edge (``get``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from comity.cpim.address import Address
from comity.cpim.operations import NotifyOperation
from comity.service.presence.interfaces import ContactItem, Edge

log = logging.getLogger(__name__)


class Edges:
    """See ``Edge`` for what each call says. What one edge fails at, the others are told all the same (F-POISON)."""

    def __init__(self) -> None:
        self._edges: dict[str, Edge] = {}

    def attach(self, name: str, edge: Edge) -> None:
        """Add a binding; one of the same name is replaced."""
        self._edges[name] = edge

    def get(self, name: str) -> Edge | None:
        """The edge of that name."""
        return self._edges.get(name)

    def asked(self, item: ContactItem) -> None:
        """See ``Edge.asked``."""
        self._tell(lambda edge: edge.asked(item))

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """See ``Edge.answered``."""
        self._tell(lambda edge: edge.answered(item, is_granted))

    def withdrew(self, item: ContactItem) -> None:
        """See ``Edge.withdrew``."""
        self._tell(lambda edge: edge.withdrew(item))

    def contact_changed(self, item: ContactItem) -> None:
        """See ``Edge.contact_changed``."""
        self._tell(lambda edge: edge.contact_changed(item))

    def blocklist_changed(
        self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None
    ) -> None:
        """See ``Edge.blocklist_changed``."""
        self._tell(lambda edge: edge.blocklist_changed(account, blocked, unblocked))

    def directed(self, operation: NotifyOperation) -> None:
        """See ``Edge.directed``."""
        self._tell(lambda edge: edge.directed(operation))

    def _tell(self, say: Callable[[Edge], None]) -> None:
        for name, edge in self._edges.items():
            try:
                say(edge)
            except Exception:  # it is durable already: who did it must not hear that it failed
                log.exception("the devices of %s cannot be told", name)
