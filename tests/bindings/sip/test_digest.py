"""digest.py: challenges, credentials, replay and downgrade (RFC 7616, RFC 8760; S-21 to S-27)."""

from __future__ import annotations

import hashlib

import pytest

from comity.bindings.sip.digest import DigestClient, DigestServer, Verdict, ha1, response_value
from comity.bindings.sip.headers import AuthParams
from comity.bindings.sip.message import SipResponse

HA1 = {name: ha1(name, "alice", "a.test", "secret") for name in ("SHA-256", "MD5")}
URI = "sip:bob@a.test"
FLOW = "udp/192.0.2.1:5060"


def server(**options: bool) -> DigestServer:
    return DigestServer(b"k" * 32, **options)


def client(password: str = "secret", username: str = "alice") -> DigestClient:
    return DigestClient(username, password, realm="a.test", peer="srv", random=lambda size: b"\x01" * size)


def challenge(values: list[str], status_code: int = 401) -> SipResponse:
    name = "WWW-Authenticate" if status_code == 401 else "Proxy-Authenticate"
    return SipResponse(status_code, "", [(name, value) for value in values])


def credentials(one: DigestClient, body: bytes = b"hi", method: str = "MESSAGE") -> AuthParams:
    header = one.authorize(method, URI, body)
    assert header is not None
    return AuthParams.parse(header[1])


def check(
    one: DigestServer,
    given: AuthParams,
    *,
    body: bytes = b"hi",
    now: float = 1.0,
    flow: str = FLOW,
    known: dict[str, str] | None = HA1,
    method: str = "MESSAGE",
    uri: str = URI,
) -> Verdict:
    return one.check(given, method=method, request_uri=uri, body=body, ha1_values=known, flow=flow, now=now)


def test_response_is_that_of_rfc_7616_section_3_9_1() -> None:
    params = {
        "uri": "/dir/index.html",
        "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        "nc": "00000001",
        "cnonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        "qop": "auth",
    }
    key = ha1("MD5", "Mufasa", "http-auth@example.org", "Circle of Life")
    assert response_value("MD5", key, "GET", params, b"") == "8ca523f5e9506fed4657c9700eebdbec"
    key = ha1("SHA-256", "Mufasa", "http-auth@example.org", "Circle of Life")
    expected = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
    assert response_value("SHA-256", key, "GET", params, b"") == expected


def test_sha256_is_offered_before_md5_and_md5_can_be_switched_off() -> None:
    assert [AuthParams.parse(value).get("algorithm") for value in server().challenges("a.test", FLOW, 0.0)] == [
        "SHA-256",
        "MD5",
    ]
    (only,) = server(is_md5_offered=False).challenges("a.test", FLOW, 0.0)
    assert AuthParams.parse(only).get("algorithm") == "SHA-256"


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_client_and_server_agree_and_counts_rise(algorithm: str) -> None:
    one, other = server(), client()
    offered = [value for value in one.challenges("a.test", FLOW, 0.0) if f"algorithm={algorithm}" in value]
    assert other.take_challenge(challenge(offered), "srv")
    for _ in range(3):
        assert check(one, credentials(other)) is Verdict.ACCEPTED


def test_used_counts_are_refused_whatever_the_body() -> None:
    """S-23."""
    one, other = server(), client()
    other.take_challenge(challenge(one.challenges("a.test", FLOW, 0.0)), "srv")
    given = credentials(other)
    assert check(one, given) is Verdict.ACCEPTED
    assert check(one, given) is Verdict.REPLAYED
    assert check(one, given, body=b"other") is Verdict.REPLAYED


def test_auth_int_is_taken_and_covers_the_body() -> None:
    one, other = server(), client()
    values = [value.replace('qop="auth"', 'qop="auth,auth-int"') for value in one.challenges("a.test", FLOW, 0.0)]
    other.take_challenge(challenge(values), "srv")
    given = credentials(other)
    assert given.get("qop") == "auth-int"
    assert check(one, given, body=b"other") is Verdict.REFUSED
    assert check(one, given) is Verdict.ACCEPTED


def test_plain_auth_is_taken_but_not_twice() -> None:
    one = server()
    nonce = AuthParams.parse(one.challenges("a.test", FLOW, 0.0)[1]).get("nonce")
    params = {"username": "alice", "realm": "a.test", "nonce": nonce, "uri": URI, "qop": "auth", "nc": "00000001"}
    params |= {"cnonce": "x", "algorithm": "MD5"}
    params["response"] = response_value("MD5", HA1["MD5"], "MESSAGE", params, b"")
    given = AuthParams("digest", params)
    assert check(one, given) is Verdict.ACCEPTED
    assert check(one, given, body=b"another body") is Verdict.REPLAYED
    without = {key: value for key, value in params.items() if key not in ("qop", "nc", "cnonce")}
    without["response"] = response_value("MD5", HA1["MD5"], "MESSAGE", without, b"")
    assert check(one, AuthParams("digest", without)) is Verdict.STALE


@pytest.mark.parametrize("case", ["flow", "expired", "never issued", "future", "not base64"])
def test_nonces_from_elsewhere_are_stale(case: str) -> None:
    """S-22."""
    one, other = server(), client()
    (value, *_) = one.challenges("a.test", FLOW, 100.0)
    nonce = AuthParams.parse(value).get("nonce")
    if case == "never issued":
        value = value.replace(nonce, "A" * 22)
    elif case == "not base64":
        value = value.replace(nonce, "é" * 22)
    other.take_challenge(challenge([value]), "srv")
    now = {"expired": 401.0, "future": 99.0}.get(case, 101.0)
    flow = "udp/192.0.2.2:5060" if case == "flow" else FLOW
    assert check(one, credentials(other), now=now, flow=flow) is Verdict.STALE


