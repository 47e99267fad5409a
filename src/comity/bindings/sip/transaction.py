"""Non-INVITE transactions by the figures of RFC 3261: client (figure 6) and server (figure 8).

Place on the path: inside step 3. The machines are data: ``CLIENT_TABLE`` and ``SERVER_TABLE`` map (state, input) to
(state, action) in the order of the figures; ``session.py`` carries the actions out. Neither table knows a socket, a
clock or an octet. Input that a figure does not draw for a state is on its own row, with the sentence that decides it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush

from comity.bindings.sip.message import SipRequest, SipResponse

HostPort = tuple[str, int]


class State(Enum):
    """The states both figures share."""

    TRYING = "Trying"
    PROCEEDING = "Proceeding"
    COMPLETED = "Completed"
    TERMINATED = "Terminated"


class ClientInput(Enum):
    """What can happen to a client transaction."""

    PROVISIONAL = "1xx"
    FINAL = "200-699"
    TIMER_E = "Timer E"
    TIMER_F = "Timer F"
    TIMER_K = "Timer K"
    TRANSPORT_ERROR = "transport error"


class ClientAction(Enum):
    """What the session then does."""

    PASS = "response to TU"  # noqa: S105 - the figure's words, no password
    PASS_AND_WAIT = "response to TU, set timer K"  # noqa: S105 - as above
    RETRANSMIT_DOUBLED = "send request, timer E = MIN(2*E, T2)"
    RETRANSMIT_CAPPED = "send request, timer E = T2"
    TIME_OUT = "inform TU: timeout"
    FAIL = "inform TU: transport error"
    NOTHING = "-"


_C, _CI, _CA = State, ClientInput, ClientAction
CLIENT_TABLE: dict[tuple[State, ClientInput], tuple[State, ClientAction]] = {
    (_C.TRYING, _CI.TIMER_E): (_C.TRYING, _CA.RETRANSMIT_DOUBLED),
    (_C.TRYING, _CI.TIMER_F): (_C.TERMINATED, _CA.TIME_OUT),
    (_C.TRYING, _CI.TRANSPORT_ERROR): (_C.TERMINATED, _CA.FAIL),
    (_C.TRYING, _CI.PROVISIONAL): (_C.PROCEEDING, _CA.PASS),
    (_C.TRYING, _CI.FINAL): (_C.COMPLETED, _CA.PASS_AND_WAIT),
    (_C.PROCEEDING, _CI.TIMER_E): (_C.PROCEEDING, _CA.RETRANSMIT_CAPPED),
    (_C.PROCEEDING, _CI.TIMER_F): (_C.TERMINATED, _CA.TIME_OUT),
    (_C.PROCEEDING, _CI.TRANSPORT_ERROR): (_C.TERMINATED, _CA.FAIL),
    (_C.PROCEEDING, _CI.PROVISIONAL): (_C.PROCEEDING, _CA.PASS),
    (_C.PROCEEDING, _CI.FINAL): (_C.COMPLETED, _CA.PASS_AND_WAIT),
    (_C.COMPLETED, _CI.TIMER_K): (_C.TERMINATED, _CA.NOTHING),
    # "The Completed state exists to buffer any additional response retransmissions" (section 17.1.2.2).
    (_C.COMPLETED, _CI.PROVISIONAL): (_C.COMPLETED, _CA.NOTHING),
    (_C.COMPLETED, _CI.FINAL): (_C.COMPLETED, _CA.NOTHING),
    (_C.COMPLETED, _CI.TRANSPORT_ERROR): (_C.TERMINATED, _CA.NOTHING),
    # Timers E and F are not stopped by the figure; it draws no arrow for them here.
    (_C.COMPLETED, _CI.TIMER_E): (_C.COMPLETED, _CA.NOTHING),
    (_C.COMPLETED, _CI.TIMER_F): (_C.COMPLETED, _CA.NOTHING),
}


class ServerInput(Enum):
    """What can happen to a server transaction."""

    REQUEST = "request retransmission"
    PROVISIONAL = "1xx from TU"
    FINAL = "200-699 from TU"
    TIMER_J = "Timer J"
    TRANSPORT_ERROR = "transport error"


class ServerAction(Enum):
    """What the session then does."""

    SEND = "send response"
    SEND_AND_WAIT = "send response, set timer J"
    REPEAT = "send the last response again"
    INFORM = "inform TU"
    NOTHING = "-"


_S, _SI, _SA = State, ServerInput, ServerAction
SERVER_TABLE: dict[tuple[State, ServerInput], tuple[State, ServerAction]] = {
    # "Once in the Trying state, any further request retransmissions are discarded."
    (_S.TRYING, _SI.REQUEST): (_S.TRYING, _SA.NOTHING),
    (_S.TRYING, _SI.PROVISIONAL): (_S.PROCEEDING, _SA.SEND),
    (_S.TRYING, _SI.FINAL): (_S.COMPLETED, _SA.SEND_AND_WAIT),
    (_S.TRYING, _SI.TRANSPORT_ERROR): (_S.TERMINATED, _SA.INFORM),
    (_S.PROCEEDING, _SI.PROVISIONAL): (_S.PROCEEDING, _SA.SEND),
    (_S.PROCEEDING, _SI.REQUEST): (_S.PROCEEDING, _SA.REPEAT),
    (_S.PROCEEDING, _SI.FINAL): (_S.COMPLETED, _SA.SEND_AND_WAIT),
    (_S.PROCEEDING, _SI.TRANSPORT_ERROR): (_S.TERMINATED, _SA.INFORM),
    (_S.COMPLETED, _SI.REQUEST): (_S.COMPLETED, _SA.REPEAT),
    (_S.COMPLETED, _SI.TRANSPORT_ERROR): (_S.TERMINATED, _SA.INFORM),
    (_S.COMPLETED, _SI.TIMER_J): (_S.TERMINATED, _SA.NOTHING),
    # "Any other final responses passed by the TU … MUST be discarded while in the Completed state."
    (_S.COMPLETED, _SI.PROVISIONAL): (_S.COMPLETED, _SA.NOTHING),
    (_S.COMPLETED, _SI.FINAL): (_S.COMPLETED, _SA.NOTHING),
}


@dataclass(slots=True)
class ClientTransaction:
    """One request of ours on its way."""

    id: str
    """The branch: what a response is matched by (RFC 3261 section 17.1.3)."""
    method: str
    octets: bytes
    address: HostPort
    """Where the request goes; a response from elsewhere is forged (S-32, S-33)."""
    interval: float
    """Present value of timer E, seconds."""
    state: State = State.TRYING
    is_superseded: bool = False
    """What it says is no longer true: it is not sent again."""

    def advance(self, given: ClientInput) -> ClientAction:
        """Change state; the action is the caller's to carry out."""
        self.state, action = CLIENT_TABLE[self.state, given]
        return action


