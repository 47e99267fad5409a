"""Which access entry counts: cpim/access_entries.py against RFC 3341 sections 3 and 3.1 (APEX-24)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.access_entries import (
    TOKENS,
    AccessEntry,
    Actor,
    best,
    candidates,
    default_entries,
    is_action,
    key_of,
    permits,
)
from comity.cpim.address import Address
from comity.errors import AddressError

FRED = Address.im("fred", "example.com")
ALL = "all:all"


def table(actions: Mapping[str, str]) -> dict[str, AccessEntry]:
    return {Actor.parse(a).key: AccessEntry("", a, tuple(text.split())) for a, text in actions.items()}


def someone(text: str) -> tuple[Address, str]:
    """An address and its subaddress."""
    local, _, domain = text.rpartition("@")
    name, _, resource = local.partition("/")
    return Address.im(name, domain), resource


def actions_for(kept: Mapping[str, AccessEntry], text: str) -> str | None:
    found = best(kept, FRED, *someone(text))
    return None if found is None else " ".join(found.actions)


class TestTheExampleOfSection31:
    FRED = table(
        {
            "wilma@example.com": ALL,
            "mr.slate@example.com": "core:data",
            "*@example.com": "core:data presence:subscribe presence:watch",
            "*@*": "core:data",
        }
    )
    WHITEBOARD = table({"barney/appl=wb@example.com": "core:data"})

    @pytest.mark.parametrize(
        ("actor", "actions"),
        [
            ("wilma@example.com", ALL),
            ("apex=report@example.com", ALL),
            ("mr.slate@example.com", "core:data"),
            ("barney@example.com", "core:data presence:subscribe presence:watch"),
            ("barney/appl=wb@example.com", "core:data presence:subscribe presence:watch"),
            ("anyone@elsewhere.example", "core:data"),
            ("apex=presence@elsewhere.example", "core:data"),
        ],
    )
    def test_who_may_do_what_towards_fred(self, actor: str, actions: str) -> None:
        """APEX-24: fred, wilma, mr.slate, the services and everybody else."""
        assert actions_for(self.FRED, actor) == actions

    def test_a_subaddress_of_fred_has_entries_of_its_own(self) -> None:
        """APEX-24: barney's whiteboard, which none of fred's own entries is about."""
        assert actions_for(self.WHITEBOARD, "barney/appl=wb@example.com") == "core:data"
        assert actions_for(self.WHITEBOARD, "barney@example.com") is None
        assert actions_for(self.WHITEBOARD, "betty/appl=wb@example.com") is None

    def test_the_entry_for_everybody_does_not_override_that_for_services(self) -> None:
        """RFC 3341 section 3."""
        kept = table({"*@*": "core:data"})
        assert actions_for(kept, "apex=access@example.com") == ALL
        assert actions_for(kept, "apex=access@b.example") == "core:data"
        assert actions_for(table({"apex=*@example.com": "all:none"}), "apex=access@example.com") == "all:none"


class TestOrder:
    @pytest.mark.parametrize(
        ("actor", "better", "worse"),
        [
            ("x@bar.foo.example.com", "*@*.foo.example.com", "*@*.example.com"),
            ("x@bar.foo.example.com", "*@*.example.com", "x@*"),
            ("x@bar.foo.example.com", "*@bar.foo.example.com", "x@*.bar.foo.example.com"),
            ("x@example.com", "*@*.example.com", "x@*.com"),
            ("fred/a@example.com", "fred/a@example.com", "fred/*@example.com"),
            ("fred/a@example.com", "fred/*@example.com", "fred@example.com"),
            ("fred/a@example.com", "fred@example.com", "*@example.com"),
            ("apex=pubsub/a@example.com", "apex=pubsub/*@example.com", "apex=*@example.com"),
        ],
    )
    def test_the_domain_first_then_the_local_part(self, actor: str, better: str, worse: str) -> None:
        """APEX-24: exact beats a wildcard, a shorter wildcard a longer one."""
        assert actions_for(table({better: "core:data", worse: "all:none"}), actor) == "core:data"
        assert actions_for(table({worse: "core:data", better: "all:none"}), actor) == "all:none"

    @pytest.mark.parametrize(
        ("pattern", "actor"),
        [
            ("fred/*@example.com", "fred@example.com"),  # not empty
            ("*@example.com", "apex=report@example.com"),
            ("apex=*@*", "fred@example.com"),
            ("*@*.example.com", "x@badexample.com"),
            ("x@*.0.0.1.example", "x@10.0.0.1"),
            ("Fred@example.com", "fred@example.com"),
            (r"\*@example.com", "fred@example.com"),
        ],
    )
    def test_what_does_not_match(self, pattern: str, actor: str) -> None:
        assert Actor.parse(pattern).key not in set(candidates(*someone(actor)))

    def test_escaped_characters_are_themselves(self) -> None:
        r"""APEX-24: ``a\b*c`` is written ``a\\b\*c``, and only that names it."""
        kept = table({r"a\\b\*c@example.com": "core:data"})
        assert actions_for(kept, r"a\b*c@example.com") == "core:data"
        assert actions_for(kept, "a\\bxc@example.com") is None
        assert actions_for(table({r"fred/\*@example.com": "core:data"}), "fred/*@example.com") == "core:data"
        assert actions_for(table({r"fred/\*@example.com": "core:data"}), "fred/x@example.com") is None

    def test_a_name_with_a_solidus_is_nobodys_subaddress(self) -> None:
        """An XMPP user may be called ``fred/x``: he is not ``fred``, nor his subaddress."""
        stranger = Address.im("fred/x", "example.com")
        kept = table({"fred/x@example.com": ALL, "fred/*@example.com": ALL, "fred@example.com": ALL})
        assert best(kept, Address.im("owner", "b.example"), stranger) is None
        assert best(kept, Address.im("owner", "b.example"), Address.im("x@fred", "example.com")) is None

    def test_our_own_users_are_named_without_regard_to_case(self) -> None:
        """ADDR-4; those of other domains as they are written (ADDR-27)."""
        assert key_of("FRED/A@Example.COM", lambda domain: domain == "example.com") == "fred/A@example.com"
        assert key_of("FRED@Example.COM", lambda domain: False) == "FRED@example.com"
        assert key_of("FRED@*", lambda domain: True) == "FRED@*"


class TestWritten:
    @pytest.mark.parametrize(
        "text",
        [
            *("", "@", "fred", "@example.com", "fred@", "fre*d@example.com", "**@*", "*/x@example.com"),
            *("apex=*/x@example.com", "fred/**@a.test", "fred/@a.test", "fred/a/b@a.test", "fred@*example.com"),
            *("fred@*.", "fred@*.*", "fred@foo.*.com", "fred@*.10.0.0.1", "fred@*.[::1]", "a\\b@a.test", "a\\@a.test"),
            *("f\x00red@a.test", "x" * 2100 + "@a.test", "fred/\\@a.test", "apex=p*@a.test", "\ud800@a.test"),
        ],
    )
    def test_what_is_no_actor_is_refused(self, text: str) -> None:
        with pytest.raises(AddressError):
            Actor.parse(text)

    def test_defaults_are_of_the_owner_and_of_services(self) -> None:
        """RFC 3341 section 3; ``*@*`` is the account's own."""
        assert {key: entry.actions for key, entry in default_entries(FRED).items()} == {
            "fred@example.com": (ALL,),
            "apex=*@example.com": (ALL,),
            "apex=*@*": ("core:data",),
        }


