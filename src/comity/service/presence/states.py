"""Subscription states of two people, as pure tables: RFC 6121 appendix A, with the pre-approvals of section 3.4.

Place on the path: step 5 of everything that changes who may see whom. ``pairs.py`` asks here what each of the four acts does
to the half that one account keeps, and does nothing to ``asks``, ``sees`` and ``decision`` beside it. As in the RFC all is
said from the account's side: its outbound acts are its own, its inbound ones those of the contact.

A contact that is blocked politely is in state "From" here: it was told "subscribed", and only what it is shown differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class State(Enum):
    """The nine states of appendix A.1."""

    NONE = "None"
    NONE_OUT = "None + Pending Out"
    NONE_IN = "None + Pending In"
    NONE_OUT_IN = "None + Pending Out+In"
    TO = "To"
    TO_IN = "To + Pending In"
    FROM = "From"
    FROM_OUT = "From + Pending Out"
    BOTH = "Both"

    @classmethod
    def of(cls, *, asks: bool, sees: bool, is_asked: bool, is_granted: bool) -> State:
        """The state that these four facts make; an answer outweighs the question it answers."""
        outbound = _OUT.SEES if sees else _OUT.ASKS if asks else _OUT.NOTHING
        inbound = _IN.GRANTED if is_granted else _IN.ASKED if is_asked else _IN.NOTHING
        return _STATES[outbound, inbound]

    @property
    def asks(self) -> bool:
        """The account waits for the contact's answer."""
        return _PARTS[self][0] is _OUT.ASKS

    @property
    def sees(self) -> bool:
        """The contact granted what the account asked."""
        return _PARTS[self][0] is _OUT.SEES

    @property
    def is_asked(self) -> bool:
        """The contact waits for the account's answer."""
        return _PARTS[self][1] is _IN.ASKED

    @property
    def is_granted(self) -> bool:
        """The account granted what the contact asked."""
        return _PARTS[self][1] is _IN.GRANTED


class _OUT(Enum):
    NOTHING = 0
    ASKS = 1
    SEES = 2


class _IN(Enum):
    NOTHING = 0
    ASKED = 1
    GRANTED = 2


_PARTS: Final = {
    State.NONE: (_OUT.NOTHING, _IN.NOTHING),
    State.NONE_OUT: (_OUT.ASKS, _IN.NOTHING),
    State.NONE_IN: (_OUT.NOTHING, _IN.ASKED),
    State.NONE_OUT_IN: (_OUT.ASKS, _IN.ASKED),
    State.TO: (_OUT.SEES, _IN.NOTHING),
    State.TO_IN: (_OUT.SEES, _IN.ASKED),
    State.FROM: (_OUT.NOTHING, _IN.GRANTED),
    State.FROM_OUT: (_OUT.ASKS, _IN.GRANTED),
    State.BOTH: (_OUT.SEES, _IN.GRANTED),
}
_STATES: Final = {parts: state for state, parts in _PARTS.items()}


class Act(Enum):
    """The four acts, by the names XMPP gives them."""

    SUBSCRIBE = "subscribe"
    """Asks to see the other."""
    UNSUBSCRIBE = "unsubscribe"
    """No longer wants to."""
    SUBSCRIBED = "subscribed"
    """Lets the other see it."""
    UNSUBSCRIBED = "unsubscribed"
    """Refuses that, or takes it back."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an act comes to on one account's side."""

    state: State
    is_approved: bool
    """Whether a request of the contact is approved before it comes (section 3.4)."""
    goes_on: bool
    """Outbound: it is routed to the contact. Inbound: it is put to the account's devices."""
    reply: Act | None = None
    """What the server answers for the account (inbound only)."""