ServerKey = tuple[object, ...]


@dataclass(slots=True)
class ServerTransaction:
    """One request of a peer."""

    id: int
    key: ServerKey
    merge_key: tuple[str, str, str] | None
    request: SipRequest | None
    """Dropped with the final response: only its octets are repeated."""
    source: HostPort
    octets: int
    """Size of the request: the bound on the answer to an unproved address (S-28)."""
    response: bytes = b""
    state: State = State.TRYING

    def advance(self, given: ServerInput) -> ServerAction:
        """Change state; the action is the caller's to carry out."""
        self.state, action = SERVER_TABLE[self.state, given]
        return action


def server_key(request: SipRequest, source: HostPort | None) -> ServerKey:
    """What a retransmission is known by (RFC 3261 section 17.2.3), with the source flow (reliability.md 5.3)."""
    via = request.via
    if via.has_cookie:
        return (source, via.branch, via.host, via.port, request.method)
    return (
        source,
        request.uri_text,
        request.to.tag,
        request.from_.tag,
        request.call_id,
        str(request.cseq),
        request.vias[0],
    )


class ClientTransactions:
    """Requests of ours under way on one session, by branch."""

    def __init__(self) -> None:
        self._by_branch: dict[str, ClientTransaction] = {}
        self._asked: dict[HostPort, int] = {}

    def add(self, transaction: ClientTransaction) -> None:
        self._by_branch[transaction.id] = transaction
        self._asked[transaction.address] = self._asked.get(transaction.address, 0) + 1

    def match(self, response: SipResponse, sent_by: str, source: HostPort | None) -> ClientTransaction | str:
        """Whose response it is (RFC 3261 section 17.1.3), or why it is nobody's (S-32, S-33).

        ``source`` is where a datagram came from, None on a connection.
        """
        transaction = self._by_branch.get(response.via.branch)
        if len(response.vias) != 1:
            return "a response with more than one Via is not for us"  # RFC 3261 section 8.1.3.3
        if transaction is None or response.via.sent_by != sent_by.lower():
            return "a response to no request of ours"
        if response.cseq.method != transaction.method:
            return "a response to another method"
        if source is not None and source != transaction.address:
            return "a response from where the request did not go"
        return transaction

    def by_id(self, id: str) -> ClientTransaction | None:
        return self._by_branch.get(id)

    def is_asked(self, address: HostPort) -> bool:
        """True while a request of ours to ``address`` is not forgotten."""
        return address in self._asked

    def forget(self, transaction: ClientTransaction) -> None:
        if self._by_branch.pop(transaction.id, None) is None:
            return
        left = self._asked.pop(transaction.address, 1) - 1
        if left > 0:
            self._asked[transaction.address] = left

    def take_all(self) -> list[ClientTransaction]:
        """Every one, forgotten here."""
        every = list(self._by_branch.values())
        self._by_branch.clear()
        self._asked.clear()
        return every

    def __len__(self) -> int:
        return len(self._by_branch)


