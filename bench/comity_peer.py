#!/usr/bin/env python3
"""Comity as a peer of the rig: the accounts the rig plays (a0…, b0…, i0…, off0…, w0…, pres0), then `comity serve`.

All accounts have the password "pw" and the same SCRAM keys: deriving thousands of them says nothing about a server.
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path

from comity.admin.init import init_certificates
from comity.config import read
from comity.cpim.address import Address
from comity.service.credentials import derive_ha1, derive_scram, encode_ha1, encode_scram
from comity.service.interfaces import Put
from comity.store.sqlite import SqliteStore

CONFIG = Path(__file__).parent / os.environ.get("BENCH_CONFIG", "comity.toml")
USERS = int(os.environ.get("BENCH_USERS", "2000"))


async def accounts() -> None:
    config = read(CONFIG)
    shutil.rmtree(config.server.data, ignore_errors=True)
    config.server.data.parent.mkdir(parents=True, exist_ok=True)
    store = await SqliteStore.open(config.server.data)
    scram = encode_scram(derive_scram("pw"))
    for prefix in ("a", "b", "i", "off", "w", "pres"):
        ops = []
        for n in range(USERS if prefix != "pres" else 1):
            address = Address.im(f"{prefix}{n}", config.server.domains[0])
            ops.append(Put("account", address.key, b'{"created":"2026-01-01T00:00:00+00:00"}'))
            ops.append(Put("scram", address.key, scram))
            ops.append(Put("ha1", address.key, encode_ha1(derive_ha1(address, "pw"))))
        await store.commit(ops)
    await store.close()
    init_certificates(config.server.data, config.server.domains)


asyncio.run(accounts())
os.execv(sys.executable, [sys.executable, "-m", "comity", "serve", "-c", str(CONFIG), "--log-level", "warning"])
