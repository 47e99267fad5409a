"""One request, carried out by the running server, or on the store when none runs; never both.

Place on the path: beside it. The store's process lock decides: a server holds it for its whole life, so a command
that gets it may act alone, and a command that meets it goes by the control socket.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from comity.admin.commands import Commands, PlainRecords
from comity.admin.control import Answer, NotRunning, call, carry_out
from comity.admin.engine import open_store
from comity.admin.presence import StoredPresence
from comity.admin.requests import Request
from comity.config import Config
from comity.errors import StoreError


async def ask(config: Config, request: Request) -> Answer:
    """Carry ``request`` out where it has to be.

    Raises:
        StoreError: neither way is open: a server is just starting or stopping, the store cannot be opened, or this
            user would leave files in it that the server's user cannot write.
    """
    try:
        return await call(config.control_socket, request)
    except NotRunning:
        _check_owner(config.server.data)
        store = await open_store(config)
    try:
        presence = StoredPresence(store, config)
        await presence.start()
        commands = Commands(
            store,
            config.server.domains,
            PlainRecords(config.server.domains[0]),
            presence=presence,
            can_verify=config.security.trust is not None,
            iterations=config.policy.scram_iterations,
        )
        return await carry_out(commands, request)
    finally:
        await store.close()


def _check_owner(data: Path) -> None:
    """Refuse another user than the directory's, root above all: SQLite would make files of the wrong owner."""
    if not data.exists():
        return
    owner = data.stat().st_uid
    if owner != os.geteuid():
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        raise StoreError(
            f"{data} belongs to {name}, and no server runs. Run the command as that user: sudo -u {name} …"
        )
