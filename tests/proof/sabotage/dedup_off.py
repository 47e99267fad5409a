"""Recognises no repeat: what is sent again becomes a second message (breaks I6)."""

from __future__ import annotations

from comity.cli import main
from comity.service.interfaces import Record
from comity.store.group import Group


def nobody_holds_it(self: Group, record: Record) -> None:
    return None


if __name__ == "__main__":
    Group._holder = nobody_holds_it  # type: ignore[method-assign]  # the sabotage
    main(prog_name="comity")
