"""Step 7 for what waits for a domain whose way changed while it waited (G-30): the configuration is another after a restart.

Place on the path: beside the bindings, as two more ``Deliverer``. A lane of another domain is named after the protocol it began with,
and keeps that name until it is empty: what comes meanwhile is appended to it, so a conversation stays in order. It leaves by the
route as it is now. Two cases have none: nothing leads to the domain any more (its senders are told), or it is ours now (its messages
go to their recipients' inboxes).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from comity.cpim.address import Address
from comity.cpim.operations import PASSED_ON, Fate, Reason, Response, failure, success
from comity.errors import AddressError
from comity.service.envelope import Envelope, unpack
from comity.service.ids import dedup_key, new_spine_id
from comity.service.interfaces import Accounts, Add, Contact, Delivery, Done, Record, Repeat, Store
from comity.service.policy import Limits, no_such_user
from comity.service.routing import HERE, NOWHERE, domain_of_hop, hop_lane, inbox_lane


def contact_for(lane: str, hop: Contact | None, *, is_ours: bool) -> Contact:
    """Who takes what waits in a hop's lane, as things stand: its route's hop, or one of the two of this module."""
    domain = domain_of_hop(lane)
    if is_ours:
        return Contact(HERE, Address("im", "", domain), HERE, resource=domain, is_protected=True)
    if hop is None:
        return Contact(NOWHERE, Address("im", "", domain), NOWHERE, resource=domain, is_hop=True, is_protected=True)
    return hop


class FormerLanes:
    """Lanes that held messages at the start of this process, in whose name the domain's messages go on until they are empty.

    Args:
        take_up: begins the delivery of what is in a lane.
    """

    def __init__(self, take_up: Callable[[str, Contact], None]) -> None:
        self._take_up = take_up
        self._lanes: dict[str, str] = {}
        """By domain: where its messages stand now, if not in the lane of its route."""
        self._waiting: dict[str, list[tuple[str, Contact]]] = {}
        """By domain: lanes to be taken up after one another. There is one only, but where routes changed under older versions."""
        self._open: dict[str, str] = {}
        """By domain: the lane that is delivered now."""
        self._quiet: set[str] = set()

    def begin(self, lane: str, taker: Contact) -> None:
        """A lane holds messages; called in the order of their age."""
        domain = domain_of_hop(lane)
        if domain in self._lanes:
            self._waiting.setdefault(domain, []).append((lane, taker))
        else:
            self._open[domain] = lane
            self._take_up(lane, taker)
        self._lanes[domain] = lane

    def lane_of(self, hop: Contact) -> str:
        """Where new messages to a hop stand."""
        return self._lanes.get(hop.resource) or hop_lane(hop)

    def is_waiting(self, lane: str) -> bool:
        """True for a lane whose turn has not come."""
        return any(lane == waiting for waiting, _ in self._waiting.get(domain_of_hop(lane), ()))

    def sweep(self, is_idle: Callable[[str], bool]) -> None:
        """Go on to the next lane of a domain, or to that of its route, where the former one has been empty for two looks:
        what is being committed to it meanwhile is in it by then."""
        for domain, lane in list(self._open.items()):
            if not is_idle(lane):
                self._quiet.discard(domain)
            elif domain not in self._quiet:
                self._quiet.add(domain)
            elif waiting := self._waiting.get(domain):
                self._quiet.discard(domain)
                self._open[domain], taker = waiting.pop(0)
                self._take_up(self._open[domain], taker)
            else:
                self._quiet.discard(domain)
                self._waiting.pop(domain, None)
                del self._lanes[domain], self._open[domain]


class Nowhere:
    """Fails everything for good."""

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Say that nothing leads there; the sender is told as of any other end."""
        text = f"Nothing leads to {delivery.contact.resource} any more: this server was configured anew while the message waited."
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        future.set_result(failure(delivery.operation.trans_id, Reason.NO_ROUTE, text))
        return future


class Here:
    """Moves a message into its recipient's inbox.

    Args:
        store: has it, and gets it.
        accounts: who has an inbox.
        limits: what an inbox holds.
        secret: makes the key by which a second move of the same message is recognised.
        added: called with lane, spine ID, place, delivery and envelope of what was added.
    """

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        limits: Limits,
        secret: Callable[[], bytes],
        added: Callable[[str, str, int, Delivery, Envelope], None],
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._limits = limits
        self._secret = secret
        self._added = added

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Answer success once the copy in the inbox is durable."""
        return asyncio.get_running_loop().create_task(self._move(delivery))

    async def _move(self, delivery: Delivery) -> Response:
        operation = delivery.operation
        trans_id = operation.trans_id
        report = operation.context.report
        if report is not None and report.fate is not Fate.FAILED:
            return failure(trans_id, Reason.NO_ROUTE, "Who asked for the receipt is not reached by a server any more.")
        try:
            recipient = operation.destination.folded()
        except AddressError:  # no account can have that name
            return no_such_user(operation)
        if not await self._accounts.exists(recipient):
            return no_such_user(operation)
        found = [one for one in await self._store.find(delivery.id, 1) if one.id == delivery.id]
        if not found:
            return failure(trans_id, Reason.INTERNAL, "The message is not in the store.")
        lane, thing = inbox_lane(recipient.key), operation.object
        expires = found[0].accepted + self._limits.lifetime
        key = dedup_key(self._secret(), ("moved", delivery.id))
        record = Record(new_spine_id(), lane, thing.entity, found[0].envelope, thing.fingerprint, expires, (key,))
        quota = (self._limits.inbox_records, self._limits.inbox_octets)
        match (await self._store.commit([Add(record, self._limits.dedup_window, quota)]))[0]:
            case Done(rev=seq):
                self._added(lane, record.id, seq, delivery, unpack(record.envelope))
            case Repeat():
                pass  # moved before the end of the first attempt was durable
            case _:
                text = "The recipient's stored messages are at their limit."
                return failure(trans_id, Reason.OVERLOAD, text, retry_after=600)
        return success(trans_id, PASSED_ON)  # whoever asked for a receipt gets it when a device takes the copy