def test_wrong_password_unknown_user_and_other_resource_are_refused() -> None:
    one = server()
    values = one.challenges("a.test", FLOW, 0.0)
    wrong, right = client("wrong"), client()
    wrong.take_challenge(challenge(values), "srv")
    right.take_challenge(challenge(values), "srv")
    assert check(one, credentials(wrong)) is Verdict.REFUSED
    assert check(one, credentials(right), known=None) is Verdict.REFUSED
    assert check(one, credentials(right), known={}) is Verdict.REFUSED
    assert check(one, credentials(right), uri="sip:eve@a.test") is Verdict.REFUSED
    assert check(one, credentials(right), method="REGISTER") is Verdict.REFUSED
    assert check(one, credentials(right), uri=URI + ";transport=tcp") is Verdict.ACCEPTED


def test_the_dummy_key_of_unknown_users_opens_nothing() -> None:
    one = server()
    nonce = AuthParams.parse(one.challenges("a.test", FLOW, 0.0)[0]).get("nonce")
    params = {"username": "x", "realm": "a.test", "nonce": nonce, "uri": URI, "qop": "auth", "nc": "00000001"}
    params |= {"cnonce": "x", "algorithm": "SHA-256"}
    params["response"] = response_value("SHA-256", "0" * 64, "MESSAGE", params, b"hi")
    assert check(one, AuthParams("digest", params), known=None) is Verdict.REFUSED


def test_md5_is_refused_where_only_sha256_was_offered() -> None:
    """S-27."""
    both, strict, other = server(), server(is_md5_offered=False), client()
    (_, md5) = both.challenges("a.test", FLOW, 0.0)
    other.take_challenge(challenge([md5]), "srv")
    assert check(strict, credentials(other)) is Verdict.REFUSED


@pytest.mark.parametrize("algorithm", ["SHA-512-256", "MD5-sess", "AKAv1-MD5", "\udcff"])
def test_unknown_algorithms_and_realms_do_no_harm(algorithm: str) -> None:
    """S-21."""
    one = server()
    given = AuthParams("digest", {"username": "alice", "realm": "a.test", "algorithm": algorithm, "response": "\udcff"})
    assert check(one, given) is Verdict.REFUSED
    assert one.select([given], "other.test") is None
    assert one.select([AuthParams("digest", {}), AuthParams("noone", {})], "a.test") is None
    assert one.select([given], "a.test") is given


def test_memory_of_counts_is_bounded_and_forgotten_nonces_do_not_come_back() -> None:
    one = DigestServer(b"k" * 32, most_nonces=3)
    used: list[AuthParams] = []
    for number in range(5):
        other = client()
        other.take_challenge(challenge(one.challenges("a.test", FLOW, float(number))), "srv")
        used.append(credentials(other))
        assert check(one, used[-1], now=float(number)) is Verdict.ACCEPTED
    assert len(one._counts) == 3
    assert check(one, used[0], now=5.0) is Verdict.STALE
    assert check(one, used[4], now=5.0) is Verdict.REPLAYED


class TestClient:
    def test_challenges_of_others_are_not_answered(self) -> None:
        """S-24."""
        one = client()
        values = server().challenges("a.test", FLOW, 0.0)
        assert not one.take_challenge(challenge(values, 407), "evil")
        assert not one.take_challenge(challenge(server().challenges("b.test", FLOW, 0.0)), "srv")
        assert not one.take_challenge(SipResponse(200, "OK", []), "srv")
        assert one.authorize("MESSAGE", URI, b"") is None
        assert one.take_challenge(challenge(values, 407), "srv")
        header = one.authorize("MESSAGE", URI, b"")
        assert header is not None
        assert header[0] == "Proxy-Authorization"

    def test_refused_credentials_are_not_sent_again_but_stale_ones_are(self) -> None:
        one = client()
        assert one.take_challenge(challenge(server().challenges("a.test", FLOW, 0.0)), "srv")
        assert not one.take_challenge(challenge(server().challenges("a.test", FLOW, 1.0)), "srv")
        assert one.take_challenge(challenge(server().challenges("a.test", FLOW, 1.0, is_stale=True)), "srv")
        one.accepted()
        assert one.take_challenge(challenge(server().challenges("a.test", FLOW, 2.0)), "srv")

    def test_password_of_any_script_is_hashed_as_utf8(self) -> None:
        assert ha1("MD5", "ü", "r", "ß") == hashlib.md5("ü:r:ß".encode()).hexdigest()


def test_a_nonce_of_the_process_before_serves_a_message_and_nothing_else() -> None:
    """F-K4, S-22: the count is not known over a restart, and only a MESSAGE is recognised when it is repeated."""
    before, after = server(), DigestServer(b"x" * 32)
    for one, since in ((before, 1.0), (after, 10.0)):
        one.go_on(b"kept" * 8, since)
    alice = client()
    alice.take_challenge(challenge(before.challenges("a.test", FLOW, 2.0)), "srv")
    message, register = credentials(alice), credentials(alice, method="REGISTER")
    assert check(before, message, now=3.0) is Verdict.ACCEPTED
    assert check(after, register, now=11.0, method="REGISTER") is Verdict.STALE
    assert check(after, message, now=11.0) is Verdict.ACCEPTED
    assert check(after, message, now=11.0) is Verdict.REPLAYED
    assert check(after, message, now=11.0, flow="udp/192.0.2.9:5060") is Verdict.STALE
    assert check(after, credentials(alice), now=303.0) is Verdict.STALE
