"""Presence by APEX: what is published and watched at the presence service, ``apex=presence@DOMAIN`` (RFC 3343).

Place on the path: step 9 of a subscribe and step 3 of a notify, at a user's own program. An account has one presence entry for all its
applications: ours is one tuple in it, and those of others are sent back as they were read. APEX has no contact list, and nobody is asked
whether they may be seen: that is in their access entries (RFC 3341).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from urllib.parse import quote, urlencode

from comity.bindings.apex.elements import (
    Error,
    Ok,
    Option,
    Part,
    Presence,
    Publish,
    Reply,
    ServiceElement,
    Subscribe,
    Terminate,
    Tuple,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.multipart import new_content_id
from comity.bindings.apex.presence import STATE_INFO, Entry, entry_to_document, own_tuples, read_last_update
from comity.bindings.apex.presence_operations import SECURED, SERVICE
from comity.bindings.apex.reasons import error_to_response
from comity.client.base import ClientError
from comity.client.presence import Contact, Judge, NotPossible, Sealer, Seen, Standing, Watch
from comity.cpim.address import Address
from comity.cpim.compose import timestamp
from comity.cpim.operations import MimeObject, Reason, Response, failure, success
from comity.cpim.presence import PIDF_TYPE, Note
from comity.cpim.presence_state import Availability, PresenceState, state_document, tuple_id_of
from comity.errors import AddressError, LocalProtocolError, MalformedMessage

DURATION: Final = 3600
"""Seconds of a subscription, and of what is published until the client closes; both are renewed at the half."""
ANSWER_SECONDS: Final = 10.0
"""How long the service may take to answer."""
SIGNED_SECONDS: Final = 0.3
"""How long an entry waits for the signed document that follows it, where somebody wants to judge it (X39)."""
GOODBYE_SECONDS: Final = 2.0
AGAIN_SECONDS: Final = 1.0
_TRIES: Final = 3
_NO_LIST: Final = "APEX has no contact list. Sign in by XMPP (comity contacts --via xmpp), or use an XCAP client."
_NO_ASKING: Final = (
    "By APEX nobody is asked who may see them. Sign in by XMPP, or put presence rules by XCAP (pres-rules)."
)


class Line(Protocol):
    """The attached client, as it is needed here."""

    @property
    def address(self) -> Address: ...

    @property
    def endpoint(self) -> Endpoint:
        """What we are attached as."""

    def new_trans_id(self) -> int: ...

    async def tell(
        self, service: str, domain: str, element: ServiceElement | Part, options: Sequence[Option] = ()
    ) -> Ok | Error:
        """Send data to a service of a domain; what our server said to that. Raises ClientError."""


@dataclass(slots=True, eq=False)
class _Operation:
    """One subscribe operation."""

    publisher: Endpoint
    trans_id: int
    watch: Watch
    shown: asyncio.TimerHandle | None = None
    """An entry that waits for the signed document behind it."""


@dataclass(slots=True)
class _Own:
    """What we say of ourselves."""

    availability: Availability
    note: str
    renewal: asyncio.Task[None] | None = field(default=None)


class ApexPresence:
    """Presence of one attached APEX client."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._operations: dict[int, _Operation] = {}
        """By transID."""
        self._answers: dict[int, asyncio.Future[ServiceElement]] = {}
        """What one answer is waited for, by transID."""
        self._own: _Own | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- publish -----------------------------------------------------------------------------------------------

    async def publish(
        self, availability: Availability, note: str = "", *, lease: int | None = None, sealer: Sealer | None = None
    ) -> Response:
        """See ``PresenceClient.publish``."""
        self._forget_own()
        if sealer is not None:
            response = await self._put_signed(PresenceState(availability, _notes(note)), sealer)
        else:
            response = await self._put(availability, note, lease or DURATION)
        if response.reason is None and lease is None:
            self._own = own = _Own(availability, note)
            if sealer is None:  # what is signed is said anew by who signs it
                own.renewal = asyncio.ensure_future(self._renew(own))
        return response

    async def unpublish(self) -> Response:
        """See ``PresenceClient.unpublish``."""
        self._forget_own()
        return await self._put(Availability.OFFLINE, "", 0)

    def _forget_own(self) -> None:
        if self._own is not None and self._own.renewal is not None:
            self._own.renewal.cancel()
        self._own = None

    async def _renew(self, own: _Own) -> None:
        while True:
            await asyncio.sleep(DURATION / 2)
            await self._put(own.availability, own.note, DURATION)

    async def _put(self, availability: Availability, note: str, seconds: int) -> Response:
        """Read the entry, put our tuple into it, send it back; again if somebody else was faster (555)."""
        who, domain = self._line.endpoint.bare, self._line.endpoint.domain
        answer: ServiceElement | Error = Error(555)
        for _ in range(_TRIES):
            trans_id = self._line.new_trans_id()
            read = await self._ask(trans_id, domain, Subscribe(who, 0, trans_id))
            if not isinstance(read, Publish):
                return self._outcome(read)
            now = datetime.now(UTC)
            presence = self._entry(read.presence, availability, note, seconds, now)
            trans_id = self._line.new_trans_id()
            answer = await self._ask(trans_id, domain, Publish(who, trans_id, timestamp(now), presence))
            if not (isinstance(answer, Reply) and answer.code == 555):
                break
        return self._outcome(answer)

    def _entry(self, read: Presence, availability: Availability, note: str, seconds: int, now: datetime) -> Presence:
        own = self._line.endpoint
        is_open = availability is not Availability.OFFLINE
        until = now + timedelta(seconds=seconds) if is_open else now
        others = [one for one in own_tuples(read) if not _is_of(one, own) and one.available_until > now]
        info = _info(availability, note)
        return replace(read, publisher=own.bare, tuples=(Tuple(own.uri, until, info), *others))

    async def _put_signed(self, state: PresenceState, sealer: Sealer) -> Response:
        """What we signed takes the place of the entry (X39), for an hour."""
        line = self._line
        document = state_document(line.address, tuple_id_of(line.endpoint.subaddress), state, datetime.now(UTC))
        if document is None:
            raise ClientError("there is nothing to publish: the state is unknown")
        obj, trans_id = sealer(MimeObject.of(PIDF_TYPE, document.raw)), line.new_trans_id()
        part = Part(obj.header_block, obj.octets, new_content_id(line.endpoint.domain))
        option = Option(external=SECURED, trans_id=trans_id)
        return self._outcome(await self._ask(trans_id, line.endpoint.domain, part, (option,)))

    # --- watch -------------------------------------------------------------------------------------------------

    async def watch(
        self, address: Address, *, judge: Judge | None = None, is_once: bool = False
    ) -> AsyncGenerator[Seen]:
        """See ``PresenceClient.watch``."""
        watch = Watch(address, judge)
        try:
            publisher = Endpoint.of(address.with_scheme("im"))
        except AddressError as error:
            raise ClientError(f"{address} has no name in APEX: {error.reason}") from error
        operation = _Operation(publisher, self._line.new_trans_id(), watch)
        self._operations[operation.trans_id] = operation
        renewal = asyncio.ensure_future(self._follow(operation, is_once=is_once))
        try:
            async for seen in watch.read():
                yield seen
                if is_once and seen.standing is not Standing.PENDING:
                    return
        finally:
            renewal.cancel()
            if self._operations.pop(operation.trans_id, None) is not None and not is_once:
                self._run(self._terminate(operation))

    async def _follow(self, operation: _Operation, *, is_once: bool) -> None:
        """Subscribe, and again at the half of each duration."""
        options = (Option(external=SECURED, trans_id=operation.trans_id),) if operation.watch.judge is not None else ()
        subscribe = Subscribe(operation.publisher, 0 if is_once else DURATION, operation.trans_id)
        while True:
            try:
                answer = await self._line.tell(SERVICE, operation.publisher.domain, subscribe, options)
            except ClientError as error:
                operation.watch.end(error)
                return
            if isinstance(answer, Error):
                self._end(operation, answer.code, answer.text)
                return
            if is_once:
                return
            await asyncio.sleep(DURATION / 2)

    async def _terminate(self, operation: _Operation) -> None:
        element = Terminate(operation.trans_id)
        await self._ask(operation.trans_id, operation.publisher.domain, element)

    def _end(self, operation: _Operation, code: int, text: str) -> None:
        """The service refuses to tell, or tells no more."""
        reason = f"{code} {text}".strip()
        operation.watch.say(Standing.REFUSED if code == 537 else Standing.ENDED, reason)
        operation.watch.end()
        self._operations.pop(operation.trans_id, None)

    # --- what the service says ---------------------------------------------------------------------------------

    def take(self, said: ServiceElement | Part, domain: str, options: Sequence[Option]) -> None:
        """Take what the presence service of a domain said."""
        if isinstance(said, Part):
            trans_id = next((option.trans_id for option in options if option.external == SECURED), 0)
        elif isinstance(said, Publish | Reply | Terminate):
            trans_id = said.trans_id
        else:
            return
        future = self._answers.get(trans_id)
        if future is not None and not isinstance(said, Part):
            if not future.done():
                future.set_result(said)
            return
        operation = self._operations.get(trans_id)
        if operation is None or operation.publisher.domain != domain:
            return
        if isinstance(said, Publish):
            self._show(operation, said.presence)
        elif isinstance(said, Part):
            self._show_signed(operation, said)
        elif isinstance(said, Reply):
            if said.code >= 400:
                self._end(operation, said.code, said.text)
        elif isinstance(said, Terminate):
            self._ended(operation, said)

    def _show(self, operation: _Operation, presence: Presence) -> None:
        """An entry came; where it is judged, the signed document behind it counts more."""
        obj = _object(operation.watch.who, presence, datetime.now(UTC))
        if operation.shown is not None:
            operation.shown.cancel()
        if operation.watch.judge is None:
            operation.watch.show(obj)
        else:
            operation.shown = asyncio.get_running_loop().call_later(SIGNED_SECONDS, operation.watch.show, obj)

    def _show_signed(self, operation: _Operation, part: Part) -> None:
        if operation.shown is not None:
            operation.shown.cancel()
            operation.shown = None
        operation.watch.show(MimeObject(part.header_block, part.octets))

    def _ended(self, operation: _Operation, said: Terminate) -> None:
        """The service ended it: ask anew, unless it says that it will not tell."""
        if said.code >= 500:
            self._end(operation, said.code, said.text)
        else:
            self._run(self._again(operation))

    async def _again(self, operation: _Operation) -> None:
        await asyncio.sleep(AGAIN_SECONDS)
        if operation.trans_id in self._operations:
            subscribe = Subscribe(operation.publisher, DURATION, operation.trans_id)
            answer = await self._line.tell(SERVICE, operation.publisher.domain, subscribe)
            if isinstance(answer, Error):
                self._end(operation, answer.code, answer.text)

    # --- requests of ours --------------------------------------------------------------------------------------

    async def _ask(
        self, trans_id: int, domain: str, element: ServiceElement | Part, options: Sequence[Option] = ()
    ) -> ServiceElement | Error:
        """Send to the service; its first answer with that transID."""
        future: asyncio.Future[ServiceElement] = asyncio.get_running_loop().create_future()
        self._answers[trans_id] = future
        try:
            answer = await self._line.tell(SERVICE, domain, element, options)
            if isinstance(answer, Error):
                return answer
            async with asyncio.timeout(ANSWER_SECONDS):
                return await future
        except TimeoutError:
            return Error(450, "the presence service does not answer")
        finally:
            del self._answers[trans_id]

    def _outcome(self, answer: ServiceElement | Error) -> Response:
        id = str(self._line.endpoint)
        if isinstance(answer, Reply | Error):
            return success(id) if answer.code < 300 else error_to_response(id, answer.code, answer.text)
        return failure(id, Reason.INTERNAL, "the presence service answered something else")

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the connection is gone, which everybody is told by ``lost``

    # --- life --------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Take back what was published, end what was watched; in a moment or not at all."""
        works: list[asyncio.Future[None]] = list(self._tasks)
        if self._own is not None:
            works.append(asyncio.ensure_future(self._take_back()))
        for operation in self._operations.values():
            works.append(asyncio.ensure_future(self._terminate(operation)))
        if works:
            _, late = await asyncio.wait(works, timeout=GOODBYE_SECONDS)
            for work in late:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)

    async def _take_back(self) -> None:
        await self.unpublish()

    def lost(self, error: ClientError | None) -> None:
        """The connection is gone for good, or the client closes."""
        self._forget_own()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(error or ClientError("the client was closed"))
                future.exception()
        for operation in self._operations.values():
            if operation.shown is not None:
                operation.shown.cancel()
            operation.watch.end(error)

    # --- what APEX does not have ---------------------------------------------------------------------------------

    async def contacts(self) -> Sequence[Contact]:
        """See ``PresenceClient.contacts``."""
        raise NotPossible(_NO_LIST)

    async def requests(self) -> Sequence[Contact]:
        """See ``PresenceClient.requests``."""
        raise NotPossible(_NO_ASKING)

    async def put_contact(self, address: Address, name: str = "", groups: Sequence[str] = ()) -> Response:
        """See ``PresenceClient.put_contact``."""
        raise NotPossible(_NO_LIST)

    async def remove_contact(self, address: Address) -> Response:
        """See ``PresenceClient.remove_contact``."""
        raise NotPossible(_NO_LIST)

    async def ask(self, address: Address, text: str = "") -> Response:
        """See ``PresenceClient.ask``."""
        raise NotPossible("By APEX one asks by watching: comity watch.")

    async def allow(self, address: Address) -> Response:
        """See ``PresenceClient.allow``."""
        raise NotPossible(_NO_ASKING)

    async def refuse(self, address: Address) -> Response:
        """See ``PresenceClient.refuse``."""
        raise NotPossible(_NO_ASKING)

    async def block(self, address: Address) -> Response:
        """See ``PresenceClient.block``."""
        raise NotPossible(_NO_ASKING)

    async def unblock(self, address: Address) -> Response:
        """See ``PresenceClient.unblock``."""
        raise NotPossible(_NO_ASKING)

    async def blocked(self) -> Sequence[Address]:
        """See ``PresenceClient.blocked``."""
        raise NotPossible(_NO_ASKING)


