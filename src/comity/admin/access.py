"""One request, carried out by the running server, or on the store when none runs; never both.

Place on the path: beside it. The store's process lock decides: a server holds it for its whole life, so a command
that gets it may act alone, and a command that meets it goes by the control socket.
"""

from __future__ import annotations

from comity.admin.commands import Commands, PlainRecords, Request
from comity.admin.control import Answer, NotRunning, call, carry_out
from comity.admin.engine import open_store
from comity.config import Config


async def ask(config: Config, request: Request) -> Answer:
    """Carry ``request`` out where it has to be.

    Raises:
        StoreError: neither way is open: a server is just starting or stopping, or the store cannot be opened.
    """
    try:
        return await call(config.control_socket, request)
    except NotRunning:
        store = await open_store(config)
    try:
        commands = Commands(store, config.server.domains, PlainRecords(config.server.domains[0]))
        return await carry_out(commands, request)
    finally:
        await store.close()
