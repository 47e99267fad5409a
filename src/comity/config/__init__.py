"""The configuration file: read, checked, and turned into frozen dataclasses with every mistake as a sentence.

Place on the path: before it. ``sections`` says what may be written, ``reader`` turns ``comity.toml`` into those
dataclasses, ``machine`` asks the machine whether they can work here (files, certificates, ports). The environment
overrides nothing: what the file says is what runs.
"""

from __future__ import annotations

from pathlib import Path

from comity.config.conflicts import warnings_about
from comity.config.machine import machine_mistakes
from comity.config.reader import read
from comity.config.sections import (
    ApexConfig,
    ComponentConfig,
    Config,
    FederationConfig,
    Limits,
    PeerConfig,
    PolicyConfig,
    ProtectionConfig,
    RouteConfig,
    SecurityConfig,
    ServerConfig,
    SipConfig,
    StoreConfig,
    TlsConfig,
    WebConfig,
    XcapConfig,
    XmppConfig,
)
from comity.errors import ConfigError, ConfigErrors

__all__ = [
    "ApexConfig",
    "ComponentConfig",
    "Config",
    "ConfigErrors",
    "FederationConfig",
    "Limits",
    "PeerConfig",
    "PolicyConfig",
    "ProtectionConfig",
    "RouteConfig",
    "SecurityConfig",
    "ServerConfig",
    "SipConfig",
    "StoreConfig",
    "TlsConfig",
    "WebConfig",
    "XcapConfig",
    "XmppConfig",
    "check",
    "load",
    "read",
    "warnings_about",
]


def load(path: Path) -> Config:
    """Read ``path`` and make sure that a server can start with it on this machine.

    Raises:
        ConfigErrors: with all mistakes of the text, or, if there are none, all mistakes of the machine.
    """
    config = read(path)
    mistakes = machine_mistakes(config)
    if mistakes:
        raise ConfigErrors(str(path), mistakes)
    return config


def check(path: Path) -> list[ConfigError]:
    """Every mistake ``load`` would raise; an empty list means that a server can start."""
    try:
        load(path)
    except ConfigErrors as errors:
        return list(errors.mistakes)
    return []