def _is_of(one: Tuple, endpoint: Endpoint) -> bool:
    """Compared as endpoints, not as they are spelled (RFC 3340 section 2.2.1)."""
    try:
        return Endpoint.of_uri(one.destination) == endpoint
    except AddressError:
        return False


def _notes(note: str) -> tuple[Note, ...]:
    return (Note(note),) if note else ()


def _info(availability: Availability, note: str) -> str:
    """The tupleInfo of our own that says what APEX has no words for (T9)."""
    has_show = availability not in (Availability.AVAILABLE, Availability.OFFLINE, Availability.UNKNOWN)
    said = [("show", availability.value)] if has_show else []
    said += [("note", note)] if note else []
    return f"{STATE_INFO}?={urlencode(said, quote_via=quote)}" if said else ""


def _object(who: Address, presence: Presence, now: datetime) -> MimeObject | None:
    """A document of an entry; what other devices say is read like an application's own. None: it cannot be made."""
    tuples = []
    for one in presence.tuples:
        head, mark, said = one.tuple_info.partition("?=")
        is_state = head.startswith(f"{STATE_INFO}:")
        tuples.append(replace(one, tuple_info=f"{STATE_INFO}?={said}" if mark else "") if is_state else one)
    entry = Entry(read_last_update(presence) or now, presence.publisher_info, tuple(tuples))
    try:
        return MimeObject.of(PIDF_TYPE, entry_to_document(who.with_scheme("im"), entry, now).raw)
    except (MalformedMessage, LocalProtocolError):
        return None