MergeKey = tuple[str, str, str]


class ServerTransactions:
    """Requests of peers on one session: by key for retransmissions, by id for answers, by merge key for RFC 3261 8.2.2.2."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_key: OrderedDict[ServerKey, ServerTransaction] = OrderedDict()
        self._by_id: dict[int, ServerTransaction] = {}
        self._merging: dict[MergeKey, ServerTransaction] = {}

    def add(self, transaction: ServerTransaction) -> None:
        self._by_key[transaction.key] = transaction
        self._by_id[transaction.id] = transaction
        if transaction.merge_key is not None:
            self._merging[transaction.merge_key] = transaction

    def by_key(self, key: ServerKey) -> ServerTransaction | None:
        return self._by_key.get(key)

    def by_id(self, id: int) -> ServerTransaction | None:
        return self._by_id.get(id)

    def is_merged(self, request: SipRequest) -> bool:
        """True if a request with this Call-ID, From tag and CSeq and another body is unanswered (S-36).

        One with the same body is a retry by another way (S-35), which goes up and is recognised there.
        """
        merged = self._merging.get((request.call_id, request.from_.tag, str(request.cseq)))
        if merged is None or merged.request is None or request.to.tag:
            return False
        return merged.request.body != request.body

    def forget(self, transaction: ServerTransaction) -> None:
        self._by_key.pop(transaction.key, None)
        self._by_id.pop(transaction.id, None)
        self.answered(transaction)

    def answered(self, transaction: ServerTransaction) -> None:
        """It has its final response: a copy by another way is no merged request any more."""
        if transaction.merge_key is not None and self._merging.get(transaction.merge_key) is transaction:
            del self._merging[transaction.merge_key]

    def has_room(self) -> bool:
        """True if one more may be kept; the oldest answered one makes room."""
        if len(self._by_key) < self._most:
            return True
        oldest = next(iter(self._by_key.values()))
        if oldest.state is not State.COMPLETED:
            return False
        oldest.advance(ServerInput.TIMER_J)
        self.forget(oldest)
        return True

    def take_all(self) -> Iterable[ServerTransaction]:
        """Every one, forgotten here."""
        every = list(self._by_key.values())
        self._by_key.clear()
        self._by_id.clear()
        self._merging.clear()
        return every

    def __len__(self) -> int:
        return len(self._by_key)


class Timers:
    """What the transactions of one session wait for, earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str, ClientTransaction | ServerTransaction]] = []
        self._count = 0

    def arm(self, when: float, name: str, transaction: ClientTransaction | ServerTransaction) -> None:
        """Set timer ``name`` (a letter of RFC 3261 table 4)."""
        self._count += 1
        heappush(self._heap, (when, self._count, name, transaction))

    @property
    def first(self) -> float | None:
        """When the next one fires; those of ended transactions are dropped."""
        while self._heap and self._heap[0][3].state is State.TERMINATED:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[tuple[str, ClientTransaction | ServerTransaction]]:
        """(name, transaction) of each that fires by ``now``."""
        while self._heap and self._heap[0][0] <= now:
            _, _, name, transaction = heappop(self._heap)
            # E and F do nothing any more once there is an answer.
            if transaction.state is State.TERMINATED or (transaction.state is State.COMPLETED and name in "EF"):
                continue
            yield name, transaction

    def clear(self) -> None:
        """Forget all."""
        self._heap.clear()
