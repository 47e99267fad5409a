"""service/presence/states.py against the text of RFC 6121 appendix A, cell by cell, and section 3.4 (XMPP-11, XMPP-12)."""

from __future__ import annotations

import re

import pytest

from comity.service.presence.states import INBOUND, OUTBOUND, Act, State, inbound, outbound

#: Tables 2 to 9 as they stand in the RFC.
OUTBOUND_TEXT = {
    Act.SUBSCRIBE: """
   |  "None"                  |  MUST [1] |  "None + Pending Out"     |
   |  "None + Pending Out"    |  MUST     |  no state change          |
   |  "None + Pending In"     |  MUST [1] |  "None + Pending Out+In"  |
   |  "None + Pending Out+In" |  MUST     |  no state change          |
   |  "To"                    |  MUST     |  no state change          |
   |  "To + Pending In"       |  MUST     |  no state change          |
   |  "From"                  |  MUST [1] |  "From + Pending Out"     |
   |  "From + Pending Out"    |  MUST     |  no state change          |
   |  "Both"                  |  MUST     |  no state change          |
""",
    Act.UNSUBSCRIBE: """
   |  "None"                  |  MUST    |  no state change          |
   |  "None + Pending Out"    |  MUST    |  "None"                   |
   |  "None + Pending In"     |  MUST    |  no state change          |
   |  "None + Pending Out+In" |  MUST    |  "None + Pending In"      |
   |  "To"                    |  MUST    |  "None"                   |
   |  "To + Pending In"       |  MUST    |  "None + Pending In"      |
   |  "From"                  |  MUST    |  no state change          |
   |  "From + Pending Out"    |  MUST    |  "From"                   |
   |  "Both"                  |  MUST    |  "From"                   |
""",
    Act.SUBSCRIBED: """
   |  "None"                  |  M.N.    |  pre-approval [1]         |
   |  "None + Pending Out"    |  M.N.    |  pre-approval [1]         |
   |  "None + Pending In"     |  MUST    |  "From"                   |
   |  "None + Pending Out+In" |  MUST    |  "From + Pending Out"     |
   |  "To"                    |  M.N.    |  pre-approval [1]         |
   |  "To + Pending In"       |  MUST    |  "Both"                   |
   |  "From"                  |  M.N.    |  no state change          |
   |  "From + Pending Out"    |  M.N.    |  no state change          |
   |  "Both"                  |  M.N.    |  no state change          |
""",
    Act.UNSUBSCRIBED: """
   |  "None"                  |  S.N.    |  no state change [1]      |
   |  "None + Pending Out"    |  S.N.    |  no state change [1]      |
   |  "None + Pending In"     |  MUST    |  "None"                   |
   |  "None + Pending Out+In" |  MUST    |  "None + Pending Out"     |
   |  "To"                    |  S.N.    |  no state change [1]      |
   |  "To + Pending In"       |  MUST    |  "To"                     |
   |  "From"                  |  MUST    |  "None"                   |
   |  "From + Pending Out"    |  MUST    |  "None + Pending Out"     |
   |  "Both"                  |  MUST    |  "To"                     |
""",
}
INBOUND_TEXT = {
    Act.SUBSCRIBE: """
   |  "None"                  |  MUST [1]  |  "None + Pending In"     |
   |  "None + Pending Out"    |  MUST      |  "None + Pending Out+In" |
   |  "None + Pending In"     |  S.N.      |  no state change         |
   |  "None + Pending Out+In" |  S.N.      |  no state change         |
   |  "To"                    |  MUST      |  "To + Pending In"       |
   |  "To + Pending In"       |  S.N.      |  no state change         |
   |  "From"                  |  S.N. [2]  |  no state change         |
   |  "From + Pending Out"    |  S.N. [2]  |  no state change         |
   |  "Both"                  |  S.N. [2]  |  no state change         |
""",
    Act.UNSUBSCRIBE: """
   |  "None"                  |  S.N.      |  no state change         |
   |  "None + Pending Out"    |  S.N.      |  no state change         |
   |  "None + Pending In"     |  MUST [1]  |  "None"                  |
   |  "None + Pending Out+In" |  MUST [1]  |  "None + Pending Out"    |
   |  "To"                    |  S.N.      |  no state change         |
   |  "To + Pending In"       |  MUST [1]  |  "To"                    |
   |  "From"                  |  MUST [1]  |  "None"                  |
   |  "From + Pending Out"    |  MUST [1]  |  "None + Pending Out"    |
   |  "Both"                  |  MUST [1]  |  "To"                    |
""",
    Act.SUBSCRIBED: """
   |  "None"                  |  S.N.      |  no state change         |
   |  "None + Pending Out"    |  MUST      |  "To"                    |
   |  "None + Pending In"     |  S.N.      |  no state change         |
   |  "None + Pending Out+In" |  MUST      |  "To + Pending In"       |
   |  "To"                    |  S.N.      |  no state change         |
   |  "To + Pending In"       |  S.N.      |  no state change         |
   |  "From"                  |  S.N.      |  no state change         |
   |  "From + Pending Out"    |  MUST      |  "Both"                  |
   |  "Both"                  |  S.N.      |  no state change         |
""",
    Act.UNSUBSCRIBED: """
   |  "None"                  |  S.N.      |  no state change         |
   |  "None + Pending Out"    |  MUST      |  "None"                  |
   |  "None + Pending In"     |  S.N.      |  no state change         |
   |  "None + Pending Out+In" |  MUST      |  "None + Pending In"     |
   |  "To"                    |  MUST      |  "None"                  |
   |  "To + Pending In"       |  MUST      |  "None + Pending In"     |
   |  "From"                  |  S.N.      |  no state change         |
   |  "From + Pending Out"    |  MUST      |  "From"                  |
   |  "Both"                  |  MUST      |  "From"                  |
""",
}
_ROW = re.compile(
    r'\|\s+"([^"]+)"\s+\|\s+(MUST|S\.N\.|M\.N\.)( \[\d\])?\s+\|\s+(?:"([^"]+)"|(no state change|pre-approval))'
)

