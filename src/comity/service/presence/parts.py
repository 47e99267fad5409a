"""What the presence service is made of, as ``service.py`` sees it: access, decisions, and the attached edges.

Place on the path: between the facade and ``access.py``, ``decisions.py``, ``edges.py``, which keep what accounts decided. The
direction the other way is one call: after each change that can matter to a watcher they call ``Reconsider``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from comity.cpim.address import Address
from comity.cpim.operations import NotifyOperation, Response, SubscribeOperation
from comity.cpim.presence_rules import Permissions
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import ContactItem, Decision, Default, Edge, Terms

Reconsider = Callable[[Address, Address | None], None]
"""(account, watcher): what that watcher (None: anybody) may see of the account changed, durably. Called before the answer."""


class Access(Protocol):
    """What watchers may see; see ``access.py``."""

    async def load(self, account: Address) -> None:
        """Bring what ``grant`` needs into memory; it stays there until the next turn of the loop at least."""

    def grant(
        self, account: Address, watcher: Address | None, now: datetime, sphere: str = "", *, is_new: bool = False
    ) -> Permissions:
        """What ``watcher`` (None: nobody was authenticated) may see of the account; ``is_new``: he asks now.

        Raises LookupError if the account is not in memory (any more).
        """

    def next_change(self, account: Address, now: datetime) -> datetime | None:
        """When to ask ``grant`` again though nobody changed anything (validity of rules)."""


class Decisions(Protocol):
    """What both sides decided, by RFC 6121 appendix A; see ``decisions.py``. Admission is done: nothing here looks at proofs."""

    async def ask(self, operation: SubscribeOperation, origin: Origin, terms: Terms) -> Response | None: ...

    async def withdraw(self, operation: SubscribeOperation, origin: Origin) -> Response | None: ...

    async def answer(
        self, account: Address, watcher: Address, decision: Decision, origin: Origin
    ) -> ContactItem | Response: ...

    async def decisions(self, account: Address) -> Sequence[ContactItem]: ...

    async def default(self, account: Address) -> Default: ...

    async def set_default(self, account: Address, default: Default | None, origin: Origin) -> Response | None: ...


class Edges(Protocol):
    """The attached bindings; see ``edges.py``."""

    def attach(self, name: str, edge: Edge) -> None: ...

    def get(self, name: str) -> Edge | None: ...

    def directed(self, operation: NotifyOperation) -> None: ...
