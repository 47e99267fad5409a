"""Every value of ``[limits]`` bounds something, or is named here with the part that will bring what it bounds."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from comity.config.sections import Limits

SOURCE = Path(__file__).parents[1] / "src" / "comity"

#: reliability.md section 6.2, for what is not built yet or cannot be set.
WAITING = {
    "alias_depth": "aliases",
    "max_breadth": "SIP requests sent on to another server",
    "hops": "enforced as cpim.operations.INITIAL_MAX_FORWARDS; another value has a meaning with gateways only",
    "cpim_message_sip": "checked against sip_body, which enforces it at the SIP edge",
}


def test_every_limit_reaches_the_part_that_enforces_it() -> None:
    """Section 6.2: a limit that nobody reads protects nobody."""
    text = "".join(path.read_text("utf-8") for path in SOURCE.rglob("*.py") if path.parent.name != "config")
    read = set(re.findall(r"\blimits\.(\w+)", text))
    names = {field.name for field in dataclasses.fields(Limits)}
    unread = names - read
    assert unread == set(WAITING), "update WAITING, or pass the limit on in comity.server"
