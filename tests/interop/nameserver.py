"""A name server of others as a child process on loopback: NSD, authoritative for ``test.``, which the stories live in."""

from __future__ import annotations

import asyncio
from pathlib import Path

from comity.errors import DeliveryError
from comity.net.driver import LoopClock
from comity.net.resolver import Resolver
from tests.interop.program import Program, free_port
from tests.peers import need_program

_CONFIG = """
server:
    ip-address: 127.0.0.1
    port: @PORT@
    server-count: 1
    username: ""
    chroot: ""
    database: ""
    zonesdir: "@FOLDER@"
    pidfile: "@FOLDER@/nsd.pid"
    xfrdfile: "@FOLDER@/xfrd.state"
    zonelistfile: "@FOLDER@/zone.list"
    verbosity: 1
remote-control:
    control-enable: no
zone:
    name: "test"
    zonefile: "test.zone"
"""
_APEX = "@ 3600 IN SOA ns.test. admin.test. {serial} 3600 600 86400 1\n@ 3600 IN NS ns.test.\nns 3600 IN A 127.0.0.1\n"


class NameServer:
    """NSD; ``publish`` replaces what it serves, ``start`` and ``stop`` may be repeated."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self._serial = 0
        self._program: Program | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        """As ``[federation] nameservers`` has it."""
        return f"127.0.0.1:{self.port}"

    def publish(self, zone: str) -> None:
        """Serve these records, lines of a zone file; started anew if it runs."""
        self._serial += 1
        marker = f"serial.test. 1 IN TXT v{self._serial}\n"
        text = "$ORIGIN test.\n" + _APEX.format(serial=self._serial) + marker + zone
        (self.folder / "test.zone").write_text(text, encoding="utf-8")
        if self._program is not None:
            self.stop()
            self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        text = _CONFIG.replace("@PORT@", str(self.port)).replace("@FOLDER@", str(self.folder))
        config = self.folder / "nsd.conf"
        config.write_text(text, encoding="utf-8")
        argv = [need_program("nsd"), "-d", "-c", str(config)]
        self._program = Program("nsd", argv, self.folder / "home", terminal=False)
        try:
            self._program.wait_output("nsd started")
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it."""
        if self._program is not None:
            self._program.stop()
            self._program = None

    def _wait(self) -> None:
        """Ask until it says the latest serial."""

        async def ask() -> None:
            async with asyncio.timeout(40):
                while True:
                    resolver = Resolver(LoopClock(), [("127.0.0.1", self.port)], hosts=None)
                    try:
                        if await resolver.texts("serial.test", "TXT") == [f'"v{self._serial}"']:
                            return
                    except DeliveryError:
                        continue

        asyncio.run(ask())