_S = State
#: Table 2 to 5: (is it routed?, new state), None for "no state change".
OUTBOUND: Final[dict[Act, dict[State, tuple[bool, State | None]]]] = {
    Act.SUBSCRIBE: {
        _S.NONE: (True, _S.NONE_OUT),
        _S.NONE_OUT: (True, None),
        _S.NONE_IN: (True, _S.NONE_OUT_IN),
        _S.NONE_OUT_IN: (True, None),
        _S.TO: (True, None),
        _S.TO_IN: (True, None),
        _S.FROM: (True, _S.FROM_OUT),
        _S.FROM_OUT: (True, None),
        _S.BOTH: (True, None),
    },
    Act.UNSUBSCRIBE: {
        _S.NONE: (True, None),
        _S.NONE_OUT: (True, _S.NONE),
        _S.NONE_IN: (True, None),
        _S.NONE_OUT_IN: (True, _S.NONE_IN),
        _S.TO: (True, _S.NONE),
        _S.TO_IN: (True, _S.NONE_IN),
        _S.FROM: (True, None),
        _S.FROM_OUT: (True, _S.FROM),
        _S.BOTH: (True, _S.FROM),
    },
    # Where it is not routed and the contact has no subscription, it is a pre-approval.
    Act.SUBSCRIBED: {
        _S.NONE: (False, None),
        _S.NONE_OUT: (False, None),
        _S.NONE_IN: (True, _S.FROM),
        _S.NONE_OUT_IN: (True, _S.FROM_OUT),
        _S.TO: (False, None),
        _S.TO_IN: (True, _S.BOTH),
        _S.FROM: (False, None),
        _S.FROM_OUT: (False, None),
        _S.BOTH: (False, None),
    },
    Act.UNSUBSCRIBED: {
        _S.NONE: (False, None),
        _S.NONE_OUT: (False, None),
        _S.NONE_IN: (True, _S.NONE),
        _S.NONE_OUT_IN: (True, _S.NONE_OUT),
        _S.TO: (False, None),
        _S.TO_IN: (True, _S.TO),
        _S.FROM: (True, _S.NONE),
        _S.FROM_OUT: (True, _S.NONE_OUT),
        _S.BOTH: (True, _S.TO),
    },
}

#: Table 6 to 9: (is it delivered?, new state), None for "no state change".
INBOUND: Final[dict[Act, dict[State, tuple[bool, State | None]]]] = {
    Act.SUBSCRIBE: {
        _S.NONE: (True, _S.NONE_IN),
        _S.NONE_OUT: (True, _S.NONE_OUT_IN),
        _S.NONE_IN: (False, None),
        _S.NONE_OUT_IN: (False, None),
        _S.TO: (True, _S.TO_IN),
        _S.TO_IN: (False, None),
        _S.FROM: (False, None),
        _S.FROM_OUT: (False, None),
        _S.BOTH: (False, None),
    },
    Act.UNSUBSCRIBE: {
        _S.NONE: (False, None),
        _S.NONE_OUT: (False, None),
        _S.NONE_IN: (True, _S.NONE),
        _S.NONE_OUT_IN: (True, _S.NONE_OUT),
        _S.TO: (False, None),
        _S.TO_IN: (True, _S.TO),
        _S.FROM: (True, _S.NONE),
        _S.FROM_OUT: (True, _S.NONE_OUT),
        _S.BOTH: (True, _S.TO),
    },
    Act.SUBSCRIBED: {
        _S.NONE: (False, None),
        _S.NONE_OUT: (True, _S.TO),
        _S.NONE_IN: (False, None),
        _S.NONE_OUT_IN: (True, _S.TO_IN),
        _S.TO: (False, None),
        _S.TO_IN: (False, None),
        _S.FROM: (False, None),
        _S.FROM_OUT: (True, _S.BOTH),
        _S.BOTH: (False, None),
    },
    Act.UNSUBSCRIBED: {
        _S.NONE: (False, None),
        _S.NONE_OUT: (True, _S.NONE),
        _S.NONE_IN: (False, None),
        _S.NONE_OUT_IN: (True, _S.NONE_IN),
        _S.TO: (True, _S.NONE),
        _S.TO_IN: (True, _S.NONE_IN),
        _S.FROM: (False, None),
        _S.FROM_OUT: (True, _S.FROM),
        _S.BOTH: (True, _S.FROM),
    },
}


def outbound(act: Act, state: State, is_approved: bool = False) -> Step:
    """What the account's own act does to its half."""
    is_routed, new = OUTBOUND[act][state]
    if act is Act.SUBSCRIBED and not is_routed and not state.is_granted:
        is_approved = True  # section 3.4.2, cases 3 and 4
    elif act is Act.UNSUBSCRIBED:
        is_approved = False  # section 3.4.2: "until and unless the user sends unsubscribed"
    return Step(new or state, is_approved, is_routed)


def inbound(act: Act, state: State, is_approved: bool = False) -> Step:
    """What the contact's act does to the account's half."""
    is_delivered, new = INBOUND[act][state]
    if act is Act.SUBSCRIBE:
        if state.is_granted:
            return Step(state, is_approved, False, Act.SUBSCRIBED)  # table 6, note 2
        if is_approved:
            granted = State.of(asks=state.asks, sees=state.sees, is_asked=False, is_granted=True)
            return Step(granted, True, False, Act.SUBSCRIBED)  # table 6, note 1; section 3.4.2
    reply = Act.UNSUBSCRIBED if act is Act.UNSUBSCRIBE and new is not None else None  # table 7, note 1
    return Step(new or state, is_approved, is_delivered, reply)
