"""``comity.toml`` to dataclasses: all mistakes of the text are collected, each as key, problem, cure and line.

Place on the path: before it. One ``_read_KIND`` method for each ``metadata["kind"]`` of ``sections``; each returns
the value or says a mistake and returns ``_WRONG``. Nothing here looks at the machine: see ``machine``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from comity.bindings.base import Listener, Transport
from comity.config.conflicts import mistakes_between
from comity.config.sections import (
    LISTS,
    SECTIONS,
    TABLES,
    Config,
    Network,
    RouteConfig,
    ServerConfig,
    line_of,
)
from comity.config.values import (
    SIZES,
    TIMES,
    canonical_domain,
    domain_problem,
    host_port,
    network,
    shown,
    split_url,
    with_unit,
)
from comity.cpim.address import Address
from comity.errors import AddressError, ConfigError, ConfigErrors

_WRONG: Any = object()
_MOST_OCTETS = 1 << 40
_MOST_SECONDS = 366 * 86400.0
_TRANSPORTS: dict[str, Transport] = {"udp": "udp", "tcp": "tcp", "tls": "tls", "http": "tcp", "https": "tls"}
_NEXT_HOPS = {"sip": ("tls", "tcp", "udp"), "xmpp": ("tls", "tcp"), "apex": ("tls", "tcp")}


def read(path: Path) -> Config:
    """Read and check the text of ``path``.

    Raises:
        ConfigErrors: the file cannot be read, is not TOML, or holds mistakes.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        cure = "Name another file with -c, or make one with `comity init DIR --domain example.org`."
        raise ConfigErrors(str(path), [ConfigError(str(path), "there is no such file.", cure)]) from error
    except OSError as error:
        mistake = ConfigError(str(path), f"cannot be read: {error.strerror}.", "Let the server's user read it.")
        raise ConfigErrors(str(path), [mistake]) from error
    except UnicodeDecodeError as error:
        mistake = ConfigError(str(path), f"is not UTF-8 at octet {error.start}.", "Save the file as UTF-8 text.")
        raise ConfigErrors(str(path), [mistake]) from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        cure = 'Keys are written name = "text", name = 5 or name = ["a", "b"], below a [section].'
        raise ConfigErrors(str(path), [ConfigError(str(path), f"is not TOML: {error}.", cure)]) from error
    except RecursionError as error:
        mistake = ConfigError(str(path), "is nested too deeply.", "Write plain values and lists of text.")
        raise ConfigErrors(str(path), [mistake]) from error
    return _Reader(path, text).config(document)


def key_lines(text: str) -> dict[str, int]:
    """Line of each section and each ``key =`` in ``text``, by dotted name with ``[n]`` for lists of tables."""
    lines: dict[str, int] = {}
    seen: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[\[\s*([\w.-]+)\s*\]\]", line):
            name = match[1]
            section = f"{name}[{seen.get(name, 0)}]"
            seen[name] = seen.get(name, 0) + 1
            lines.setdefault(section, number)
            lines.setdefault(name, number)
        elif match := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            section = match[1]
            lines.setdefault(section, number)
        elif match := re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line):
            lines.setdefault(f"{section}.{match[1]}" if section else match[1], number)
    return lines


def closest(word: str, choices: list[str]) -> str:
    """A did-you-mean sentence, or the list of what there is."""
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f'Did you mean "{near[0]}"?' if near else f"There is: {', '.join(sorted(choices))}."


