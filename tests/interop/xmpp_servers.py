"""Stock XMPP servers that speak with other servers and with components: Prosody and ejabberd, as child processes on loopback.

Each finds others by DNS, which a server of the test answers (``Names``), shows a certificate of the test's authority, and believes
nobody without one.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

from comity.client import Client, connect
from comity.cpim.address import Address
from comity.testing.dns import DnsServer
from tests.interop.authority import Authority
from tests.interop.presence_servers import filled, wait_for
from tests.interop.program import Program, free_port
from tests.peers import need_program

PASSWORD = "secret of all"

_PROSODY = """
daemonize = false
run_as_root = true
pidfile = "@FOLDER@/prosody.pid"
data_path = "@FOLDER@/data"
log = { { levels = { min = "debug" }, to = "console" } }
interfaces = { "127.0.0.1" }
c2s_ports = { @C2S@ }
s2s_ports = { @S2S@ }
s2s_direct_tls_ports = { @S2S_TLS@ }
component_ports = { @COMPONENT@ }
component_interfaces = { "127.0.0.1" }
unbound = { resolvconf = false, hoststxt = false, forward = { "127.0.0.1@@DNS@" },
            options = { ["do-not-query-localhost:"] = "no", ["local-zone:"] = "test. transparent" } }
ssl = { certificate = "@CERTIFICATE@", key = "@KEY@", cafile = "@TRUST@" }
s2s_require_encryption = true
s2s_secure_auth = true
authentication = "internal_plain"
storage = "internal"
modules_enabled = { "roster", "saslauth", "tls", "dialback", "disco", "ping", "blocklist", "smacks", "pep",
                    "vcard_legacy", "version", "time", "carbons", @MODULES@ }
@OPTIONS@
VirtualHost "@DOMAIN@"
@HOSTS@
"""

_EJABBERD = """
hosts: ["@DOMAIN@"]
loglevel: info
log_rotate_count: 0
certfiles: ["@COMBINED@"]
ca_file: "@TRUST@"
listen:
  - {port: @C2S@, ip: "127.0.0.1", module: ejabberd_c2s, starttls: true, access: c2s}
  - {port: @S2S@, ip: "127.0.0.1", module: ejabberd_s2s_in}
  - {port: @S2S_TLS@, ip: "127.0.0.1", module: ejabberd_s2s_in, tls: true}
@COMPONENTS@
s2s_use_starttls: required
s2s_cafile: "@TRUST@"
s2s_access: s2s
auth_method: internal
auth_password_format: plain
disable_sasl_mechanisms: [SCRAM-SHA-1-PLUS, SCRAM-SHA-256-PLUS, SCRAM-SHA-512-PLUS]  # it binds to tls-unique and does not say so
acl: {local: {user_regexp: ""}}
access_rules:
  c2s: {allow: all}
  s2s: {allow: all}
modules:
  mod_blocking: {}
  mod_caps: {}
  mod_carboncopy: {}
  mod_disco: {}
  mod_offline: {}
  mod_ping: {}
  mod_privacy: {}
  mod_pubsub: {plugins: [flat, pep]}
  mod_roster: {}
  mod_s2s_dialback: {}
  mod_stream_mgmt: {}
  mod_time: {}
  mod_vcard: {}
  mod_version: {}
