"""Step 6: which of a recipient's live contact addresses an operation goes to.

RFC 6121 section 8.5 in the words of the middle: a device asked for by its resource gets the message alone;
otherwise every device with a priority of 0 or more does; a negative priority gets only what names it.
"""

from __future__ import annotations

from collections.abc import Iterable

from comity.cpim.operations import MessageOperation
from comity.service.interfaces import Contact


def contacts_for(operation: MessageOperation, contacts: Iterable[Contact]) -> list[Contact]:
    """The contacts to offer ``operation`` to; empty means: nobody is reachable, store it."""
    live = list(contacts)
    wanted = operation.context.resource
    if wanted:
        named = [contact for contact in live if contact.resource == wanted]
        if named:
            return named
    return [contact for contact in live if contact.priority >= 0]


def inbox_lane(destination_key: str) -> str:
    """The lane in which a local recipient's messages stand."""
    return f"inbox/{destination_key}"
