"""Presence and who asks for it, by SIP: the far end of PUBLISH, SUBSCRIBE and NOTIFY.

Place on the path: step 9 of a subscribe and step 3 of a notify, at a user's own program. ``bindings.sip.subscriber`` and
``publisher`` decide; here are their timers, their requests' outcomes and what is read out of the notifications. SIP has no
contact list of its own: it lies behind XCAP (RFC 4826), or is kept by XMPP, which is the same list in Comity.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Protocol

from comity.bindings.sip import publisher, subscriber
from comity.bindings.sip.headers import clean_text
from comity.bindings.sip.mapping import header_block, reason_of
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.publisher import Publisher
from comity.bindings.sip.subscriber import Subscriber, Wish
from comity.bindings.sip.subscriber_rules import EndCause
from comity.client.base import ClientError
from comity.client.presence import Contact, Judge, NotPossible, Sealer, Seen, Standing, Watch
from comity.cpim.address import Address, to_sip_uri
from comity.cpim.entity import CPIM_TYPE
from comity.cpim.operations import MimeObject, Reason, Response, failure, success
from comity.cpim.presence import PIDF_TYPE, Note
from comity.cpim.presence_state import Availability, PresenceState, state_document, tuple_id_of
from comity.cpim.presence_writer import distinct
from comity.cpim.watchers import WATCHERINFO_TYPE, SubscriptionState, WatcherEntry, WatcherInfo
from comity.errors import AddressError, MalformedMessage

ACCEPT: Final = f"{PIDF_TYPE}, multipart/signed, {CPIM_TYPE}, application/pkcs7-mime"
"""Signed and sealed documents are taken whole (SEED-46)."""
GOODBYE: Final = 2.0
"""Seconds that ending may take; what is not ended by then ends by its own time."""
_NO_LIST: Final = "SIP has no contact list of its own. Sign in by XMPP (the list is the same), or use an XCAP client (resource-lists)."
_NO_ANSWER: Final = "SIP has no way to answer who asks. Sign in by XMPP, put presence rules by XCAP (pres-rules), or ask the server's operator."


class Line(Protocol):
    """The signed-in client, as it is needed here."""

    @property
    def address(self) -> Address: ...

    @property
    def contact(self) -> str:
        """Our contact address, with angle brackets."""

    def now(self) -> float: ...

    async def exchange(self, request: SipRequest) -> SipResponse:
        """Send a request with the credentials we have; its final answer. Raises ClientError without one."""

    def has_credentials(self, answer: SipResponse) -> bool:
        """Take the challenge of an answer; True if the request may be sent again."""


Machine = Subscriber | Publisher
Handler = Callable[[subscriber.Event | publisher.Event], None]


class Runner:
    """Runs one machine: its requests, its timer, its events."""

    def __init__(self, line: Line, machine: Machine, handle: Handler) -> None:
        self._line = line
        self._machine = machine
        self._handle = handle
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.done = asyncio.Event()
        """Set when a subscription is over for good."""

    def go_on(self) -> None:
        """Do what the machine wants now; call it after every verb."""
        while (event := self._machine.next_event()) is not None:
            if isinstance(event, subscriber.Send):
                task = asyncio.ensure_future(self._exchange(event))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._handle(event)
        if self._timer is not None:
            self._timer.cancel()
        when = self._machine.next_timer()
        if isinstance(self._machine, Subscriber) and self._machine.is_done:
            self.done.set()
        self._timer = None if when is None else asyncio.get_running_loop().call_at(when, self._fire)

    def stop(self) -> None:
        """Leave everything as it is."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def _fire(self) -> None:
        self._machine.handle_timer(self._line.now())
        self.go_on()

    async def _exchange(self, send: subscriber.Send) -> None:
        try:
            answer = await self._line.exchange(send.request)
        except ClientError as error:
            self._machine.failed(send.id, self._line.now(), reason=str(error))
        else:
            may_repeat = answer.status_code in (401, 407) and self._line.has_credentials(answer)
            self._machine.take_answer(send.id, answer, self._line.now(), has_credentials=may_repeat)
        self.go_on()


