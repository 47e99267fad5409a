"""TransIDs of ours: random ones, and those that lead back to a message by its fingerprint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.apex.config import ApexConfig
from comity.bindings.apex.ground import Ground
from comity.bindings.apex.own_ids import fingerprints_of, own_trans_id


@given(st.binary(min_size=4, max_size=4))
def test_new_ones_are_random_and_never_0(octets: bytes) -> None:
    """APEX-21: RFC 3340 sections 6.1.1 and 9.1; 31 bits of what the system's generator gives."""
    trans_id = Ground(ApexConfig(("a.test",)), lambda count: octets[:count]).new_trans_id()
    assert 1 <= trans_id <= 2**31 - 1
    assert (trans_id - 1 - int.from_bytes(octets, "big")) % (2**31 - 1) == 0


@given(st.binary(min_size=32, max_size=32))
def test_every_fingerprint_is_found_again_by_its_trans_id(digest: bytes) -> None:
    """APEX-21: transIDs are 1 to 2147483647."""
    trans_id = own_trans_id(digest.hex())
    assert 1 <= trans_id <= 2**31 - 1
    assert digest.hex()[:8] in fingerprints_of(trans_id)


@pytest.mark.parametrize("beginning", ["00000000", "80000000", "7fffffff", "ffffffff"])
def test_fingerprints_at_the_edges_are_found_too(beginning: str) -> None:
    assert beginning in fingerprints_of(own_trans_id(beginning + "0" * 56))
