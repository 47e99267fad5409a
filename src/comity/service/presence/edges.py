"""The attached bindings, all told alike.

Place on the path: between what keeps relations (``pairs.py``, ``contacts.py``) and the edges; what belongs to one subscription
goes to that subscription's own edge (``get``).
"""

from __future__ import annotations

from collections.abc import Sequence

from comity.cpim.address import Address
from comity.cpim.operations import NotifyOperation
from comity.service.presence.interfaces import ContactItem, Edge


class Edges:
    """See ``Edge`` for what each call says."""

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
        for edge in self._edges.values():
            edge.asked(item)

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """See ``Edge.answered``."""
        for edge in self._edges.values():
            edge.answered(item, is_granted)

    def withdrew(self, item: ContactItem) -> None:
        """See ``Edge.withdrew``."""
        for edge in self._edges.values():
            edge.withdrew(item)

    def contact_changed(self, item: ContactItem) -> None:
        """See ``Edge.contact_changed``."""
        for edge in self._edges.values():
            edge.contact_changed(item)

    def blocklist_changed(
        self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None
    ) -> None:
        """See ``Edge.blocklist_changed``."""
        for edge in self._edges.values():
            edge.blocklist_changed(account, blocked, unblocked)

    def directed(self, operation: NotifyOperation) -> None:
        """See ``Edge.directed``."""
        for edge in self._edges.values():
            edge.directed(operation)
