"""Step 6: which of a recipient's live contact addresses an operation goes to.

RFC 6121 section 8.5 in the words of the middle: a device asked for by its resource gets the message alone;
otherwise every device with a priority of 0 or more does; a negative priority gets only what names it.
"""

from __future__ import annotations

from collections.abc import Iterable

from comity.cpim.operations import Fate, MessageOperation
from comity.service.interfaces import Contact


def contacts_for(operation: MessageOperation, contacts: Iterable[Contact]) -> list[Contact]:
    """The contacts to offer ``operation`` to; empty means: nobody is reachable, store it."""
    live = list(contacts)
    report = operation.context.report
    if report is not None and report.fate is not Fate.FAILED:
        # Only those who asked know what to make of it; whoever they are, each of them gets it.
        wanted = operation.context.wants_receipt
        # A hop, or the way home from one, answers for itself.
        return [contact for contact in live if contact.binding in (wanted, HERE) or contact.is_hop]
    wanted = operation.context.resource
    if wanted:
        named = [contact for contact in live if contact.resource == wanted]
        if named:
            return named
    return [contact for contact in live if contact.priority >= 0]


DNS = "dns"
"""``Contact.binding`` of a hop whose protocol DNS says (``finding.py``)."""
NOWHERE, HERE = "nowhere", "here"
"""``Contact.binding`` for what waits for a domain that nothing leads to any more, or that is ours now (``former.py``)."""

INBOXES, HOPS, RECEIPTS = "inbox/", "hop/", "receipt/"
"""How the names of lanes begin."""


def inbox_lane(destination_key: str) -> str:
    """The lane in which a local recipient's messages stand."""
    return f"{INBOXES}{destination_key}"


def hop_lane(hop: Contact) -> str:
    """The lane in which messages to a domain stand: ``hop/sip:b.test``."""
    return f"{HOPS}{hop.binding}:{hop.resource}"


def domain_of_hop(lane: str) -> str:
    """The domain that a hop's lane leads to."""
    return lane.removeprefix(HOPS).partition(":")[2]


def receipt_lane(binding: str, key: str) -> str:
    """The lane of what only the devices of one protocol want to know: a lane of its own, since it may wait for ever for one
    of them while others are there for the messages."""
    return f"{RECEIPTS}{binding}/{key}"


def is_lane_of(lane: str, operation: MessageOperation) -> bool:
    """True if the operation may stand in that lane: its recipient's, or its domain's."""
    key = operation.destination.key
    if lane.startswith(HOPS):
        return domain_of_hop(lane) == operation.destination.domain
    return lane in (inbox_lane(key), receipt_lane(operation.context.wants_receipt, key))
