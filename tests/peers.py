"""Real peer programs from Debian: found, or a clear reason why not."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

#: Program → Debian package.
PACKAGES = {
    "openssl": "openssl",
    "gpgsm": "gpgsm",
    "gpg": "gpg",
    "gcc": "gcc",
    "libssl.so": "libssl-dev",
    "kamailio": "kamailio",
    "presence_xml.so": "kamailio-presence-modules",
    "db_sqlite.so": "kamailio-sqlite-modules",
    "tls.so": "kamailio-tls-modules",
    "prosody": "prosody",
    "lunbound.so": "lua-unbound",
    "ejabberdctl": "ejabberd",
    "erl": "erlang-base",
    "sipp": "sip-tester",
    "nats-server": "nats-server",
    "nsd": "nsd",
    "baresip": "baresip-core",
    "linphone-daemon": "linphone-cli",
    "linphonec": "linphone-cli",
    "mcabber": "mcabber",
    "profanity": "profanity",
    "twinkle-console": "twinkle-console",
    "libpurple.so.0": "libpurple0",
}


def need_program(name: str) -> str:
    """Path of a peer program, or of a shared library; without it the test fails in CI and is skipped elsewhere."""
    path: str | None
    if ".so" in name:
        folders = [Path("/usr/lib").glob(pattern) for pattern in ("*", "*/kamailio/modules", "*/lua/5.*")]
        path = next((str(folder / name) for each in folders for folder in each if (folder / name).exists()), None)
    else:
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    _do_without(f"the peer program {name} is not installed; as root: apt-get install -y {PACKAGES.get(name, name)}")


def need_module(name: str) -> None:
    """Make sure of a package of Python that is a peer; without it as ``need_program``."""
    if importlib.util.find_spec(name) is None:
        _do_without(f"the peer {name} is not installed (pyproject.toml, dev); on Python 3.13 pjsua2 has no wheel yet")


def _do_without(reason: str) -> NoReturn:
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
