"""The public surface is deliberate: design.md section 4, "Python"."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "comity.cpim": ["CpimMessage", "MalformedMessage"],
    "comity.secure": ["Verdict", "sign", "verify"],
    "comity.client": ["connect"],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_promised_names_are_there(module: str) -> None:
    imported = importlib.import_module(module)
    assert set(PUBLIC[module]) <= set(imported.__all__)
    assert all(hasattr(imported, name) for name in imported.__all__)


@pytest.mark.parametrize("binding", ["sip", "xmpp"])
def test_each_binding_has_the_same_files(binding: str) -> None:
    for part in ("wire", "events", "session", "mapping", "config", "binding"):
        importlib.import_module(f"comity.bindings.{binding}.{part}")


def test_a_message_has_the_attributes_the_design_names() -> None:
    cpim = importlib.import_module("comity.cpim")
    for name in [
        "raw",
        "headers",
        "from_",
        "to",
        "cc",
        "date_time",
        "subject",
        "require",
        "content_headers",
        "content",
        "parse",
        "build",
    ]:
        assert hasattr(cpim.CpimMessage, name) or name in cpim.CpimMessage.__annotations__, name
