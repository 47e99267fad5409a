"""What a ``SipSession`` is made with; ``binding.py`` and ``comity.client`` fill it (step 3 of the path)."""

from __future__ import annotations

from dataclasses import dataclass, field

from comity.bindings.sip.wire import Limits


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session needs to know beforehand; durations in seconds."""

    methods: frozenset[str] = frozenset({"MESSAGE", "OPTIONS"})
    """Methods handed up; every other one is refused."""
    asked: frozenset[str] = frozenset()
    """Methods handed up although they are not done: who sends them is looked at first, as RFC 3261 section 8.2 has it ("Once
    a request is authenticated … the UAS MUST inspect the method"). What is asked in another's name is refused as that."""
    schemes: frozenset[str] = frozenset({"sip", "sips", "im", "pres"})
    """Request-URI schemes handed up; every other one is answered 416."""
    extensions: frozenset[str] = frozenset()
    """Option tags that may stand in Require."""
    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0
    limits: Limits = field(default_factory=Limits)
    most_transactions: int = 60_000
    unproved_requests: int = 30
    """Requests per /24 or /64 and ``unproved_window`` from addresses not proved (anchor: Kamailio pike)."""
    unproved_window: float = 2.0
    proof_lifetime: float = 3600.0
