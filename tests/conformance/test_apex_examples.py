"""Every example exchange of RFC 3340 to 3343: none is missing, and the independent peer reads what it says (APEX-1 to APEX-25)."""

from __future__ import annotations

from collections import Counter

from tests.conformance.exchanges import exchanges
from tests.interop.apex_peer import Data, read_data
from tests.interop.apex_peer_beep import Message

#: Exchanges in the text of each RFC, counted by hand: figures with "C:" and "S:", frames of the sections on MIME, `start` elements.
PRINTED = {"3340": 29, "3341": 13, "3342": 15, "3343": 15}


def test_every_printed_exchange_is_here() -> None:
    counted = Counter(steps[0].name.partition(" ")[0] for steps in exchanges())
    assert counted == PRINTED
    for steps in exchanges():
        assert [step.asks for step in steps] in ([True], [True, False]), steps


def test_the_independent_peer_reads_them_all() -> None:
    """A second reader, so that a misprint of ours in the files would show."""
    tags = Counter[str]()
    for steps in exchanges():
        for step in steps:
            if not step.is_well_formed or step.text.startswith("<start"):
                continue
            got = read_data(Message("MSG", 1, 1, step.payload))
            if isinstance(got, Data):
                assert got.originator
                assert got.recipients
                is_bare = not step.is_frame and got.element.get("content", "").startswith("cid:")
                assert is_bare or got.inline is not None or got.headers, step.name
            tags[got.element.tag if isinstance(got, Data) else got.tag] += 1
    assert tags == {"ok": 59, "data": 53, "attach": 7, "terminate": 5, "bind": 4, "error": 4}