Cell = tuple[Act, State, bool, str, State | None, bool]


def cells(texts: dict[Act, str]) -> list[Cell]:
    """(act, state, goes on, note, new state or None, pre-approval) of each row."""
    found: list[Cell] = []
    for act, text in texts.items():
        rows = _ROW.findall(text)
        assert len(rows) == len(State) == 9
        for state, must, note, new, words in rows:
            to = State(new) if new else None
            found.append((act, State(state), must == "MUST", note.strip(), to, words == "pre-approval"))
    return found


def name(cell: Cell) -> str:
    return f"{cell[0].value}-{cell[1].name}"


@pytest.mark.parametrize("cell", cells(OUTBOUND_TEXT), ids=name)
def test_outbound_acts_are_as_appendix_a_2_says(cell: Cell) -> None:
    """Tables 2 to 5: routed or not, the new state, and where an approval is kept for later."""
    act, state, is_routed, _, new, is_preapproval = cell
    step = outbound(act, state)
    assert (step.goes_on, step.state, step.is_approved) == (is_routed, new or state, is_preapproval)
    assert step.reply is None


@pytest.mark.parametrize("cell", cells(INBOUND_TEXT), ids=name)
def test_inbound_acts_are_as_appendix_a_3_says(cell: Cell) -> None:
    """Tables 6 to 9: delivered or not, the new state, and the answers of their notes."""
    act, state, is_delivered, note, new, _ = cell
    step = inbound(act, state)
    assert (step.goes_on, step.state, step.is_approved) == (is_delivered, new or state, False)
    replies = {(Act.SUBSCRIBE, "[2]"): Act.SUBSCRIBED, (Act.UNSUBSCRIBE, "[1]"): Act.UNSUBSCRIBED}
    assert step.reply is replies.get((act, note))


def test_the_tables_have_every_cell() -> None:
    assert all(set(table) == set(State) for tables in (OUTBOUND, INBOUND) for table in tables.values())
    assert set(OUTBOUND) == set(INBOUND) == set(Act)


@pytest.mark.parametrize("state", State)
def test_a_state_is_made_of_its_four_facts(state: State) -> None:
    """Appendix A.1; nobody asks for what it has."""
    facts = (state.asks, state.sees, state.is_asked, state.is_granted)
    assert State.of(asks=facts[0], sees=facts[1], is_asked=facts[2], is_granted=facts[3]) is state
    assert not (state.asks and state.sees)
    assert not (state.is_asked and state.is_granted)


class TestPreApproval:
    """RFC 6121 section 3.4."""

    @pytest.mark.parametrize(
        ("state", "new"), [(State.NONE, State.FROM), (State.NONE_OUT, State.FROM_OUT), (State.TO, State.BOTH)]
    )
    def test_a_request_that_was_approved_before_is_answered_and_not_delivered(self, state: State, new: State) -> None:
        """Section 3.4.2: MUST NOT deliver, MUST automatically respond; the record of it stays."""
        step = inbound(Act.SUBSCRIBE, state, is_approved=True)
        assert (step.state, step.goes_on, step.reply, step.is_approved) == (new, False, Act.SUBSCRIBED, True)

    @pytest.mark.parametrize("state", State)
    def test_only_unsubscribed_takes_it_back(self, state: State) -> None:
        """Section 3.4.2: "until and unless the user sends a presence stanza of type unsubscribed"."""
        assert not outbound(Act.UNSUBSCRIBED, state, is_approved=True).is_approved
        for act in (Act.SUBSCRIBE, Act.UNSUBSCRIBE, Act.SUBSCRIBED):
            assert outbound(act, state, is_approved=True).is_approved
        for act in Act:
            assert inbound(act, state, is_approved=True).is_approved

    @pytest.mark.parametrize("state", [State.NONE, State.NONE_OUT, State.TO])
    def test_taking_it_back_is_told_to_nobody(self, state: State) -> None:
        """Section 3.2.2 case 2: MUST NOT route or deliver."""
        step = outbound(Act.UNSUBSCRIBED, state, is_approved=True)
        assert (step.state, step.goes_on, step.is_approved) == (state, False, False)
