"""Writes a revocation down and forgets whoever is watching at that moment (breaks I9)."""

from __future__ import annotations

from comity.cli import main
from comity.cpim.address import Address
from comity.service.presence.service import AccountPresence


def nobody_watches(self: AccountPresence, account: Address, watcher: Address | None = None) -> None:
    return None


if __name__ == "__main__":
    AccountPresence.reconsider = nobody_watches  # type: ignore[method-assign]  # the sabotage
    main(prog_name="comity")
