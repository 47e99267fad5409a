"""Alice's XMPP program: slixmpp, which says its contact list whenever that was pushed, and changes it when told to.

Run as a child: settings as JSON in the first argument, one order a line on stdin, one contact list a line on stdout.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any


async def _run(settings: dict[str, Any]) -> None:
    import slixmpp

    client: Any = slixmpp.ClientXMPP(settings["jid"], settings["password"])
    client.ca_certs = settings["ca_file"]
    client.enable_direct_tls, client.enable_starttls, client.enable_plaintext = True, False, False
    client.ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
    client.roster.auto_authorize, client.roster.auto_subscribe = None, False

    listed: dict[str, list[Any]] = {}

    def take(iq: Any) -> None:
        """A contact list, or a push of one item of it."""
        for jid, item in iq["roster"]["items"].items():
            if item["subscription"] == "remove":
                listed.pop(str(jid), None)
            else:
                listed[str(jid)] = [item["name"], sorted(item["groups"])]
        print(json.dumps(listed), flush=True)

    client.add_event_handler("roster_update", take)

    async def started(_: object) -> None:
        await client.get_roster()
        client.send_presence()

    client.add_event_handler("session_start", started)
    client.connect("127.0.0.1", settings["port"])
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        order = json.loads(line)
        if order["do"] == "put":
            await client.update_roster(order["jid"], name=order["name"], groups=order["groups"])
        else:
            await client.del_roster_item(order["jid"])


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.argv[1])))
