"""transaction.py: every row of the two tables (RFC 3261 figures 6 and 8)."""

from __future__ import annotations

import pytest

from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.transaction import (
    CLIENT_TABLE,
    SERVER_TABLE,
    ClientInput,
    ClientTransaction,
    ServerInput,
    ServerTransaction,
    State,
    server_key,
)

LIVE = [State.TRYING, State.PROCEEDING, State.COMPLETED]


@pytest.mark.parametrize(("row", "outcome"), CLIENT_TABLE.items(), ids=str)
def test_client_row(row: tuple[State, ClientInput], outcome: tuple[State, object]) -> None:
    transaction = ClientTransaction("b", "MESSAGE", b"", ("h", 1), 0.5, state=row[0])
    assert transaction.advance(row[1]) is outcome[1]
    assert transaction.state is outcome[0]


@pytest.mark.parametrize(("row", "outcome"), SERVER_TABLE.items(), ids=str)
def test_server_row(row: tuple[State, ServerInput], outcome: tuple[State, object]) -> None:
    transaction = ServerTransaction(1, (), None, None, ("h", 1), 100, state=row[0])
    assert transaction.advance(row[1]) is outcome[1]
    assert transaction.state is outcome[0]


def test_tables_hold_every_pair_that_can_happen() -> None:
    impossible = {(state, ClientInput.TIMER_K) for state in (State.TRYING, State.PROCEEDING)}
    assert set(CLIENT_TABLE) == {(s, i) for s in LIVE for i in ClientInput} - impossible
    unset = {(state, ServerInput.TIMER_J) for state in (State.TRYING, State.PROCEEDING)}
    assert set(SERVER_TABLE) == {(s, i) for s in LIVE for i in ServerInput} - unset


def test_requests_match_by_branch_sent_by_method_and_flow_or_by_rfc2543_fields() -> None:
    def request(via: str, call_id: str = "c", method: str = "MESSAGE") -> SipRequest:
        headers = [("Via", via), ("From", "<sip:a@a>;tag=1"), ("To", "<sip:b@b>"), ("Call-ID", call_id)]
        return SipRequest(method, "sip:b@b", [*headers, ("CSeq", f"1 {method}")])

    new = request("SIP/2.0/UDP h:5060;branch=z9hG4bKx")
    assert server_key(new, ("s", 1)) == server_key(request("SIP/2.0/UDP h:5060;branch=z9hG4bKx;rport", "d"), ("s", 1))
    assert server_key(new, ("s", 1)) != server_key(new, ("s", 2))
    assert server_key(new, None) != server_key(request("SIP/2.0/UDP h;branch=z9hG4bKx"), None)
    assert server_key(new, None) != server_key(request("SIP/2.0/UDP h:5060;branch=z9hG4bKx", method="OPTIONS"), None)
    old = request("SIP/2.0/UDP h")
    assert server_key(old, None) == server_key(request("SIP/2.0/UDP h"), None)
    assert server_key(old, None) != server_key(request("SIP/2.0/UDP h", "d"), None)
