"""What does not fit together: mistakes that only two keys make.

Place on the path: before it, after ``reader`` took each key alone and before ``machine`` looks around.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from comity.bindings.base import Listener
from comity.config.components import component_mistakes
from comity.config.sections import Config, Limits
from comity.config.values import is_loopback, shown, split_url
from comity.cpim.address import Address
from comity.errors import ConfigError


def mistakes_between(config: Config, earlier: list[ConfigError]) -> Iterator[ConfigError]:
    """Find mistakes that only two keys together make; those of keys already at fault are left out."""
    yield from _shared_ports(config)
    if not any(mistake.key.startswith("policy.plaintext_from") for mistake in earlier):
        yield from _open_plaintext(config)
    yield from _store_mistakes(config)
    if config.xcap.listen and not config.policy.presence:
        cure = "Remove it, or leave presence = false out."
        yield ConfigError(
            "xcap.listen", "has nothing to keep without presence.", cure, where=config.where("xcap.listen")
        )
    yield from _double_routes(config)
    yield from _own_domains(config)
    yield from _peer_mistakes(config, earlier)
    yield from _map_mistakes(config)
    yield from _trunk_mistakes(config)
    yield from component_mistakes(config, earlier)
    yield from _protection_mistakes(config, earlier)
    if config.federation.dns and not config.federation.order:
        where = config.where("federation.order")
        yield ConfigError("federation.order", "names no protocol.", 'Write order = ["xmpp", "sip"].', where=where)
    yield from _limit_mistakes(config)


def warnings_about(config: Config) -> list[ConfigError]:
    """What works and is not wise."""
    found: list[ConfigError] = []
    federation = config.federation
    if federation.targets == 1:
        problem = "gives up a domain when the first of its servers does not answer."
        cure = "RFC 3861 asks for at least two: write targets = 2 or more, or remove it."
        found.append(ConfigError("federation.targets", problem, cure, where=config.where("federation.targets")))
    if federation.dns and config.tls.trust is None:
        problem = "lets us reach other domains, but none of their servers can prove itself here: nobody can answer."
        cure = 'Name the authorities to believe: below [tls], trust = "/etc/ssl/certs/ca-certificates.crt".'
        found.append(ConfigError("federation.dns", problem, cure, where=config.where("federation.dns")))
    return found


def _shared_ports(config: Config) -> Iterator[ConfigError]:
    taken: list[tuple[str, Listener]] = []
    for key, listener in config.listeners():
        for other_key, other in taken:
            same_kind = (listener.transport == "udp") == (other.transport == "udp")
            if same_kind and listener.port == other.port != 0 and _overlap(listener.host, other.host):
                problem = f"{listener.host} port {listener.port} is already taken by {other_key}."
                yield ConfigError(key, problem, "Give each listener a port of its own.", where=config.where(key))
        taken.append((key, listener))


def _overlap(one: str, other: str) -> bool:
    first, second = ip_address(one), ip_address(other)
    return first.version == second.version and (first == second or first.is_unspecified or second.is_unspecified)


def _open_plaintext(config: Config) -> Iterator[ConfigError]:
    """Plain SIP, HTTP and components' streams outside loopback need a network that is exempt by name (reliability.md section 6.1)."""
    for key, listener in config.listeners():
        is_plain = listener.transport != "tls" and key.startswith(("sip.", "web.", "xmpp.component_listen"))
        if is_plain and not is_loopback(listener.host) and not config.policy.plaintext_from:
            problem = f"{listener.url} would take unencrypted traffic from anywhere, because plaintext_from is empty."
            cure = (
                'Write your network below [policy], as in plaintext_from = ["192.168.1.0/24"], or listen on 127.0.0.1.'
            )
            yield ConfigError(key, problem, cure, where=config.where(key))


def _store_mistakes(config: Config) -> Iterator[ConfigError]:
    store, where = config.store, config.where("store.url")
    if store.engine == "nats" and not store.url:
        yield ConfigError("store.url", "is missing.", 'engine = "nats" needs url = "tls://HOST:4222".', where=where)
    elif store.engine == "sqlite" and store.url:
        cure = 'Remove it, or write engine = "nats".'
        yield ConfigError("store.url", "means nothing to the sqlite engine.", cure, where=where)
    elif store.engine == "nats":
        for part in store.url.split(","):
            parts = split_url(part.strip())
            if parts is None or parts[0] not in ("nats", "tls"):
                cure = 'Write url = "tls://HOST:4222".'
                yield ConfigError("store.url", f"{shown(part)} is not the address of a NATS server.", cure, where=where)