class _Reader:
    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.base = path.absolute().parent
        self.data = self.base
        """The data directory, once ``[server]`` has been read."""
        self.lines = key_lines(text)
        self.mistakes: list[ConfigError] = []

    def say(self, key: str, problem: str, cure: str) -> Any:
        """Note one mistake."""
        line = line_of(self.lines, key)
        where = f"{self.path}:{line}" if line else str(self.path)
        self.mistakes.append(ConfigError(key, problem, cure, where=where))
        return _WRONG

    def config(self, document: dict[str, Any]) -> Config:
        known = [*SECTIONS, *TABLES]
        for name, value in document.items():
            if name not in known:
                self._unknown_top(name, value)
        sections = {name: self._section(name, kind, document.get(name, {})) for name, kind in SECTIONS.items()}
        routes, peers, maps = (tuple(self._tables(name, kind, document.get(name, []))) for name, kind in TABLES.items())
        config = Config(path=self.path, routes=routes, peers=peers, maps=maps, lines=self.lines, **sections)
        self.mistakes.extend(mistakes_between(config, self.mistakes))
        if self.mistakes:
            raise ConfigErrors(str(self.path), self.mistakes)
        return config

    def _unknown_top(self, name: str, value: object) -> None:
        homes = [s for s, kind in SECTIONS.items() if any(f.name == name for f in fields(kind))]
        if not isinstance(value, dict) and homes:
            self.say(name, "stands outside any section.", f"Move it below [{homes[0]}].")
        else:
            self.say(name or repr(name), "is not a section of this file.", closest(name, [*SECTIONS, *TABLES]))

    def _section(self, name: str, kind: type[Any], raw: object) -> Any:
        if not isinstance(raw, dict):
            self.say(
                name or repr(name), "is not a section.", f"Write [{name}] on a line of its own and its keys below."
            )
            raw = {}
        values: dict[str, Any] = {}
        known = {f.name: f for f in fields(kind)}
        for key, value in raw.items():
            full = f"{name}.{key}"
            if key not in known:
                self._unknown_key(full, key, list(known))
            elif full in LISTS:
                values[key] = tuple(self._tables(full, LISTS[full], value))
            elif (result := self._value(full, value, known[key])) is not _WRONG:
                values[key] = result
        for key, spec in known.items():
            if "below" in spec.metadata and key not in values:
                values[key] = (self.data if spec.metadata["below"] == "data" else self.base) / spec.metadata["name"]
        if kind is ServerConfig and "domains" not in raw:
            self.say("server.domains", "is missing.", 'Write below [server]: domains = ["example.org"]')
        if kind is ServerConfig:
            self.data = values["data"]
        return kind(**values)

    def _unknown_key(self, full: str, key: str, known: list[str]) -> None:
        homes = [s for s, kind in SECTIONS.items() if any(f.name == key for f in fields(kind))]
        cure = f"It belongs below [{homes[0]}]." if homes else closest(key, known)
        self.say(full, "is not a key of this section.", cure)

    def _tables(self, name: str, kind: type[Any], raw: object) -> Iterator[Any]:
        if not isinstance(raw, list) or not all(isinstance(item, dict) for item in raw):
            self.say(name, "is not a list of sections.", f"Write [[{name}]] with two brackets for each.")
            return
        known = {f.name.removesuffix("_"): f for f in fields(kind)}
        for index, item in enumerate(raw):
            full = f"{name}[{index}]"
            values: dict[str, Any] = {}
            for key, value in item.items():
                if key not in known:
                    self.say(f"{full}.{key}", "is not a key of this section.", closest(key, list(known)))
                elif (result := self._value(f"{full}.{key}", value, known[key])) is not _WRONG:
                    values[known[key].name] = result
            missing = [key for key, spec in known.items() if spec.default == "" and key not in item]
            for key in missing:
                if "may_be_missing" not in known[key].metadata:
                    self.say(f"{full}.{key}", "is missing.", f'Write {key} = "…" below [[{name}]].')
            if kind is RouteConfig and not self._fits_route(full, item, values):
                continue
            yield kind(**values)

    def _fits_route(self, full: str, written: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
        via: str = values.get("via", "sip")
        if "next_hop" not in written:
            return True
        if "next_hop" not in values:
            return False
        schemes = [url.partition("://")[0] for url in values["next_hop"].split()]
        scheme = next((scheme for scheme in schemes if scheme not in _NEXT_HOPS[via]), schemes[0])
        if values["next_hop"].count(" ") and via != "sip":
            self.say(f"{full}.next_hop", f"is a list, and {via} takes one.", 'Write "tls://HOST:PORT".')
            return False
        if scheme in _NEXT_HOPS[via]:
            return True
        allowed = " or ".join(f"{s}://" for s in _NEXT_HOPS[via])
        self.say(f"{full}.next_hop", f"{scheme}:// does not carry {via}.", f"Use {allowed}.")
        return False

    def _value(self, key: str, value: object, spec: Field[Any]) -> Any:
        kind = spec.metadata["kind"].replace("-", "_")
        return getattr(self, f"_read_{kind}")(key, value, spec.metadata)

    # --- one method for each kind of value ------------------------------------------------------------------

    def _read_text(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if isinstance(value, str) and value and value.isprintable():
            return value
        return self.say(key, f"{shown(value)} is not text on one line.", 'Write it in quotes: "…".')

    def _read_secret(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if isinstance(value, str) and value:
            return value
        return self.say(
            key, "is empty or not text.", "Write the secret that the XMPP server and its component share, in quotes."
        )

    def _read_flag(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if isinstance(value, bool):
            return value
        return self.say(key, f"{shown(value)} is neither true nor false.", "Write true or false, without quotes.")

    def _read_choice(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        choices = list(spec["choices"])
        if value in choices:
            return value
        cure = closest(str(value), choices)
        return self.say(key, f"{shown(value)} is not known.", cure)

    def _read_words(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        choices = list(spec["choices"])
        if not isinstance(value, list):
            return self.say(key, f"{shown(value)} is not a list.", f'Write it like ["{choices[0]}"].')
        found = [self._read_choice(f"{key}[{index}]", item, spec) for index, item in enumerate(value)]
        return tuple(dict.fromkeys(word for word in found if word is not _WRONG))

    def _read_protected(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if not isinstance(value, str) or "@" not in value:
            return self._read_route_domain(key, value, spec)
        try:
            return Address.parse(value if value.startswith("im:") else f"im:{value}").folded().uri
        except AddressError as error:
            return self.say(key, f"{shown(value)} is no account: {error.reason}.", 'Write it like "alice@example.org".')

    def _read_count(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and spec["low"] <= value <= spec["high"]:
            return value
        return self.say(
            key, f"{shown(value)} is out of range.", f"Write a whole number from {spec['low']} to {spec['high']}."
        )

    def _read_octets(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        number = with_unit(value, SIZES)
        if isinstance(number, int) and spec["low"] <= number <= _MOST_OCTETS:
            return number
        return self.say(key, f"{shown(value)} is not a size.", 'Write octets (65536) or a unit ("64 KiB", "1 MiB").')

    def _read_seconds(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        number = with_unit(value, TIMES)
        if number is not None and 0 < number <= _MOST_SECONDS:
            return float(number)
        return self.say(
            key, f"{shown(value)} is not a duration.", 'Write seconds (30) or a unit ("30 s", "5 min", "72 h").'
        )

    def _read_path(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if isinstance(value, str) and value and "\0" not in value:
            return self.base / Path(value).expanduser()
        return self.say(key, f"{shown(value)} is not a path.", 'Write it in quotes: "data/tls/server.pem".')

    def _read_domains(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if not isinstance(value, list) or not value:
            return self.say(key, f"{shown(value)} is not a list of domains.", 'Write domains = ["example.org"].')
        found: list[str] = []
        for index, item in enumerate(value):
            domain = self._read_domain(f"{key}[{index}]", item, spec)
            if domain is _WRONG:
                continue
            if domain in found:
                self.say(f"{key}[{index}]", f'"{domain}" is written twice.', "Write each domain once.")
            found.append(domain)
        return tuple(found)

    def _read_domain(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        problem = domain_problem(value) if isinstance(value, str) else "is not a domain."
        if problem:
            cure = 'Write a domain name alone, as in "example.org": no user, no port, no slash.'
            return self.say(key, f"{shown(value)} {problem}", cure)
        return canonical_domain(str(value))

    def _read_route_domain(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        return "*" if value == "*" else self._read_domain(key, value, spec)

    def _read_next_hop(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if isinstance(value, list) and value:
            found = [self._read_next_hop(f"{key}[{index}]", item, spec) for index, item in enumerate(value)]
            return _WRONG if _WRONG in found else " ".join(found)
        parts = split_url(value)
        if parts and parts[0] in ("udp", "tcp", "tls"):
            return value
        cure = 'Write it as "tls://sip.example.net:5061", or as "tcp://10.0.0.2:912" for APEX.'
        return self.say(key, f"{shown(value)} is not the address of a next hop.", cure)

    def _read_seconds_or_off(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        return 0.0 if value == "off" else self._read_seconds(key, value, spec)

    def _read_name(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        is_person = isinstance(value, str) and "@" in value
        return self._read_address(key, value, spec) if is_person else self._read_domain(key, value, spec)

    def _read_address(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        cure = 'Write it like "1001@pbx.example.org".'
        try:
            if isinstance(value, str) and value.isprintable():
                return Address.im(*value.removeprefix("im:").rsplit("@", 1)) if "@" in value else Address.parse(value)
        except AddressError as error:
            return self.say(key, f"{shown(value)} is no address: {error.reason}.", cure)
        return self.say(key, f"{shown(value)} is no address.", cure)

    def _read_addresses(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if not isinstance(value, list):
            return self.say(key, f"{shown(value)} is not a list of addresses.", 'Write ["1001@pbx.example.org"].')
        found = [self._read_address(f"{key}[{index}]", item, spec) for index, item in enumerate(value)]
        return tuple(address for address in found if address is not _WRONG)

    def _read_networks(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if not isinstance(value, list):
            return self.say(key, f"{shown(value)} is not a list of networks.", 'Write ["192.168.1.0/24"].')
        networks: list[Network] = []
        for index, item in enumerate(value):
            name = f"{key}[{index}]"
            if (found := network(item)) is None:
                self.say(name, f"{shown(item)} is not a network.", 'Write it like "192.168.1.0/24" or "fd00::/8".')
            elif found.prefixlen == 0:
                self.say(
                    name,
                    f"{shown(item)} is the whole Internet.",
                    "Name the network your phones are in, or the other server.",
                )
            else:
                networks.append(found)
        return tuple(networks)

    def _read_nameservers(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if not isinstance(value, list):
            return self.say(key, f"{shown(value)} is not a list of DNS servers.", 'Write ["192.168.1.1"].')
        found: list[tuple[str, int]] = []
        for index, item in enumerate(value):
            if (address := host_port(item, 53)) is None:
                cure = 'Write its IP address, as in "192.168.1.1" or "127.0.0.1:5353".'
                self.say(f"{key}[{index}]", f"{shown(item)} is not the address of a DNS server.", cure)
            else:
                found.append(address)
        return tuple(found)

    def _read_peer_domains(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if not isinstance(value, list):
            return self.say(key, f"{shown(value)} is not a list.", 'Write ["example.net"], or ["*"] for all.')
        found = [self._read_route_domain(f"{key}[{index}]", item, spec) for index, item in enumerate(value)]
        return tuple(domain for domain in found if domain is not _WRONG)

    def _read_named_domains(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        """Like ``peer-domains``, but each by its name."""
        if not isinstance(value, list):
            return self.say(key, f"{shown(value)} is not a list.", 'Write ["example.net"].')
        found = [self._read_domain(f"{key}[{index}]", item, spec) for index, item in enumerate(value)]
        return tuple(domain for domain in found if domain is not _WRONG)

    def _read_listeners(self, key: str, value: object, spec: Mapping[str, Any]) -> Any:
        if not isinstance(value, list):
            scheme, port = next(iter(spec["ports"].items()))
            cure = f'Write a list: ["{scheme}://127.0.0.1:{port}"], or [] to switch it off.'
            return self.say(key, f"{shown(value)} is not a list of addresses.", cure)
        role = key.rpartition(".")[2].removesuffix("_listen") if key.startswith("xmpp.") else ""
        found = [self._listener(f"{key}[{i}]", item, spec["ports"], role) for i, item in enumerate(value)]
        return tuple(listener for listener in found if listener is not _WRONG)

    def _listener(self, key: str, value: object, ports: Mapping[str, int], role: str) -> Any:
        example = f'Write it as "{next(iter(ports))}://127.0.0.1:{next(iter(ports.values()))}".'
        parts = split_url(value)
        if parts is None:
            if isinstance(value, str) and re.search(r"://.*:\d{5,}$", value):
                return self.say(key, f"the port of {shown(value)} is out of range.", "Ports are 1 to 65535.")
            return self.say(key, f"{shown(value)} is not the address of a listener.", example)
        scheme, host, port = parts
        if scheme not in ports:
            allowed = " or ".join(f"{s}://" for s in ports)
            return self.say(key, f"{scheme}:// cannot be spoken here.", f"Use {allowed}.")
        host = {"localhost": "127.0.0.1", "*": "0.0.0.0"}.get(host, host)  # noqa: S104  the operator wrote it
        try:
            ip_address(host)
        except ValueError:
            cure = "Write an IP address of this machine, 0.0.0.0 for all of IPv4 or [::] for all of IPv6."
            return self.say(key, f'"{host}" is a name, not an address.', cure)
        return Listener(_TRANSPORTS[scheme], host, ports[scheme] if port is None else port, role)