@OPTIONS@
"""


class Names:
    """The DNS of a test, in a thread of its own; use it with ``with``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._server = DnsServer("")
        self._zone: dict[str, str] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="dns", daemon=True)

    def __enter__(self) -> Names:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.__aenter__(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.__aexit__(None, None, None), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def port(self) -> int:
        """Where it answers, on 127.0.0.1."""
        return self._server.address[1]

    def serve(self, domain: str, port: int, tls_port: int = 0) -> None:
        """Publish where a domain's XMPP server takes other servers."""
        # COMPAT ejabberd 23.01: asks DNS for SRV, but libc for addresses.
        lines = [] if self._zone else ["localhost. 60 IN A 127.0.0.1"]
        lines.append(f"_xmpp-server._tcp.{domain}. 60 IN SRV 10 0 {port} localhost.")
        if tls_port:
            lines.append(f"_xmpps-server._tcp.{domain}. 60 IN SRV 5 0 {tls_port} localhost.")
        self._zone[domain] = "\n".join(lines)
        zone = "\n".join(self._zone.values())
        self._loop.call_soon_threadsafe(self._server.load, zone)


class StockServer:
    """One of them.

    Args:
        folder: for its files.
        domain: what it serves.
        names: the DNS it asks, in which its own records stand from the start.
        authority: of its certificate.
        trust: PEM files of the authorities it believes besides.
        accounts: local parts; each has ``PASSWORD``.
        components: secrets of the components that may attach, by domain.
        options: more lines of configuration, at its place of such.
    """

    program = ""

    def __init__(
        self,
        folder: Path,
        domain: str,
        names: Names,
        authority: Authority,
        *,
        trust: tuple[Path, ...] = (),
        accounts: tuple[str, ...] = (),
        components: Mapping[str, str] | None = None,
        options: str = "",
    ) -> None:
        self.folder = folder
        self.domain = domain
        self.accounts = accounts
        self.components = dict(components or {})
        self.options = options
        self.port, self.c2s, self.tls_port, self.component_port = (free_port() for _ in range(4))
        folder.mkdir(parents=True)
        self.trust = folder / "trust.pem"
        """What it believes: its own authority and the others."""
        self.trust.write_bytes(b"".join(file.read_bytes() for file in (authority.file, *trust)))
        self.certificate, self.key = authority.issue(domain)
        self._names = names
        self._running: Program | None = None
        self.component_ports = self._component_ports()
        """Where each component attaches, by its domain."""
        names.serve(domain, self.port)

    def _component_ports(self) -> dict[str, int]:
        return dict.fromkeys(self.components, self.component_port)

    @property
    def values(self) -> dict[str, str]:
        return {
            "FOLDER": str(self.folder),
            "DOMAIN": self.domain,
            "C2S": str(self.c2s),
            "S2S_TLS": str(self.tls_port),
            "S2S": str(self.port),
            "COMPONENT": str(self.component_port),
            "DNS": str(self._names.port),
            "CERTIFICATE": str(self.certificate),
            "KEY": str(self.key),
            "TRUST": str(self.trust),
            "OPTIONS": self.options,
        }

    def start(self) -> None:
        """Start it, and wait until it listens."""
        raise NotImplementedError

    def stop(self, *, is_crash: bool = False) -> None:
        """Stop it."""
        if self._running is not None:
            self._running.stop(signal.SIGKILL if is_crash else signal.SIGTERM)
            self._running = None

    def __enter__(self) -> StockServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def output(self) -> str:
        """What it printed."""
        return "" if self._running is None else self._running.output

    def client(self, account: str, *, receive: bool = True) -> Client:
        """A client of ours signed in there."""
        address = Address.parse(f"im:{account}@{self.domain}")
        server = "127.0.0.1", self.c2s
        return connect("xmpp", address, PASSWORD, server=server, transport="tcp", ca_file=self.trust, receive=receive)


class ProsodyServer(StockServer):
    """Prosody 0.12; ``options`` are lines of Lua, global."""

    program = "prosody"
    modules = ""

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = need_program("prosody")
        need_program("lunbound.so")
        folder = self.folder / "data" / self.domain.replace(".", "%2e") / "accounts"
        folder.mkdir(parents=True, exist_ok=True)
        for account in self.accounts:
            (folder / f"{account}.dat").write_text(f'return {{ ["password"] = "{PASSWORD}"; }};\n')
        lines = [f'Component "{name}"\n  component_secret = "{secret}"' for name, secret in self.components.items()]
        config = self.folder / "prosody.cfg.lua"
        config.write_text(filled(_PROSODY, {**self.values, "HOSTS": "\n".join(lines), "MODULES": self.modules}))
        argv = [program, "-F", "--config", str(config)]
        self._running = Program("prosody", argv, self.folder / "home", terminal=False)
        for port in (self.port, self.c2s):
            wait_for(self._running, port)


class EjabberdServer(StockServer):
    """ejabberd; ``options`` are lines of YAML at the top level."""

    program = "ejabberdctl"

    def _component_ports(self) -> dict[str, int]:
        """One each: whoever attaches to a port gets what is for any of its hosts."""
        return {name: free_port() for name in self.components}

    def start(self) -> None:
        """Start it, and wait until it listens."""
        need_program("ejabberdctl")
        erl = need_program("erl")
        folder = self.folder
        combined = folder / "combined.pem"
        combined.write_bytes(self.certificate.read_bytes() + self.key.read_bytes())
        shown = "\n".join(
            f'  - port: {port}\n    ip: "127.0.0.1"\n    module: ejabberd_service\n'
            f'    hosts: {{"{name}": {{password: "{self.components[name]}"}}}}'
            for name, port in self.component_ports.items()
        )
        values = {**self.values, "COMBINED": str(combined), "COMPONENTS": shown}
        (folder / "ejabberd.yml").write_text(filled(_EJABBERD, values))
        server = f"{{nameserver, {{127,0,0,1}}, {self._names.port}}}.\n"
        asks = f'{{resolv_conf, ""}}.\n{{hosts_file, ""}}.\n{server}{{lookup, [dns]}}.\n'  # in this order
        (folder / "inetrc").write_text(asks)
        (folder / "log").mkdir(exist_ok=True)
        (folder / "spool").mkdir(exist_ok=True)
        environment = {
            "EJABBERD_CONFIG_PATH": str(folder / "ejabberd.yml"),
            "EJABBERD_LOG_PATH": str(folder / "log" / "ejabberd.log"),
            "ERL_INETRC": str(folder / "inetrc"),
            "ERL_LIBS": ":".join(str(path.parent) for path in Path("/usr/lib").glob("*/ejabberd-*")),
            "ERL_CRASH_DUMP_SECONDS": "0",
        }
        argv = [erl, "-noinput", "-mnesia", "dir", f'"{folder / "spool"}"', "-s", "ejabberd"]
        for account in self.accounts:
            words = ", ".join(f'<<"{word}">>' for word in (account, self.domain, PASSWORD))
            argv += ["-eval", f"ejabberd_auth:try_register({words})."]
        self._running = Program("ejabberd", argv, folder / "home", terminal=False, env=environment)
        for port in (self.port, self.c2s):
            wait_for(self._running, port)
