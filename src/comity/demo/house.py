"""One server of the demo: its directory, its ports, its configuration.

Place on the path: around each node. Everything is what ``comity init`` wrote, with free ports of loopback instead of the usual
ones, and, where there is a second server, what an operator would add to reach it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

LOOPBACK = "127.0.0.1"

Via = Literal["sip", "xmpp", "apex"]
Transport = Literal["udp", "tcp", "tls"]

PORTS = 6
"""A house takes so many."""


class House:
    """A server that is to be.

    Args:
        folder: where ``comity init`` puts it.
        domain: whom it serves.
        ports: free ones, ``PORTS`` of them.
    """

    def __init__(self, folder: Path, domain: str, ports: Sequence[int]) -> None:
        self.folder = folder
        self.domain = domain
        self.config = folder / "comity.toml"
        self.ca_file = folder / "data" / "tls" / "ca.pem"
        self.log = folder.with_suffix(".log")
        plain_sip, tls_sip, plain_xmpp, tls_xmpp, plain_apex, tls_apex = ports
        self.ports: dict[tuple[Via, Transport], int] = {
            ("sip", "udp"): plain_sip,
            ("sip", "tcp"): plain_sip,
            ("sip", "tls"): tls_sip,
            ("xmpp", "tcp"): plain_xmpp,
            ("xmpp", "tls"): tls_xmpp,
            ("apex", "tcp"): plain_apex,
            ("apex", "tls"): tls_apex,
        }

    def url(self, via: Via, transport: Transport) -> str:
        """Where the server listens."""
        return f"{transport}://{LOOPBACK}:{self.ports[via, transport]}"

    def furnish(self, neighbour: House) -> None:
        """Write the ports into the file, and the way to the neighbour: SIP under TLS, each known by its certificate.

        Raises ValueError if the file is not as ``comity init`` writes it.
        """
        text = self.config.read_text(encoding="utf-8")
        sip = [self.url("sip", "tls"), self.url("sip", "udp"), self.url("sip", "tcp")]
        xmpp = [self.url("xmpp", "tcp"), self.url("xmpp", "tls")]
        for key, urls in (("listen", sip), ("client", xmpp)):
            text, changed = re.subn(rf"^{key} = \[.*\]$", f"{key} = {json.dumps(urls)}", text, flags=re.MULTILINE)
            if changed != 1:
                raise ValueError(f"{key} stands {changed} times in what comity init wrote")
        trust = self.folder / "trust.pem"
        trust.write_bytes(self.ca_file.read_bytes() + neighbour.ca_file.read_bytes())
        text, changed = re.subn(
            r"^\[tls\]$", f"[tls]\ntrust = {json.dumps(trust.name)}", text, count=1, flags=re.MULTILINE
        )
        if changed != 1:
            text += f"\n[tls]\ntrust = {json.dumps(trust.name)}\n"
        apex = [self.url("apex", "tcp"), self.url("apex", "tls")]
        text += f"\n[apex]\nlisten = {json.dumps(apex)}\n"
        text += f'\n[[route]]\ndomain = "{neighbour.domain}"\nvia = "sip"\nnext_hop = "{neighbour.url("sip", "tls")}"\n'
        self.config.write_text(text, encoding="utf-8")
