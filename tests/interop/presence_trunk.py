"""Kamailio as other people run it: presence server of a domain whose people decide who may see them, with a trunk to Comity."""

from __future__ import annotations

import http.client
import signal
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from comity.cpim.address import Address
from tests.interop.presence_servers import filled, wait_for
from tests.interop.program import Program, free_port
from tests.peers import need_program

DOMAIN, THEIRS, PASSWORD = "pbx.test", "a.test", "secret-of-all"
HOST = "127.0.0.2"
"""Not where Comity and everybody's programs are: a listed address says which of them sends."""
MOST_TRIES = 50
RULES = """<?xml version="1.0" encoding="UTF-8"?>
<ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:pr="urn:ietf:params:xml:ns:pres-rules"><rule id="r1">
<conditions><identity><one id="sip:{watcher}"/></identity></conditions>
<actions><pr:sub-handling>{handling}</pr:sub-handling></actions><transformations/></rule></ruleset>"""


@dataclass
class PresenceServer:
    """Kamailio for pbx.test.

    Args:
        folder: for its files.
        trunk: where Comity listens, as a SIP URI.
    """

    folder: Path
    trunk: str = ""
    port: int = field(default_factory=free_port)
    program: Program | None = None

    def start(self) -> None:
        """Start it, and wait until it listens; what it kept is there again."""
        program = need_program("kamailio")
        modules = next(Path("/usr/lib").glob("*/kamailio/modules"))
        need_program("db_sqlite.so")
        if not (self.folder / "run").exists():
            (self.folder / "run").mkdir(parents=True)
            with closing(sqlite3.connect(self.folder / "db.sqlite")) as database:
                for part in ("standard", "presence"):
                    database.executescript(Path(f"/usr/share/kamailio/db_sqlite/{part}-create.sql").read_text())
        values = {
            "PORT": str(self.port),
            "HOST": HOST,
            "DOMAIN": DOMAIN,
            "THEIRS": THEIRS,
            "PASSWORD": PASSWORD,
            "FOLDER": str(self.folder),
            "MODULES": f"{modules}/",
            "TRUNK": self.trunk,
        }
        text = (Path(__file__).parent / "kamailio_presence.cfg").read_text()
        config = self.folder / "kamailio.cfg"
        config.write_text(filled(text, values))
        argv = [program, "-DD", "-E", "-m", "64", "-w", str(self.folder), "-Y", str(self.folder / "run")]
        self.program = Program("kamailio", [*argv, "-f", str(config)], self.folder / "home", terminal=False)
        wait_for(self.program, self.port, HOST)

    def stop(self, *, is_crash: bool = False) -> None:
        """Stop it and its children."""
        program, self.program = self.program, None
        if program is not None:
            program.stop(signal.SIGKILL if is_crash else signal.SIGTERM)

    def decide(self, who: str, watcher: str, handling: str) -> None:
        """One of its people puts a rule about a watcher, by XCAP; again while its database is locked by itself."""
        document = RULES.format(watcher=watcher, handling=handling)
        path = f"/xcap-root/pres-rules/users/sip:{who}@{DOMAIN}/index"
        headers = {"Content-Type": "application/auth-policy+xml", "User-Agent": "xcap"}
        for _ in range(MOST_TRIES):
            with closing(http.client.HTTPConnection(HOST, self.port, timeout=10)) as door:
                door.request("PUT", path, document, headers)
                if (status := door.getresponse().status) != 500:
                    break
        assert status in (200, 201), f"{status}\n{self.output[-2000:]}"

    @property
    def output(self) -> str:
        return "" if self.program is None else self.program.output


def person(name: str) -> Address:
    return Address.parse(f"im:{name}@{DOMAIN}")
