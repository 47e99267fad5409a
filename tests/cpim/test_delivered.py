"""In which form a message was delivered, in words: ``cpim/delivered.py`` (issue 7, part 7; SEC-29)."""

from __future__ import annotations

import pytest

from comity.cpim.delivered import OBJECT, PASSED_ON, READABLE, TEXT, checked, in_words, read_words


@pytest.mark.parametrize(("form", "at"), [(OBJECT, ""), (TEXT, "gw.example"), (READABLE, "[::1]"), (PASSED_ON, "")])
def test_the_words_are_read_as_they_were_written(form: str, at: str) -> None:
    assert read_words(in_words(form, at)) == (form, at)


def test_the_sentences_are_those_of_the_issue() -> None:
    assert in_words(OBJECT, "") == "object whole"
    assert in_words(READABLE, "gw.example") == "text only: protection ends at gw.example"
    assert in_words("", "") == ""


@pytest.mark.parametrize("text", ["", "delivered", "object whole, they say", "text only"])
def test_any_other_text_says_nothing(text: str) -> None:
    assert read_words(text) == ("", "")


@pytest.mark.parametrize("node", ["a b", "a\nb", "<b>", "x" * 300, "-a", "im:a@b"])
def test_a_node_that_is_none_is_left_out(node: str) -> None:
    """G-14: what another server says goes to a person's screen."""
    assert checked(READABLE, node) == (READABLE, "")
    assert checked("whatever", "gw.example") == ("", "")
