"""REGISTER read as a plan, and what is kept about a registered device (RFC 3261 section 10.3).

Place on the path: beside step 4; pure. ``binding.py`` carries the plan out through the service's registrar. A plan is
whole or a refusal: nothing is changed before every Contact of the request was found good.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field

from comity.bindings.sip.headers import NameAddr, malformed, parse_number, parse_q
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.outbound import came_directly
from comity.bindings.sip.uri import MAX_URI, Params, SipUri, parse_uri
from comity.errors import RemoteProtocolError

HostPort = tuple[str, int]

#: What the branch of every program made of PJSIP begins with (its PJSIP_RFC3261_BRANCH_ID and "Pj").
PJSIP_BRANCH = "z9hG4bKPj"
#: COMPAT PJSIP 2.15: reads 4,000 octets (PJSIP_MAX_PKT_LEN) and throws a longer request away with what came behind it,
#: even the answer to its REGISTER, so that one long text would keep its user from signing in. Less, for our Via.
PJSIP_OCTETS = 3_800
MOST_PROXIES = 8


@dataclass(frozen=True, slots=True)
class Device:
    """One registered contact; the binding's own part of ``Contact.data``."""

    uri: str
    """The Contact URI, where requests for the device go."""
    params: Params
    """Contact parameters to give back, without q and expires."""
    q: str
    """As written, "" if absent."""
    transport: str
    """udp, tcp or tls: what the REGISTER came by."""
    remote: HostPort
    """Where it came from: behind a NAT, the only address that works."""
    local: HostPort
    """The listener it came to."""
    call_id: str
    cseq: int
    until: float
    """End of the registration, seconds since the epoch."""
    takes_cpim: bool
    """message/cpim stood in the Accept of its REGISTER."""
    only_text: bool = False
    """It must not be offered an object to see whether it takes one (see ``is_harmed_by_objects``)."""
    most_octets: int = 0
    """Largest request it reads, without Via; 0 if no limit of it is known."""
    is_direct: bool = False
    """True if no other hop stands between: what a message requires can be looked at here, and is not demanded of a
    phone that knows nothing of it."""
    path: tuple[str, ...] = ()
    """The proxies through which it registered, nearest to us first, as Route values (RFC 3327): what is for it goes back through
    them. It is sent to ``remote`` all the same: a Path names no address to send to."""

    def encode(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode("utf-8", "surrogateescape")

    @classmethod
    def decode(cls, data: bytes) -> Device:
        """Read what ``encode`` wrote."""
        fields = json.loads(data.decode("utf-8", "surrogateescape"))
        for name in ("remote", "local"):
            fields[name] = (str(fields[name][0]), int(fields[name][1]))
        fields["params"] = tuple((name, value) for name, value in fields["params"])
        fields["path"] = tuple(fields.get("path", ()))
        return cls(**fields)

    @property
    def id(self) -> str:
        """What identifies the device among those of its user: its instance, else its Contact URI."""
        for name, value in self.params:
            if name == "+sip.instance" and value:
                return value.strip('"')
        return self.uri

    @property
    def priority(self) -> int:
        """0 … 100 from q; 0 if it said none."""
        return round(parse_q(self.q) * 100) if self.q else 0

    @property
    def sip_uri(self) -> SipUri:
        uri = parse_uri(self.uri)
        assert isinstance(uri, SipUri)
        return uri

    def matches(self, other: Device) -> bool:
        """True if both are the same contact by the URI comparison rules (RFC 3261 section 10.3 item 7)."""
        return self.id == other.id or self.sip_uri.matches(other.sip_uri)

    def contact_value(self, now: float) -> str:
        """The Contact value for a 200, with the seconds left."""
        params = [*self.params, *([("q", self.q)] if self.q else [])]
        params.append(("expires", str(max(0, round(self.until - now)))))
        return str(NameAddr(self.sip_uri, tuple(params)))


@dataclass(frozen=True, slots=True)
class Rules:
    """What the registrar grants; seconds."""

    least: int = 60
    most: int = 3600
    contacts: int = 10


@dataclass(frozen=True, slots=True)
class Flow:
    """How a REGISTER came."""

    transport: str
    remote: HostPort
    local: HostPort


@dataclass(slots=True)
class Plan:
    """What a good REGISTER asks for."""

    remove: list[Device] = field(default_factory=list)
    keep: list[tuple[Device, int]] = field(default_factory=list)
    """Devices to add or refresh, with their lease in seconds."""
    status_code: int = 200
    """Anything else: refuse with it and change nothing."""
    headers: list[tuple[str, str]] = field(default_factory=list)


def check_contacts(request: SipRequest) -> None:
    """Raise RemoteProtocolError for what no registrar can read, before anybody is asked for a password."""
    if isinstance(request.to.uri, SipUri) and request.to.uri.user:
        request.contacts  # noqa: B018 - the accessor parses, and caches what it parsed
        return
    raise malformed("To is not the SIP URI of a user")


def plan_registration(
    request: SipRequest,
    devices: Sequence[Device],
    flow: Flow,
    rules: Rules,
    *,
    now: float,
    others: int = 0,
    gone: Collection[str] = (),
) -> Plan:
    """Decide what a REGISTER does to the devices its user has now; ``now`` is seconds since the epoch.

    Args:
        request: authenticated, for this user.
        devices: the user's SIP contacts.
        flow: how the request came.
        rules: what may be granted.
        now: seconds since the epoch.
        others: contacts of the user by other protocols, which count against the limit.
        gone: ids of devices whose connection is lost: at the limit the oldest of them make room.

    Raises:
        RemoteProtocolError: a header breaks the grammar or the rules (hint 400).
    """
    cseq = request.cseq.number
    if request.is_star:
        if request.expires != 0 or len(request.listed("contact")) != 1:
            raise malformed("Contact * needs Expires 0 and no other Contact")
        if any(device.call_id == request.call_id and cseq <= device.cseq for device in devices):
            return Plan(status_code=500)
        return Plan(remove=list(devices))
    plan = Plan()
    present = list(devices)
    for contact in request.contacts:
        lease = _lease(contact, request.expires, rules)
        if 0 < lease < rules.least:
            return Plan(status_code=423, headers=[("Min-Expires", str(rules.least))])
        device = _device(request, contact, flow, now + lease)
        old = [other for other in present if other.matches(device)]
        if any(other.call_id == device.call_id and cseq <= other.cseq for other in old):
            return Plan(status_code=500)  # out of order (RFC 3261 section 10.3 item 7)
        present = [other for other in present if other not in old]
        plan.remove += [other for other in old if other.id != device.id or not lease]
        if lease:
            present.append(device)
            plan.keep.append((device, lease))
    kept = {device.id for device, _ in plan.keep}
    for stale in sorted((d for d in present if d.id in gone and d.id not in kept), key=lambda d: d.until):
        if len(present) + others <= rules.contacts:
            break
        present.remove(stale)
        plan.remove.append(stale)
    if plan.keep and len(present) + others > rules.contacts:
        return Plan(status_code=403)
    return plan


def _lease(contact: NameAddr, expires: int | None, rules: Rules) -> int:
    text = contact.param("expires")
    wanted = rules.most if expires is None else expires
    if text is not None:
        wanted = parse_number(text, "expires", 2**32 - 1)
    return min(wanted, rules.most)


def _device(request: SipRequest, contact: NameAddr, flow: Flow, until: float) -> Device:
    uri = contact.uri
    if not isinstance(uri, SipUri) or uri.headers or len(str(uri)) > MAX_URI:
        # A stored "?Route=" would be put into every request to the device (RFC 4475 section 3.3.15).
        raise malformed("a Contact must be a SIP URI without headers")
    q = contact.param("q") or ""
    if q:
        parse_q(q)
    params = tuple((name, value) for name, value in contact.params if name not in ("q", "expires"))
    if sum(len(name) + len(value or "") for name, value in params) > 1024:
        raise malformed("the parameters of a Contact are too long")
    accepts = {text.partition(";")[0].strip().lower() for text in request.listed("accept")}
    return Device(
        str(uri),
        params,
        q,
        flow.transport,
        flow.remote,
        flow.local,
        request.call_id,
        request.cseq.number,
        until,
        "message/cpim" in accepts,
        is_harmed_by_objects(request.via.branch, accepts, request.value("user-agent") or ""),
        PJSIP_OCTETS if request.via.branch.startswith(PJSIP_BRANCH) else 0,
        came_directly(request),
        path_of(request),
    )


def path_of(request: SipRequest) -> tuple[str, ...]:
    """The Path of a REGISTER (RFC 3327 section 4), written anew. Raises RemoteProtocolError (hint 400)."""
    values = request.listed("path")
    if len(values) > MOST_PROXIES:
        raise malformed("Path is longer than any way")
    found = [NameAddr.parse(value, "Path").uri for value in values]
    if not all(isinstance(uri, SipUri) and not uri.headers and len(str(uri)) <= MAX_URI for uri in found):
        raise malformed("Path holds something else than SIP URIs of proxies")
    return tuple(f"<{uri}>" for uri in found)


_OBJECTS = frozenset({"*/*", "message/*", "multipart/*", "multipart/signed", "application/pkcs7-mime"})


def is_harmed_by_objects(branch: str, accepts: Collection[str], user_agent: str = "") -> bool:
    """True if a client does not refuse what it cannot show, as others do with 415, but comes to harm or hides it.

    Args:
        branch: of the Via of its REGISTER.
        accepts: media types in the Accept of its REGISTER, without parameters.
        user_agent: what it calls itself there.
    """
    # COMPAT Twinkle 1.10: says 200 to application/pkcs7-mime and shows "Unsupported content type.": its sender would
    # hear that an encrypted message was delivered.
    if user_agent.startswith("Twinkle/"):
        return True
    # COMPAT Linphone 5.1 (belle-sip 5.1): a multipart whose boundary is quoted makes it crash, at each sign-in again.
    # It says text/plain there and nothing that an object could come as, so it is taken at its word.
    if "text/plain" in accepts and not _OBJECTS.intersection(accepts):
        return True
    # COMPAT PJSUA 2.15 and programs made of it: says 200 to any content and shows what is not text as an empty text or
    # as markup. It need not name itself.
    return branch.startswith(PJSIP_BRANCH)


def registered_user(request: SipRequest) -> SipUri:
    """The address-of-record a REGISTER is about: the URI of To (checked by ``check_contacts``)."""
    uri = request.to.uri
    if not isinstance(uri, SipUri):
        raise RemoteProtocolError("To is not a SIP URI", hint="400")
    return uri
