"""What does not fit together about external components, ours and others' (XEP-0114).

Place on the path: before it, with ``conflicts.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from comity.config.sections import ComponentConfig, Config
from comity.config.values import is_loopback
from comity.errors import ConfigError


def component_mistakes(config: Config, earlier: list[ConfigError]) -> Iterator[ConfigError]:
    """Find mistakes that a component makes together with the rest of the file; those already at fault are left out."""
    yield from _attaching(config, earlier)
    yield from _attached(config)


def _attaching(config: Config, earlier: list[ConfigError]) -> Iterator[ConfigError]:
    own, routed = config.server.domains, {route.domain for route in config.routes}
    seen: dict[str, int] = {}
    for index, component in enumerate(config.xmpp.component):
        name, domain = f"xmpp.component[{index}]", component.domain
        if any(mistake.key.startswith(f"{name}.") for mistake in earlier):
            continue
        if domain in seen:
            key, problem = f"{name}.domain", f'"{domain}" already has xmpp.component[{seen[domain]}].'
            yield ConfigError(key, problem, "Keep one of the two.", where=config.where(key))
        seen.setdefault(domain, index)
        if domain not in own and not routed & {domain, "*"}:
            key, problem = f"{name}.domain", f'"{domain}" leads nowhere: nobody signs in there, and no route goes on.'
            cure = "Write it into [server] domains, or give it a [[route]]."
            yield ConfigError(key, problem, cure, where=config.where(key))
        for served in component.served:
            if served in own or served == domain:
                key, problem = f"{name}.serves", f'"{served}" is a domain of this server, not of the other one.'
                cure = 'Name the other server\'s domains: serves = ["example.net"].'
                yield ConfigError(key, problem, cure, where=config.where(key))
        if not component.tls and not _may_be_plain(config, component):
            key, problem = f"{name}.host", f"{component.host} would be spoken to without TLS, and is not this machine."
            cure = (
                "Write tls = true if that server offers it, or the network it is in into plaintext_from below [policy]."
            )
            yield ConfigError(key, problem, cure, where=config.where(key))


def _may_be_plain(config: Config, component: ComponentConfig) -> bool:
    """True for what is this machine or in an exempt network; a name may still turn out to be."""
    if component.host == "localhost":
        return True
    try:
        address = ip_address(component.host)
    except ValueError:
        return bool(config.policy.plaintext_from)
    return is_loopback(component.host) or any(address in network for network in config.policy.plaintext_from)


def _attached(config: Config) -> Iterator[ConfigError]:
    taken = {*config.server.domains, *(component.domain for component in config.xmpp.component)}
    routed = {route.domain for route in config.routes}
    seen: dict[str, int] = {}
    for index, accept in enumerate(config.xmpp.accept):
        key, domain = f"xmpp.accept[{index}].domain", accept.domain
        if not domain:
            continue
        if domain in seen:
            problem = f'"{domain}" already has xmpp.accept[{seen[domain]}].'
            yield ConfigError(key, problem, "Keep one of the two.", where=config.where(key))
        seen.setdefault(domain, index)
        if domain in taken or domain in routed:
            problem = f'"{domain}" is served by something else already.'
            cure = "Give the component a domain of its own."
            yield ConfigError(key, problem, cure, where=config.where(key))
    if config.xmpp.accept and not config.xmpp.component_listen:
        key = "xmpp.accept[0]"
        cure = 'Write below [xmpp]: component_listen = ["tcp://127.0.0.1:5347"].'
        yield ConfigError(key, "cannot attach: there is no port for components.", cure, where=config.where(key))
