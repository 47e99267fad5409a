#!/usr/bin/env python3
"""Atheris target: any text is an actor or refused, the entries looked up are those that match, any document is taken or refused.

The first line is who wants to do something, each other line an actor and the actions it is permitted; all of it is read as a
stored document too.

python fuzz/fuzz_access_entries.py -max_len=4096 CORPUS_DIR
"""

from __future__ import annotations

import re

from run import run

from comity.bindings.apex.endpoint import Endpoint
from comity.cpim.access_entries import TOKENS, AccessEntry, Actor, best
from comity.cpim.address import Address
from comity.errors import AddressError
from comity.service.presence.entries import _read_document, _unpacked

OWNER = Address.im("fred", "example.com")


def matches(actor: Actor, who: Endpoint) -> bool:
    """RFC 3341 section 3.1 by its own words: each wildcard is one or more characters (none of a domain's subdomains)."""
    domain = actor.domain.removeprefix("*.")
    is_below = actor.domain.startswith("*.") and who.domain[-1] not in "0123456789]"
    if not (actor.domain in ("*", who.domain) or (is_below and f".{who.domain}".endswith(f".{domain}"))):
        return False
    if actor.name in ("*", "apex=*"):
        return who.is_service is (actor.name == "apex=*")
    if re.sub(r"\\(.)", r"\1", actor.name) != who.address:
        return False
    if not actor.resource:
        return not (who.subaddress and who.is_service)
    return bool(who.subaddress) and (actor.resource == "*" or re.sub(r"\\(.)", r"\1", actor.resource) == who.subaddress)


def one_input(data: bytes) -> None:
    if _read_document(data) is None:
        _unpacked(data)
    first, *lines = data.decode("utf-8", "surrogateescape").split("\n")
    entries: dict[str, AccessEntry] = {}
    actors: list[Actor] = []
    for line in lines:
        text, _, actions = line.partition(" ")
        try:
            actor = Actor.parse(text)
        except AddressError:
            continue
        assert Actor.parse(actor.key) == actor
        actors.append(actor)
        entries[actor.key] = AccessEntry("", text, tuple(actions.split()))
    try:
        who = Endpoint.parse(first)
    except AddressError:
        return
    found = best(entries, OWNER, Address("im", who.address, who.domain), who.subaddress, has_defaults=False)
    assert (found is not None) is any(matches(actor, who) for actor in actors)
    if found is not None:
        assert all(found.permits(token) for token in TOKENS) or not found.permits("all:all")


if __name__ == "__main__":
    run(one_input)
