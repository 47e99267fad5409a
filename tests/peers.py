"""Real peer programs from Debian: found, or a clear reason why not."""

from __future__ import annotations

import os
import shutil

import pytest

#: Program → Debian package.
PACKAGES = {
    "openssl": "openssl",
    "gpgsm": "gpgsm",
    "gpg": "gpg",
    "kamailio": "kamailio",
    "prosody": "prosody",
    "ejabberdctl": "ejabberd",
    "sipp": "sip-tester",
    "nats-server": "nats-server",
    "baresip": "baresip-core",
    "linphone-daemon": "linphone-cli",
    "mcabber": "mcabber",
    "profanity": "profanity",
}


def need_program(name: str) -> str:
    """Path of a peer program; without it the test fails in CI (CI=true) and is skipped with its reason elsewhere."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    reason = f"the peer program {name} is not installed; as root: apt-get install -y {PACKAGES.get(name, name)}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
