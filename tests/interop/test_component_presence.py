"""Presence between Comity as a component and the people of its host, Prosody or ejabberd, with approval, both ways (mode 2; GW-13 to GW-15)."""

from __future__ import annotations

import pytest

from tests.interop.test_component_hosts import ALICE, JULIET, Pair, pair
from tests.interop.test_s2s_presence import OWNERS, VIAS, Two
from tests.paths.kit import Via
from tests.paths.test_presence_abroad import run

__all__ = ["pair"]  # a fixture is found by its name here


@pytest.fixture
def two(pair: Pair) -> Two:  # pytest's way to ask for a fixture
    return Two(pair.comity, pair.host, ALICE, JULIET)


@pytest.mark.parametrize("via", VIAS)
def test_people_behind_the_component_see_those_of_the_host(two: Two, via: Via) -> None:
    run(two.ours_see_theirs(via))


@pytest.mark.parametrize("via", OWNERS)
def test_people_of_the_host_see_those_behind_the_component(two: Two, via: Via) -> None:
    run(two.theirs_see_ours(via))