def _double_routes(config: Config) -> Iterator[ConfigError]:
    seen: dict[str, int] = {}
    for index, route in enumerate(config.routes):
        if route.domain and route.domain in seen:
            key, problem = f"route[{index}].domain", f'"{route.domain}" already has route[{seen[route.domain]}].'
            yield ConfigError(key, problem, "Keep one of the two.", where=config.where(key))
        seen.setdefault(route.domain, index)


def _own_domains(config: Config) -> Iterator[ConfigError]:
    """Our own domains are reached by no route, and nobody speaks for them."""
    own = config.server.domains
    written = [(f"route[{index}].domain", route.domain) for index, route in enumerate(config.routes)]
    for index, peer in enumerate(config.peers):
        written.append((f"peer[{index}].name", peer.name))
        written += [(f"peer[{index}].speaks_for[{place}]", domain) for place, domain in enumerate(peer.speaks_for)]
    for key, domain in written:
        if domain in own:
            cure = "Remove it here, or from [server] domains."
            yield ConfigError(key, f'"{domain}" is a domain of this server.', cure, where=config.where(key))


def _peer_mistakes(config: Config, earlier: list[ConfigError]) -> Iterator[ConfigError]:
    seen: dict[str, int] = {}
    for index, peer in enumerate(config.peers):
        if peer.name and peer.name in seen:
            key, problem = f"peer[{index}].name", f'"{peer.name}" already has peer[{seen[peer.name]}].'
            yield ConfigError(key, problem, "Put both into one.", where=config.where(key))
        seen.setdefault(peer.name, index)
        is_wrong_already = any(mistake.key.startswith(f"peer[{index}].") for mistake in earlier)
        if peer.name and not peer.address and config.tls.trust is None and not is_wrong_already:
            key = f"peer[{index}]"
            cure = (
                'Name the authorities of its certificate: below [tls], trust = "ca.pem"; or its address = ["10.0.0.2"].'
            )
            yield ConfigError(key, "can prove itself by nothing.", cure, where=config.where(key))
    has_udp = any(listener.transport == "udp" for listener in config.sip.listen)
    for index, route in enumerate(config.routes):
        if "udp:" in route.next_hop and not has_udp:
            key = f"route[{index}].next_hop"
            cure = 'Add one to listen below [sip], as in "udp://127.0.0.1:5060", or use tls://.'
            yield ConfigError(key, "needs a UDP socket of ours to send from.", cure, where=config.where(key))


def _map_mistakes(config: Config) -> Iterator[ConfigError]:
    """Each name on a link is one person's or domain's, and ours have one where theirs are called like ours."""
    links = {route.domain: f"route[{index}]" for index, route in enumerate(config.routes)}
    links |= {component.domain: "xmpp.component" for component in config.xmpp.component}
    named: dict[tuple[str, Address | str], str] = {}
    called: dict[tuple[str, Address | str], str] = {}
    rules: list[tuple[str, str, Address | str, Address | str]] = [
        (f"route[{index}].as", route.domain, route.domain, route.as_)
        for index, route in enumerate(config.routes)
        if route.as_
    ]
    rules += [(f"map[{index}]", rule.on, rule.address, rule.is_) for index, rule in enumerate(config.maps)]
    for key, on, core, wire in rules:
        if not (on and core and wire):
            continue
        where = config.where(key)
        if isinstance(core, Address) != isinstance(wire, Address):
            cure = "Write two addresses, or two domains."
            yield ConfigError(key, "calls a person by a domain, or a domain by a person.", cure, where=where)
        if on not in links or on == "*":
            cure = "Write the domain of a [[route]] or a component."
            yield ConfigError(f"{key}.on", f'"{on}" is no link of this server.', cure, where=where)
        for taken, name, problem in ((named, core, "has two names"), (called, wire, "is the name of two")):
            if (on, name) in taken:
                problem = f"{shown(str(name))} {problem} on this link: see {taken[on, name]}."
                yield ConfigError(key, problem, "Keep one of the two.", where=where)
            taken.setdefault((on, name), key)
    for (on, wire), key in called.items():
        if wire in config.server.domains and (on, wire) not in named:
            problem = f'"{wire}" is a domain of this server, which has no name of its own on that link.'
            cure = f'Give it one: [[map]] address = "{wire}", on = "{on}", is = "xmpp.{wire}".'
            yield ConfigError(key, problem, cure, where=config.where(key))


