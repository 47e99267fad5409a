"""Who may subscribe and unsubscribe: check_watcher, check_holder (SEC-31 to SEC-33, T19, N-05 to N-10)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import Reason, SubscribeOperation
from comity.service.interfaces import Origin
from comity.service.policy import check_holder, check_watcher

ALICE, BOB = Address.parse("pres:alice@a.test"), Address.parse("pres:bob@b.test")
ASKED = SubscribeOperation(ALICE, BOB, "sub-1", "t1", 3600)
HER_SESSION = Origin(Address.parse("im:alice@a.test"), "sip", "192.0.2.1", True)
EVE = Origin(Address.parse("im:eve@a.test"), "xmpp", "192.0.2.2", True)
PEER = Origin(Address.parse("im:gateway@a.test"), "xmpp", "192.0.2.3", True, domains=frozenset({"a.test"}))
OTHER_PEER = replace(PEER, domains=frozenset({"y.test"}))


@pytest.mark.parametrize("duration", [3600, 0])
@pytest.mark.parametrize(("origin", "is_hers"), [(HER_SESSION, True), (EVE, False), (PEER, True), (OTHER_PEER, False)])
def test_only_her_own_session_or_her_domain(origin: Origin, is_hers: bool, duration: int) -> None:
    """SEC-31, SEC-33: subscribe and unsubscribe alike; a peer of y.test does not subscribe somebody of a.test."""
    refusal = check_watcher(replace(ASKED, duration=duration), origin, is_ours=False)
    assert (refusal is None) is is_hers
    if refusal is not None:
        assert refusal.reason is Reason.DENIED


def test_a_peer_speaks_for_its_domains_and_not_as_its_own_name() -> None:
    """Its principal has the watcher's name, its domains do not hold hers."""
    assert check_watcher(ASKED, replace(OTHER_PEER, principal=HER_SESSION.principal), is_ours=False) is not None


@pytest.mark.parametrize(
    "changed",
    [
        replace(ASKED, watcher=ALICE.with_scheme("im")),
        replace(ASKED, target=BOB.with_scheme("im")),
        replace(ASKED, duration=-1),
    ],
)
def test_what_is_no_subscription_is_refused(changed: SubscribeOperation) -> None:
    refusal = check_watcher(changed, HER_SESSION, is_ours=False)
    assert refusal is not None
    assert refusal.reason is Reason.SYNTAX


def test_the_right_subscript_id_of_another_watcher_is_nobodys() -> None:
    """SEC-32: the answer is that of an unknown one, so nothing is learned either."""
    assert check_holder(ASKED, ALICE) is None
    refusal = check_holder(replace(ASKED, duration=0), Address.parse("pres:eve@a.test"))
    assert refusal is not None
    assert refusal.reason is Reason.NO_SUCH_USER
