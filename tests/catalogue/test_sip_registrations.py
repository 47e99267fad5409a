"""What a SIP registration costs (issue 3: at most 4 kB), measured on a running server with thousands of users."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.service.credentials import derive_ha1, encode_ha1
from comity.service.interfaces import Op, Put
from comity.store import SqliteStore
from tests.catalogue.harness import PASSWORD, Target
from tests.catalogue.sip_agent import Agent

WARM, COUNTED = 9000, 5000
"""The first fill every bounded cache (of at most 8,192 entries)."""
MOST_OCTETS = 4096
LIMITS = "udp_requests = 1000000\nfailures_per_address = 100000"


def people(directory: Path) -> None:
    """Thousands of accounts that can sign in by SIP: written straight into the store, before the server runs."""

    async def write() -> None:
        store = await SqliteStore.open(directory)
        for start in range(0, WARM + COUNTED, 500):
            ops: list[Op] = []
            for number in range(start, start + 500):
                address = Address.parse(f"im:user{number}@a.test")
                ops.append(Put("ha1", address.key, encode_ha1(derive_ha1(address, PASSWORD))))
                ops.append(Put("account", address.key, b'{"created":"2026-01-01T00:00:00Z"}'))
            await store.commit(ops)
        await store.close()

    asyncio.run(write())


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with thousands of accounts."""
    target = Target(tmp_path_factory.mktemp("many"), LIMITS, before=people)
    yield target
    target.check_canary()
    target.close()


def pss(target: Target) -> int:
    """Octets the server has for itself."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{target.pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def register(target: Target, numbers: range) -> None:
    """Each by another user, from another port, with an instance as real phones have one; several at a time."""

    def one(number: int) -> None:
        with Agent(target, "udp", f"user{number}", f"127.77.7.{1 + number % 200}") as phone:
            instance = f'+sip.instance="<urn:uuid:00000000-0000-4000-8000-{number:012d}>"'
            phone.register(contact=f"{phone.contact};{instance};reg-id=1;q=0.7")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, numbers))


def forget_transactions(target: Target) -> None:
    """Wait until no answer is kept for retransmissions any more: timer J, 32 s."""
    end = time.monotonic() + 33
    while time.monotonic() < end:
        target.canary.wait_for_round(time.monotonic())


def test_a_registration_costs_at_most_4_kb(target: Target) -> None:
    """Once every bounded cache is full: memory counted before and after 5,000 more registrations."""
    register(target, range(WARM))
    forget_transactions(target)
    before = pss(target)
    register(target, range(WARM, WARM + COUNTED))
    forget_transactions(target)
    each = (pss(target) - before) / COUNTED
    print(f"{each:.0f} octets a registration")
    assert each <= MOST_OCTETS