def _trunk_mistakes(config: Config) -> Iterator[ConfigError]:
    """What only a SIP trunk has, and what belongs together there."""
    for index, route in enumerate(config.routes):
        name = f"route[{index}]"
        if bool(route.user) != (route.password_file is not None):
            missing = "password_file" if route.user else "user"
            cure = 'Write both, user = "comity" and password_file = "trunk.password", or neither.'
            yield ConfigError(f"{name}.{missing}", "is missing.", cure, where=config.where(name))
        written = [("user", route.user), ("realm", route.realm), ("register", route.register)]
        for key, value in written:
            if value and route.via != "sip":
                cure = "Remove it, or reach the domain by SIP."
                yield ConfigError(f"{name}.{key}", "is for SIP alone.", cure, where=config.where(f"{name}.{key}"))
        if (route.user or route.register) and (route.domain == "*" or not route.next_hop):
            cure = "Give each server to sign in at a route of its own with a next_hop."
            yield ConfigError(name, "signs in nowhere in particular.", cure, where=config.where(name))


def _protection_mistakes(config: Config, earlier: list[ConfigError]) -> Iterator[ConfigError]:
    seen: dict[str, int] = {}
    for index, rule in enumerate(config.policy.protection):
        name = f"policy.protection[{index}]"
        if rule.of and rule.of in seen:
            key, problem = f"{name}.of", f'"{rule.of}" already has policy.protection[{seen[rule.of]}].'
            yield ConfigError(key, problem, "Put both into one.", where=config.where(key))
        seen.setdefault(rule.of, index)
        for word, is_asked in (("verify", rule.verify != "off"), ("operations", rule.operations == "signed")):
            if is_asked and config.security.trust is None:
                key = f"{name}.{word}"
                cure = 'Name the authorities of people\'s certificates: below [security], trust = "people-ca.pem".'
                yield ConfigError(key, "has nobody to believe signers by.", cure, where=config.where(key))
        if rule.verify != "off" and not rule.verdicts:
            key = f"{name}.verdicts"
            cure = 'Write verdicts = ["bad-signature"], or leave it out for the usual ones.'
            yield ConfigError(key, "names no verdict to look for.", cure, where=config.where(key))
        is_wrong_already = any(mistake.key.startswith(f"{name}.") for mistake in earlier)
        asks = rule.require or rule.require_from or rule.verify != "off" or rule.operations != "any"
        if not (asks or is_wrong_already):
            cure = (
                'Write require = ["tls"], require_from = ["tls"], verify = "mark" or operations = "signed", '
                "or remove the block."
            )
            yield ConfigError(name, "asks for nothing.", cure, where=config.where(name))


def _limit_mistakes(config: Config) -> Iterator[ConfigError]:
    limits: Limits = config.limits
    pairs: list[tuple[str, bool, str, str]] = [
        (
            "dedup_window",
            limits.dedup_window < limits.message_lifetime,
            "is shorter than message_lifetime, so a repeat could be delivered twice.",
            "Make it at least as long.",
        ),
        (
            "disk_refuse",
            limits.disk_refuse <= limits.disk_warn,
            "is not above disk_warn, so nobody would be warned.",
            "Make it larger than disk_warn.",
        ),
        (
            "cpim_message",
            limits.cpim_message * 4 / 3 > limits.client_stanza,
            "is too large: as base64 such an object does not fit client_stanza.",
            "Keep it below three quarters of client_stanza.",
        ),
        (
            "sip_message_tcp",
            limits.sip_message_tcp <= limits.sip_headers,
            "is not larger than sip_headers, so no message could have a body.",
            "Make it at least sip_headers and sip_body together.",
        ),
        (
            "cpim_message_sip",
            limits.cpim_message_sip > limits.sip_body,
            "is larger than sip_body, which has to hold it.",
            "Make it at most sip_body.",
        ),
        (
            "beep_window",
            limits.beep_window > limits.beep_window_max,
            "is larger than beep_window_max.",
            "Make it at most beep_window_max.",
        ),
    ]
    for name, is_wrong, problem, cure in pairs:
        if is_wrong:
            key = f"limits.{name}"
            yield ConfigError(key, problem, cure, where=config.where(key))
