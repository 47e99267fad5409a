"""TransIDs that lead back to a message by its fingerprint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.apex.own_ids import fingerprints_of, own_trans_id


@given(st.binary(min_size=32, max_size=32))
def test_every_fingerprint_is_found_again_by_its_trans_id(digest: bytes) -> None:
    """APEX-21: transIDs are 1 to 2147483647."""
    trans_id = own_trans_id(digest.hex())
    assert 1 <= trans_id <= 2**31 - 1
    assert digest.hex()[:8] in fingerprints_of(trans_id)


@pytest.mark.parametrize("beginning", ["00000000", "80000000", "7fffffff", "ffffffff"])
def test_fingerprints_at_the_edges_are_found_too(beginning: str) -> None:
    assert beginning in fingerprints_of(own_trans_id(beginning + "0" * 56))
