"""Kamailio as other people run it: registrar of a domain, with a trunk to Comity beside it."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

from comity.admin.init import init_certificates
from comity.cpim.address import Address
from tests.interop.presence_servers import filled, wait_for
from tests.interop.program import Program, free_port
from tests.peers import need_program

DOMAIN, THEIRS, PASSWORD = "pbx.test", "a.test", "secret-of-all"
HOST = "127.0.0.2"
"""Not where Comity and everybody's programs are: a listed address says which of them sends."""
PEOPLE = ("dave", "erin", "1001")

_TLS = """[server:default]
method = TLSv1.2+
verify_certificate = yes
require_certificate = no
private_key = @FOLDER@/tls/tls/server.key
certificate = @FOLDER@/tls/tls/server.pem
ca_list = @CA@
[client:default]
method = TLSv1.2+
verify_certificate = yes
require_certificate = yes
private_key = @FOLDER@/tls/tls/server.key
certificate = @FOLDER@/tls/tls/server.pem
ca_list = @CA@
"""


@dataclass
class Trunk:
    """Kamailio for pbx.test.

    Args:
        folder: for its files.
        trunk: where Comity listens, as a SIP URI.
        words: what its configuration is to be made with (``WITH_TLS`` and the like).
    """

    folder: Path
    trunk: str = ""
    words: tuple[str, ...] = ()
    authority: Path = Path()
    """Comity's, for TLS."""
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    program: Program | None = None

    @property
    def its_authority(self) -> Path:
        """By which to believe it."""
        return self.folder / "tls" / "tls" / "ca.pem"

    def prepare(self) -> None:
        """Its files, but for the configuration, which is written when it starts."""
        (self.folder / "db").mkdir(parents=True)
        (self.folder / "run").mkdir()
        for table in ("version", "location"):
            shutil.copy(Path("/usr/share/kamailio/dbtext/kamailio") / table, self.folder / "db" / table)
        init_certificates(self.folder / "tls", [DOMAIN])

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = need_program("kamailio")
        modules = Path(need_program("tls.so")).parent
        values = {
            "PORT": str(self.port),
            "TLS_PORT": str(self.tls_port),
            "HOST": HOST,
            "DOMAIN": DOMAIN,
            "THEIRS": THEIRS,
            "PASSWORD": PASSWORD,
            "PEOPLE": "|".join(PEOPLE),
            "FOLDER": str(self.folder),
            "MODULES": f"{modules}/",
            "TRUNK": self.trunk,
            "CA": str(self.authority),
        }
        text = (Path(__file__).parent / "kamailio_trunk.cfg").read_text()
        defines = "".join(f"#!define {word}\n" for word in self.words)
        config = self.folder / "kamailio.cfg"
        config.write_text(filled(text.replace("#!KAMAILIO\n", f"#!KAMAILIO\n{defines}"), values))
        (self.folder / "tls.cfg").write_text(filled(_TLS, values))
        argv = [program, "-DD", "-E", "-m", "64", "-w", str(self.folder), "-Y", str(self.folder / "run")]
        self.program = Program("kamailio", [*argv, "-f", str(config)], self.folder / "home", terminal=False)
        wait_for(self.program, self.port, HOST)

    def stop(self, *, is_crash: bool = False) -> None:
        """Stop it and its children."""
        program, self.program = self.program, None
        if program is not None:
            program.stop(signal.SIGKILL if is_crash else signal.SIGTERM)

    @property
    def output(self) -> str:
        return "" if self.program is None else self.program.output


def person(name: str) -> Address:
    return Address.parse(f"im:{name}@{DOMAIN}")