class SipPresence:
    """Presence of one signed-in SIP client."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._subscribers: dict[Subscriber, Runner] = {}
        self._watches: set[Watch] = set()
        self._publisher: Publisher | None = None
        self._published: Runner | None = None
        self._outcome: asyncio.Future[Response] | None = None
        self._tuple_id = tuple_id_of(os.urandom(4).hex())
        self._last: datetime | None = None

    # --- publish -----------------------------------------------------------------------------------------------

    async def publish(
        self, availability: Availability, note: str = "", *, lease: int | None = None, sealer: Sealer | None = None
    ) -> Response:
        """See ``PresenceClient.publish``."""
        own = self._line.address
        self._last = distinct(datetime.now(UTC), self._last)
        state = PresenceState(availability, (Note(note),) if note else ())
        document = state_document(own, self._tuple_id, state, self._last)
        if document is None:
            raise ClientError("there is nothing to publish: the state is unknown")
        obj = MimeObject.of(PIDF_TYPE, document.raw)
        obj = sealer(obj) if sealer is not None else obj
        if self._publisher is None:
            self._publisher = Publisher(to_sip_uri(own), random=os.urandom)
            self._published = Runner(self._line, self._publisher, self._take_publication)
        self._publisher.is_lasting, self._publisher.duration = lease is None, lease or subscriber.HOUR
        return await self._settled(lambda machine: machine.publish(obj.content_type, obj.octets, self._line.now()))

    async def unpublish(self) -> Response:
        """See ``PresenceClient.unpublish``."""
        if self._publisher is None:
            return success("publish")
        return await self._settled(lambda machine: machine.remove(self._line.now()))

    async def _settled(self, act: Callable[[Publisher], None]) -> Response:
        assert self._publisher is not None
        assert self._published is not None
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(failure("publish", Reason.EXPIRED, "Something newer was published."))
        outcome: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._outcome = outcome
        act(self._publisher)
        self._published.go_on()
        if not outcome.done() and not self._publisher.is_busy:
            outcome.set_result(success("publish"))  # the same stands already
        return await outcome

    def _take_publication(self, event: subscriber.Event | publisher.Event) -> None:
        if self._outcome is None or self._outcome.done():
            return
        if isinstance(event, publisher.Published | publisher.Removed):
            self._outcome.set_result(success("publish"))
        elif isinstance(event, publisher.PublishFailed):
            reason = reason_of(event.status_code, event.reason) if event.status_code else Reason.TIMEOUT
            said = f"The answer was {event.status_code} " if event.status_code else ""
            self._outcome.set_result(failure("publish", reason, f"{said}{clean_text(event.reason)[:200]}."))

    # --- watch -------------------------------------------------------------------------------------------------

    async def watch(
        self, address: Address, *, judge: Judge | None = None, is_once: bool = False
    ) -> AsyncGenerator[Seen]:
        """See ``PresenceClient.watch``."""
        watch = Watch(address, judge)
        duration = 0 if is_once else subscriber.HOUR
        machine = self._begin(watch, Wish(to_sip_uri(address), *self._ends, accept=ACCEPT, duration=duration))
        try:
            async for seen in watch.read():
                yield seen
        finally:
            self._watches.discard(watch)
            await self._end(machine)

    @property
    def _ends(self) -> tuple[str, str]:
        """From and Contact of what we send."""
        return to_sip_uri(self._line.address), self._line.contact

    def _begin(self, watch: Watch, wish: Wish) -> Subscriber:
        machine = Subscriber(wish, random=os.urandom)
        runner = Runner(self._line, machine, lambda event: _tell(watch, machine, event))
        self._subscribers[machine] = runner
        self._watches.add(watch)
        machine.subscribe(self._line.now())
        runner.go_on()
        return machine

    async def _end(self, machine: Subscriber) -> None:
        """Unsubscribe, and wait a moment for the last word."""
        runner = self._subscribers.get(machine)
        if runner is None:
            return
        machine.unsubscribe(self._line.now())
        runner.go_on()
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await runner.done.wait()
        runner.stop()
        self._subscribers.pop(machine, None)

    def take_notify(self, request: SipRequest) -> tuple[int, list[tuple[str, str]]]:
        """Take a NOTIFY; status code and headers of the answer (SIP-20: 481 if nobody waits for it)."""
        for machine, runner in self._subscribers.items():
            if machine.is_for_us(request):
                answer = machine.take_notify(request, self._line.now())
                runner.go_on()
                return answer
        return 481, []

    async def requests(self) -> Sequence[Contact]:
        """Who asks to see us: watcher information (RFC 3857), fetched once."""
        info = await self._fetch_watchers()
        waiting = (SubscriptionState.PENDING, SubscriptionState.WAITING)
        entries = [entry for one in info.lists for entry in one.watchers if entry.state in waiting]
        return [contact for entry in entries if (contact := _contact(entry)) is not None]

    async def _fetch_watchers(self) -> WatcherInfo:
        own, found = to_sip_uri(self._line.address), asyncio.get_running_loop().create_future()

        def take(event: subscriber.Event | publisher.Event) -> None:
            if found.done():
                return
            if isinstance(event, subscriber.Notified) and event.request.body:
                found.set_result(event.request)
            elif isinstance(event, subscriber.Ended):
                found.set_exception(ClientError(f"the server does not say who watches: {_why(event)}"))

        event_package = "presence.winfo"
        wish = Wish(own, *self._ends, event=event_package, accept=WATCHERINFO_TYPE, duration=0)
        machine = Subscriber(wish, random=os.urandom)
        self._subscribers[machine] = runner = Runner(self._line, machine, take)
        machine.subscribe(self._line.now())
        runner.go_on()
        try:
            return WatcherInfo.parse((await found).body)
        except MalformedMessage as error:
            raise ClientError(f"the server's watcher information cannot be read: {error}") from error
        finally:
            await self._end(machine)

    # --- what SIP cannot say -------------------------------------------------------------------------------------

    async def contacts(self) -> Sequence[Contact]:
        """See ``PresenceClient.contacts``."""
        raise NotPossible(_NO_LIST)

    async def put_contact(self, address: Address, name: str = "", groups: Sequence[str] = ()) -> Response:
        """See ``PresenceClient.put_contact``."""
        raise NotPossible(_NO_LIST)

    async def remove_contact(self, address: Address) -> Response:
        """See ``PresenceClient.remove_contact``."""
        raise NotPossible(_NO_LIST)

    async def ask(self, address: Address, text: str = "") -> Response:
        """See ``PresenceClient.ask``."""
        raise NotPossible("By SIP one asks by watching, for as long as one watches: use watch.")

    async def allow(self, address: Address) -> Response:
        """See ``PresenceClient.allow``."""
        raise NotPossible(_NO_ANSWER)

    async def refuse(self, address: Address) -> Response:
        """See ``PresenceClient.refuse``."""
        raise NotPossible(_NO_ANSWER)

    async def block(self, address: Address) -> Response:
        """See ``PresenceClient.block``."""
        raise NotPossible(_NO_ANSWER)

    async def unblock(self, address: Address) -> Response:
        """See ``PresenceClient.unblock``."""
        raise NotPossible(_NO_ANSWER)

    async def blocked(self) -> Sequence[Address]:
        """See ``PresenceClient.blocked``."""
        raise NotPossible(_NO_LIST)

    # --- end, and going on ---------------------------------------------------------------------------------------

    @property
    def is_in_use(self) -> bool:
        """True if a lost connection would be missed: somebody watches, or something is published and renewed."""
        is_published = self._publisher is not None and self._publisher.is_wanted and self._publisher.is_lasting
        return is_published or any(not machine.is_done for machine in self._subscribers)

    def reconnected(self) -> None:
        """A new connection stands: watch and publish over it."""
        for machine, runner in list(self._subscribers.items()):
            machine.anew(self._line.now(), self._line.contact)
            runner.go_on()
        if self._publisher is not None and self._published is not None:
            self._publisher.check(self._line.now())
            self._published.go_on()

    async def close(self) -> None:
        """Take back what would be renewed, and unsubscribe; what has a lease of its own stays."""
        ends: list[Awaitable[object]] = [self._end(machine) for machine in list(self._subscribers)]
        if self._publisher is not None and self._publisher.is_lasting:
            ends.append(self.unpublish())
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await asyncio.gather(*ends)
        self.lost(None)

    def lost(self, error: ClientError | None) -> None:
        """The connection is gone, or the client closes."""
        for runner in (*self._subscribers.values(), *([self._published] if self._published else [])):
            runner.stop()
        for watch in self._watches:
            watch.end(error)
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(failure("publish", Reason.TIMEOUT, str(error or "The client was closed.")))


def _tell(watch: Watch, machine: Subscriber, event: subscriber.Event | publisher.Event) -> None:
    """What an event of a subscription means to the watcher."""
    match event:
        case subscriber.Pended():
            watch.say(Standing.PENDING)
        case subscriber.Notified(request=request):
            watch.show(MimeObject(header_block(request), request.body) if request.body else None)
        case subscriber.Ended() if not machine.is_wanted:
            watch.end()  # as was wanted
        case subscriber.Ended(end=end, retry_at=retry_at):
            is_refused = end.is_cancelled
            is_fetch = machine.wish.duration == 0 and end.cause is EndCause.TIMEOUT
            if not is_fetch:
                watch.say(Standing.REFUSED if is_refused else Standing.ENDED, _why(event))
            elif watch.last is None:  # a fetch that brought nothing: there is no yes yet
                watch.say(Standing.PENDING, "nothing was told: there is no answer yet, or nothing to see")
            if retry_at is None:
                watch.end()
        case _:
            pass  # a refresh that failed is tried again, and what it may end is told then


def _why(event: subscriber.Ended) -> str:
    end = event.end
    if end.status_code:
        return f"{end.status_code} {clean_text(end.reason)[:80]}".strip()
    # The notifier's word says no more than the cause, but for one we do not know, and for what we found out ourselves.
    is_said = end.cause in (EndCause.UNKNOWN, EndCause.UNANSWERED, EndCause.UNREACHABLE) and end.reason
    return clean_text(end.reason)[:200] if is_said else end.cause.value


def _contact(entry: WatcherEntry) -> Contact | None:
    try:
        return Contact(
            Address.from_any(entry.uri).with_scheme("im"), entry.display_name, is_listed=False, is_asking=True
        )
    except AddressError:
        return None