class TestActions:
    @pytest.mark.parametrize(
        ("actions", "action", "expected"),
        [
            ("core:data", "core:data", True),
            ("core:data", "presence:watch", False),
            ("all:data", "core:data", True),
            ("presence:all", "presence:watch", True),
            ("presence:all", "core:data", False),
            ("all:all", "anything:here", True),
            ("all:none", "core:data", False),
            ("all:none core:data", "core:data", True),
            ("presence:none", "presence:watch", False),
            ("presence:watch", "presence:all", False),
            ("", "core:data", False),
            ("", "all:none", True),
        ],
    )
    def test_all_stands_for_any_and_none_for_nothing(self, actions: str, action: str, *, expected: bool) -> None:
        """APEX-23: ``all:none`` is how a broader grant is overridden."""
        assert permits(actions.split(), action) is expected

    def test_actions_are_pairs(self) -> None:
        assert all(is_action(token) for token in (*TOKENS, ALL, "all:none", "pub-sub.2:a_b"))
        assert not any(is_action(text) for text in ("", "core", "core:", ":data", "core:data:x", "core data", "cörе:x"))


_names = st.sampled_from(["a", "b", "a*", "a\\", "apex=p", "apex=q"])
_resources = st.sampled_from(["", "s", "t", "*"])
_domains = st.sampled_from(["x.test", "y.x.test", "z.y.x.test", "test", "10.0.0.1"])
_actors = st.builds(
    lambda name, resource, domain: f"{name}/{resource}@{domain}" if resource else f"{name}@{domain}",
    st.sampled_from(["a", "b", r"a\*", r"a\\", "apex=p", "apex=q"]),
    st.sampled_from(["", "s", "t", "*", r"\*"]),
    st.sampled_from(["*", "x.test", "y.x.test", "*.x.test", "*.y.x.test", "*.test", "10.0.0.1"]),
)
_wild = st.builds(
    lambda name, domain: f"{name}@{domain}",
    st.sampled_from(["*", "apex=*"]),
    st.sampled_from(["*", "x.test", "*.x.test", "*.test"]),
)


