"""Drive slixmpp: a library, but one nobody here wrote, and the driven client that asks for most extensions."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any

from tests.interop.clients import Limits, Presence
from tests.interop.lines import LibraryClient, Settings, say


class SlixmppClient(LibraryClient):
    name = "slixmpp"
    program = None
    module = "slixmpp"
    runs = __name__
    protocol = "xmpp"
    transports = ("starttls", "tls")
    limits = Limits()
    tells_typing = True
    shows = frozenset({"typing", "receipt", "refused"})
    presence = Presence(
        tells=frozenset({"online", "away", "busy", "offline"}),
        shows=frozenset({"online", "away", "busy"}),
        tells_notes=True,
        shows_notes=True,
        answers=True,
        blocks=True,
    )

    def settings(self) -> Settings:
        account = self.sign_in
        return {
            "jid": f"{account.address}/{self.home.name}",
            "password": account.password,
            "host": account.host,
            "port": account.port,
            "direct_tls": account.transport == "tls",
            "ca_file": str(account.ca_file),
        }


STATES = {"": "online", "chat": "online", "away": "away", "xa": "away", "dnd": "busy"}
DONE = {
    "text": "sent",
    "typing": "typing told",
    "tell": "told",
    "watch": "watching",
    "grant": "answered",
    "refuse": "answered",
    "block": "blocked",
}


async def _run(settings: dict[str, Any]) -> None:
    import slixmpp

    client: Any = slixmpp.ClientXMPP(settings["jid"], settings["password"])
    client.ca_certs = settings["ca_file"]
    client.enable_direct_tls, client.enable_starttls = settings["direct_tls"], not settings["direct_tls"]
    client.enable_plaintext = False
    client.ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
    for plugin in ("xep_0030", "xep_0085", "xep_0115", "xep_0198", "xep_0199", "xep_0280", "xep_0184", "xep_0191"):
        client.register_plugin(plugin)
    client["xep_0184"].auto_ack = client["xep_0184"].auto_request = True

    async def started(_: object) -> None:
        await client.get_roster()
        client.send_presence()
        say(state="started")

    def arrived(message: Any) -> None:
        if message["type"] in ("chat", "normal") and message["body"]:
            say(**{"from": str(message["from"]), "text": message["body"]})

    def asked(presence: Any) -> None:
        say(asked=presence["from"].bare)

    def seen(presence: Any) -> None:
        """What its own roster holds of that person now: the resource of the highest priority."""
        who = presence["from"].bare
        resources = client.client_roster[who].resources
        if not resources:
            say(seen=who, **{"as": "offline", "note": presence["status"]})
            return
        best = max(resources.values(), key=lambda resource: resource["priority"])
        say(seen=who, **{"as": STATES[best["show"]], "note": best["status"] or ""})

    def connect() -> None:
        client.connect(settings["host"], settings["port"])

    client.add_event_handler("session_start", started)
    client.add_event_handler("session_resumed", lambda _: say(state="resumed"))
    client.add_event_handler("message", arrived)
    client.add_event_handler("message_error", lambda message: say(refused=str(message["from"])))
    client.add_event_handler("chatstate_composing", lambda message: say(typing=str(message["from"])))
    client.add_event_handler("receipt_received", lambda message: say(receipt=str(message["from"])))
    client.roster.auto_authorize, client.roster.auto_subscribe = None, False  # its user answers
    client.add_event_handler("presence_subscribe", asked)
    for kind in ("available", "chat", "away", "xa", "dnd", "unavailable"):
        client.add_event_handler(f"presence_{kind}", seen)
    client.add_event_handler("failed_all_auth", lambda _: say(state="refused"))
    client.add_event_handler("disconnected", lambda _: connect())  # as its own examples do; it waits longer each time
    connect()
    orders = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        order = json.loads(line)
        if order["do"] in ("text", "typing"):
            message = client.make_message(mto=order["to"], mtype="chat")
            if order["do"] == "text":
                message["body"] = order["text"]
            else:
                message["chat_state"] = "composing"
            message.send()
        elif order["do"] == "tell":
            leaving = "unavailable" if order["state"] == "offline" else None
            shown = {"away": "away", "busy": "dnd"}.get(order["state"])
            client.send_presence(ptype=leaving, pshow=shown, pstatus=order["note"] or None)
        elif order["do"] == "watch":
            client.send_presence_subscription(pto=order["to"])
        elif order["do"] == "block":
            await client["xep_0191"].block(order["to"])
        else:
            kind = "subscribed" if order["do"] == "grant" else "unsubscribed"
            client.send_presence_subscription(pto=order["to"], ptype=kind)
        say(state=DONE[order["do"]])


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.argv[1])))
