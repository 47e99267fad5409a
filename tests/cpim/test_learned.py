"""What a destination was found not to take: ``cpim/learned.py`` (issue 7, part 7)."""

from __future__ import annotations

import pytest

from comity.cpim.learned import LIFE, MOST, MOST_TYPES, Learned

NOW = 1000.0


def test_what_was_refused_is_not_tried_again_and_nothing_else_is_kept_back() -> None:
    learned = Learned()
    learned.refused("phone", "multipart/signed", NOW)
    assert learned.refuses("phone", "multipart/signed", NOW + LIFE - 1)
    assert not learned.refuses("phone", "message/cpim", NOW)
    assert not learned.refuses("another", "multipart/signed", NOW)


def test_it_is_forgotten_after_its_life() -> None:
    learned = Learned()
    learned.refused("phone", "message/cpim", NOW)
    assert not learned.refuses("phone", "message/cpim", NOW + LIFE)
    assert len(learned) == 0


@pytest.mark.parametrize(
    ("accepts", "refused"),
    [
        (["text/plain"], {"message/cpim", "image/png", "multipart/signed"}),
        (["text/*; q=0.5", "image/*"], {"message/cpim", "multipart/signed"}),
        (["*/*"], {"multipart/signed"}),
        ([], {"multipart/signed"}),
    ],
)
def test_its_accept_speaks_of_every_type(accepts: list[str], refused: set[str]) -> None:
    """RFC 3261 sections 20.1 and 21.4.13."""
    learned = Learned()
    learned.refused("phone", "multipart/signed", NOW, accepts)
    types = {"message/cpim", "image/png", "multipart/signed"}
    assert {each for each in types if learned.refuses("phone", each, NOW)} == refused


def test_its_memory_is_bounded() -> None:
    learned = Learned()
    for n in range(MOST + 10):
        learned.refused(n, "message/cpim", NOW)
    assert len(learned) == MOST
    assert not learned.refuses(0, "message/cpim", NOW)
    for n in range(10 * MOST_TYPES):
        learned.refused("one", f"a/{n}", NOW)
    assert sum(learned.refuses("one", f"a/{n}", NOW) for n in range(10 * MOST_TYPES)) <= MOST_TYPES