def _rank(actor: Actor, name: str, resource: str, domain: str) -> tuple[int, int] | None:
    """The two sort keys of section 3.1 by its own words: 0 for an exact match, else the length of what the wildcard stands for."""
    local = f"{name}/{resource}" if resource else name
    pattern = f"{actor.name}/{actor.resource}" if actor.resource else actor.name
    is_service = name.startswith("apex=")
    if actor.domain == domain:
        by_domain = 0
    elif actor.domain == "*":
        by_domain = len(domain) + 2
    elif actor.domain.startswith("*.") and not domain[-1].isdigit():
        parent = actor.domain[2:]
        if domain != parent and not domain.endswith(f".{parent}"):
            return None
        by_domain = len(domain) - len(parent) + 1
    else:
        return None
    if actor.name in ("*", "apex=*"):
        return (by_domain, len(local) + 2) if is_service == (actor.name == "apex=*") else None
    plain = re.sub(r"\\(.)", r"\1", pattern)
    if plain == local and actor.resource != "*":
        return by_domain, 0
    own_name = re.sub(r"\\(.)", r"\1", actor.name)
    if own_name != name or not resource:
        return None
    if actor.resource == "*":
        return by_domain, len(resource)
    # Ours: who is named without a subaddress is named with any (see ``candidates``).
    return None if actor.resource or is_service else (by_domain, len(local) + 1)


@given(st.lists(_actors | _wild, max_size=12, unique=True), _names, _resources, _domains)
def test_looking_up_finds_what_section_31_sorts_first(
    written: list[str], name: str, resource: str, domain: str
) -> None:
    """APEX-24: the few keys looked up are the whole order of the RFC, computed here by matching every entry."""
    ranked = [
        (rank, text) for text in written if (rank := _rank(Actor.parse(text), name, resource, domain)) is not None
    ]
    found = best(
        table({text: f"entry:n{number}" for number, text in enumerate(written)}),
        FRED,
        Address.im(name, domain),
        resource,
        has_defaults=False,
    )
    if not ranked:
        assert found is None
    else:
        assert found is not None
        assert found.actions == (f"entry:n{written.index(min(ranked)[1])}",)


@given(st.text(max_size=40))
def test_any_text_is_an_actor_or_refused(text: str) -> None:
    """The canonical form is itself an actor, the same one."""
    try:
        actor = Actor.parse(text)
    except AddressError:
        return
    assert Actor.parse(actor.key) == actor
