"""Drive PJSUA 2.15 by its own library for Python (``pjsua2``, PyPI ``pjsua2-python``): accounts, buddies, callbacks."""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any

from tests.interop.clients import Limits, Presence
from tests.interop.lines import LibraryClient, Settings, say


class Pjsua(LibraryClient):
    name = "pjsua"
    program = None
    module = "pjsua2"
    runs = __name__
    protocol = "sip"
    transports = ("udp", "tcp", "tls")
    limits = Limits(send_octets=3_000, show_octets=3_000)
    """PJSIP_MAX_PKT_LEN: a message of more than 4,000 octets with its headers is not sent, and one that comes is dropped
    with what follows it in the same read, so that its answer and even that of a REGISTER may be lost."""
    tells_typing = True
    presence = Presence(
        tells=frozenset({"online", "away", "busy", "offline"}),
        shows=frozenset({"online", "away", "busy"}),
        tells_notes=True,
        shows_notes=True,
        knows_escapes=False,
    )
    shows = frozenset({"typing"})

    def settings(self) -> Settings:
        account = self.sign_in
        return {
            "address": account.address,
            "user": account.user,
            "password": account.password,
            "host": account.host,
            "port": account.port,
            "transport": account.transport,
            "ca_file": str(account.ca_file),
            "log": str(self.home / "log"),
            "presence": account.presence,
        }


def _run(settings: dict[str, Any]) -> None:
    import pjsua2 as pj

    class Account(pj.Account):  # type: ignore[misc]  # SWIG's classes have no types
        def onRegState(self, prm: Any) -> None:
            if prm.code == 200 and prm.expiration > 0:
                say(state="started")

        def onInstantMessage(self, prm: Any) -> None:
            say(**{"from": prm.fromUri, "text": prm.msgBody})

        def onInstantMessageStatus(self, prm: Any) -> None:
            say(state="sent" if prm.code // 100 == 2 else f"not sent: {prm.code} {prm.reason}")

        def onTypingIndication(self, prm: Any) -> None:
            if prm.isTyping:
                say(typing=prm.fromUri)

    class Person(pj.Buddy):  # type: ignore[misc]  # SWIG's classes have no types
        def onBuddyState(self) -> None:
            found = self.getInfo()
            if found.subState not in (pj.PJSIP_EVSUB_STATE_ACTIVE, pj.PJSIP_EVSUB_STATE_TERMINATED):
                return
            shown = found.presStatus
            state = NAMED[shown.status]
            if state == "online":
                state = DOING[shown.activity]
            say(seen=found.uri, **{"as": state, "note": shown.note})

    NAMED = {
        pj.PJSUA_BUDDY_STATUS_ONLINE: "online",
        pj.PJSUA_BUDDY_STATUS_OFFLINE: "offline",
        pj.PJSUA_BUDDY_STATUS_UNKNOWN: "unknown",
    }
    DOING = {
        pj.PJRPID_ACTIVITY_UNKNOWN: "online",
        pj.PJRPID_ACTIVITY_AWAY: "away",
        pj.PJRPID_ACTIVITY_BUSY: "busy",
    }

    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.logConfig.level, config.logConfig.consoleLevel = 5, 0
    config.logConfig.filename = settings["log"]
    config.uaConfig.threadCnt, config.uaConfig.mainThreadOnly = 0, True
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    transport.boundAddress = "127.0.0.1"
    transport.tlsConfig.CaListFile, transport.tlsConfig.verifyServer = settings["ca_file"], True
    kinds = {"udp": pj.PJSIP_TRANSPORT_UDP, "tcp": pj.PJSIP_TRANSPORT_TCP, "tls": pj.PJSIP_TRANSPORT_TLS}
    endpoint.transportCreate(kinds[settings["transport"]], transport)
    endpoint.libStart()

    domain, kind = settings["address"].partition("@")[2], settings["transport"]
    chosen = pj.AccountConfig()
    chosen.idUri = f"sip:{settings['address']}"
    chosen.regConfig.registrarUri = f"sip:{domain};transport={kind}"
    chosen.regConfig.retryIntervalSec, chosen.regConfig.firstRetryIntervalSec = 5, 2
    chosen.sipConfig.proxies.append(f"sip:{settings['host']}:{settings['port']};transport={kind};lr")
    chosen.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", settings["user"], 0, settings["password"]))
    chosen.presConfig.publishEnabled = settings["presence"]
    account = Account()
    account.create(chosen)
    buddies: dict[str, Any] = {}
    waiting = b""
    while True:
        endpoint.libHandleEvents(20)
        if not select.select([sys.stdin], [], [], 0)[0]:
            continue
        octets = os.read(sys.stdin.fileno(), 65536)
        if not octets:
            break
        *lines, waiting = (waiting + octets).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if order["do"] == "tell":
                own = pj.PresenceStatus()
                is_there = order["state"] != "offline"
                own.status = pj.PJSUA_BUDDY_STATUS_ONLINE if is_there else pj.PJSUA_BUDDY_STATUS_OFFLINE
                doing = {"away": pj.PJRPID_ACTIVITY_AWAY, "busy": pj.PJRPID_ACTIVITY_BUSY}
                own.activity = doing.get(order["state"], pj.PJRPID_ACTIVITY_UNKNOWN)
                own.note = order["note"]
                account.setOnlineStatus(own)
                say(state="told")
                continue
            to = order["to"]
            if to not in buddies:
                buddies[to] = Person()
                who = pj.BuddyConfig()
                who.uri = f"sip:{to}"
                buddies[to].create(account, who)
            if order["do"] == "watch":
                buddies[to].subscribePresence(True)
                say(state="watching")
            elif order["do"] == "text":
                text = pj.SendInstantMessageParam()
                text.contentType, text.content = "text/plain", order["text"]
                buddies[to].sendInstantMessage(text)
            else:
                notice = pj.SendTypingIndicationParam()
                notice.isTyping = True
                buddies[to].sendTypingIndication(notice)
                say(state="typing told")
    endpoint.libDestroy()


if __name__ == "__main__":
    _run(json.loads(sys.argv[1]))
