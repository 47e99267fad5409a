"""PJSUA's own presence (``pjsua2``) as a child process: what it publishes and what it makes of what it is notified.

Its documents are written and read by PJSIP's PIDF and RPID library. In go lines ``{"status", "activity", "note"}`` that set
its own presence; out come ``{"state"}`` and ``{"buddy", "activity", "note"}``, what it would show of alice.
"""

from __future__ import annotations

import json
import os
import select
import sys

from tests.interop.lines import say

STATUS = {"online": "PJSUA_BUDDY_STATUS_ONLINE", "offline": "PJSUA_BUDDY_STATUS_OFFLINE"}
ACTIVITY = {"": "PJRPID_ACTIVITY_UNKNOWN", "away": "PJRPID_ACTIVITY_AWAY", "busy": "PJRPID_ACTIVITY_BUSY"}


def _run(peer: str) -> None:
    import pjsua2 as pj

    named = {getattr(pj, name): word for word, name in STATUS.items()}
    doing = {getattr(pj, name): word for word, name in ACTIVITY.items()}

    class Alice(pj.Buddy):  # type: ignore[misc]  # SWIG's classes have no types
        def onBuddyState(self) -> None:
            seen = self.getInfo().presStatus
            say(buddy=named.get(seen.status, "unknown"), activity=doing.get(seen.activity, "?"), note=seen.note)

    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.logConfig.level = config.logConfig.consoleLevel = 0
    config.uaConfig.threadCnt, config.uaConfig.mainThreadOnly = 0, True
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    transport.boundAddress = "127.0.0.1"
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    endpoint.libStart()
    chosen = pj.AccountConfig()
    chosen.idUri = f"sip:bob@{peer}"
    chosen.presConfig.publishEnabled = True
    account = pj.Account()
    account.create(chosen)
    alice, who = Alice(), pj.BuddyConfig()
    who.uri, who.subscribe = f"sip:alice@{peer}", True
    alice.create(account, who)
    say(state="started")
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
            own = pj.PresenceStatus()
            own.status = getattr(pj, STATUS[order["status"]])
            own.activity = getattr(pj, ACTIVITY[order["activity"]])
            own.note = order["note"]
            account.setOnlineStatus(own)
            say(state="set")
    endpoint.libDestroy()


if __name__ == "__main__":
    _run(sys.argv[1])
