"""Names to addresses: RFC 3263 section 4 for SIP, SRV records for everyone else.

Place on the path: before step 10, when a next hop is a name. Gives ``Target`` values, best first; the caller tries
them in order (RFC 3263 section 4.3) and asks again for the next transaction.

Choices the RFC leaves open, and ours: of several transports a domain offers the safest one wins, and a failure
over TLS never falls back to one in the clear (an attacker could force it); IPv4 addresses come before IPv6 ones;
a good answer is used for up to an hour past its TTL while the domain's servers cannot be reached (F-26).
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.NAPTR
import dns.rdtypes.IN.SRV
import dns.resolver

from comity.bindings.base import HostPort, Target, Transport
from comity.errors import DeliveryError, NoRouteError
from comity.service.interfaces import Clock

QUERY_SECONDS = 5.0
TRIES = 2
"""5 s, twice (U-06)."""
EDNS_PAYLOAD = 1232
"""Octets of an answer over UDP that no usual path fragments (DNS flag day 2020); larger ones come by TCP."""
MOST_RECORDS = 16
MOST_TARGETS = 16
"""Records and addresses used of one answer, however many it holds (U-05)."""
MOST_ALIASES = 8
"""CNAME records followed from one name (U-05)."""
MOST_QUESTIONS = 128
"""Questions under way at once, each with a socket of its own: a silent server must not use up all of them."""
MOST_ENTRIES = 4096
STALE_SECONDS = 3600.0
TROUBLE_SECONDS = 30.0
"""For so long nothing is asked again that there is an old answer for and that a server did not answer: each message would wait."""
NEGATIVE_SECONDS = 60.0
LONGEST_SECONDS = 86_400.0

DEFAULT_PORTS: dict[Transport, int] = {"udp": 5060, "tcp": 5060, "tls": 5061}
"""RFC 3261 section 19.1.2."""

SRV_PREFIXES: dict[Transport, str] = {"tls": "_sips._tcp", "tcp": "_sip._tcp", "udp": "_sip._udp"}
"""RFC 3263 section 4.2; in our order of preference."""

NAPTR_SERVICES: dict[str, Transport] = {"SIPS+D2T": "tls", "SIP+D2T": "tcp", "SIP+D2U": "udp"}
"""RFC 3263 section 4.1; D2S and SIPS+D2U are not supported here and so discarded."""


_ENDS: ContextVar[list[float] | None] = ContextVar("_ENDS", default=None)


@contextmanager
def noting_ends() -> Iterator[list[float]]:
    """Note when each answer ends that is used meanwhile, so that what follows from them is not remembered for longer (ADDR-16)."""
    ends: list[float] = []
    token = _ENDS.set(ends)
    try:
        yield ends
    finally:
        _ENDS.reset(token)


@dataclass(frozen=True, slots=True)
class _Answer:
    """The records of one name and type; empty if there are none."""

    records: tuple[dns.rdata.Rdata, ...]
    fetched: float
    ttl: float
    canonical: dns.name.Name
    """The name at the end of its CNAME records; the name itself if there are none."""
    good_until: float = 0.0
    """Past its TTL, and DNS does not answer: used until then before it is asked for again."""


class Resolver:
    """Asks DNS, remembers answers for their TTL, and puts targets in order.

    Args:
        clock: time for the cache.
        nameservers: servers to ask; None: those of /etc/resolv.conf.
        uniform: gives a float in [0, 1) for the weights of RFC 2782 (they share load and keep no secret).
        hosts: a hosts(5) file that is looked into before DNS for addresses, or None.
    """

    def __init__(
        self,
        clock: Clock,
        nameservers: Sequence[HostPort] | None = None,
        *,
        uniform: Callable[[], float] = random.random,
        hosts: Path | None = Path("/etc/hosts"),
    ) -> None:
        self._clock = clock
        self._uniform = uniform
        self._cache: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], _Answer] = {}
        self._asking: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], asyncio.Task[_Answer]] = {}
        self._free = asyncio.Semaphore(MOST_QUESTIONS)
        self._hosts = {} if hosts is None else _read_hosts(hosts)
        self._resolver = self._make(nameservers)

    @staticmethod
    def _make(nameservers: Sequence[HostPort] | None) -> dns.asyncresolver.Resolver:
        if nameservers is None:
            try:
                resolver = dns.asyncresolver.Resolver()
            except (dns.resolver.NoResolverConfiguration, OSError):
                # Without resolv.conf the local host is asked, as the C library does.
                resolver = dns.asyncresolver.Resolver(configure=False)
                resolver.nameservers = ["127.0.0.1"]
        else:
            resolver = dns.asyncresolver.Resolver(configure=False)
            resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in nameservers]
        resolver.use_edns(0, 0, EDNS_PAYLOAD)
        resolver.timeout = QUERY_SECONDS
        resolver.lifetime = QUERY_SECONDS * TRIES
        return resolver

    # --- RFC 3263 ------------------------------------------------------------------------------------------

    async def sip(
        self, service: Literal["sip", "sips"], host: str, port: int | None, transport: Transport | None
    ) -> list[Target]:
        """Find where a SIP or SIPS URI leads (RFC 3263 section 4).

        Args:
            service: the URI's scheme.
            host: its TARGET: maddr if present, else the host; brackets of an IPv6 literal may stay.
            port: its port, None if it has none.
            transport: its transport parameter, None if it has none.

        Raises:
            DeliveryError: the name does not exist, offers no such service, or DNS does not answer.
        """
        host = host.removeprefix("[").removesuffix("]")
        if service == "sips":
            if transport == "udp":
                raise NoRouteError(f"{host} cannot be reached: SIPS does not go over UDP (RFC 3261 section 26.2.2)")
            transport = "tls" if transport == "tcp" else transport
        literal = _literal(host)
        if literal is not None or port is not None:
            # Section 4.1: UDP for a SIP URI and TCP (here under TLS) for a SIPS URI.
            chosen = transport or ("tls" if service == "sips" else "udp")
            if literal is not None:
                return [Target(chosen, literal, port or DEFAULT_PORTS[chosen], host if chosen == "tls" else "")]
            assert port is not None
            return await self._by_address(host, port, chosen)
        if transport is not None:
            return await self._by_srv(f"{SRV_PREFIXES[transport]}.{host}", host, DEFAULT_PORTS[transport], transport)
        return await self._by_naptr(service, host)

    async def service(self, prefix: str, domain: str, port: int, transport: Transport) -> list[Target]:
        """Find targets by the SRV records at ``prefix.domain``, else by the domain's addresses at ``port``.

        For XMPP (RFC 6120 section 3.2.1) and for RFC 3861. Raises DeliveryError."""
        domain = domain.removeprefix("[").removesuffix("]")
        literal = _literal(domain)
        if literal is not None:
            return [Target(transport, literal, port, domain if transport == "tls" else "")]
        return await self._by_srv(f"{prefix}.{domain}", domain, port, transport)

    async def has_sips(self, host: str) -> bool:
        """True if ``host`` says by NAPTR or SRV records where it takes SIP under TLS. Raises DeliveryError."""
        return bool(await self._naptrs("sips", host) or await self.services(SRV_PREFIXES["tls"], host))

    async def _naptrs(self, service: str, host: str) -> list[tuple[int, int, Transport, dns.name.Name]]:
        """Order, preference, transport and name of the SRV records, of those that apply."""
        return [
            (record.order, record.preference, NAPTR_SERVICES[name], record.replacement)
            for record in await self._records(_name(host), "NAPTR")
            if isinstance(record, dns.rdtypes.IN.NAPTR.NAPTR)
            and record.flags.lower() == b"s"
            and not record.regexp
            and (name := record.service.decode("ascii", "replace").upper()) in NAPTR_SERVICES
            and (service == "sip" or name.startswith("SIPS"))
        ]

    async def _by_naptr(self, service: str, host: str) -> list[Target]:
        applicable = await self._naptrs(service, host)
        if not applicable:
            return await self._by_any_srv(service, host)
        # RFC 2915 section 2: once an order has a match, higher ones must not be considered.
        first = min(order for order, _, _, _ in applicable)
        targets: list[Target] = []
        error: DeliveryError | None = None
        best = sorted((row for row in applicable if row[0] == first), key=lambda row: row[1])
        for _, _, transport, replacement in best:
            try:
                targets += await self._by_srv(replacement, host, DEFAULT_PORTS[transport], transport)
            except DeliveryError as problem:
                error = problem
        if not targets:
            raise error or NoRouteError(f"{host} offers no SIP service")
        return targets[:MOST_TARGETS]

    async def _by_any_srv(self, service: str, host: str) -> list[Target]:
        """No NAPTR: query for every transport we have and take the safest that is offered (section 4.1)."""
        transports: list[Transport] = ["tls"] if service == "sips" else ["tls", "tcp", "udp"]
        answers = await asyncio.gather(
            *(self._records(_name(f"{SRV_PREFIXES[transport]}.{host}"), "SRV") for transport in transports)
        )
        for transport, records in zip(transports, answers, strict=True):
            if records:
                return await self._by_records(records, host, transport)
        fallback: Transport = "tls" if service == "sips" else "udp"
        return await self._by_address(host, DEFAULT_PORTS[fallback], fallback)

    async def _by_srv(self, name: str | dns.name.Name, host: str, port: int, transport: Transport) -> list[Target]:
        records = await self._records(_name(name) if isinstance(name, str) else name, "SRV")
        if not records:
            return await self._by_address(host, port, transport)
        return await self._by_records(records, host, transport)

    async def _by_records(self, records: Sequence[dns.rdata.Rdata], host: str, transport: Transport) -> list[Target]:
        """Order SRV records, then look up the address of each; those without one are left out."""
        usable = [(transport, record) for record in records if isinstance(record, dns.rdtypes.IN.SRV.SRV)]
        return await self.targets_of(usable, host, host.rstrip(".") if transport == "tls" else "")

    async def targets_of(
        self, services: Sequence[tuple[Transport, dns.rdtypes.IN.SRV.SRV]], host: str, server_name: str
    ) -> list[Target]:
        """Put SRV records in their order, whatever transport each stands for (XEP-0368), and look up their addresses.

        Raises:
            NoRouteError: ``host`` says that it offers none of this, or no server of it has an address.
            DeliveryError: their addresses cannot be looked up now.
        """
        offered = {id(record): transport for transport, record in services if record.target != dns.name.root}
        if not offered:
            raise NoRouteError(f"{host} says it does not offer this service (RFC 2782)")
        ordered = self.order([record for _, record in services if id(record) in offered])[:MOST_RECORDS]
        found = await asyncio.gather(*(self._addresses(record.target) for record in ordered), return_exceptions=True)
        targets: list[Target] = []
        for record, addresses in zip(ordered, found, strict=True):
            if not isinstance(addresses, BaseException):
                transport = offered[id(record)]
                targets += [Target(transport, address, record.port, server_name) for address in addresses]
            elif not isinstance(addresses, DeliveryError):
                raise addresses
        if not targets:
            problems = [error for error in found if isinstance(error, DeliveryError)]
            problems.sort(key=lambda error: isinstance(error, NoRouteError))  # what may be better later is said first
            raise problems[0] if problems else NoRouteError(f"the servers of {host} have no address")
        return targets[:MOST_TARGETS]

    async def services(self, prefix: str, domain: str) -> list[dns.rdtypes.IN.SRV.SRV]:
        """The SRV records at ``prefix.domain``. Raises DeliveryError."""
        records = await self._records(_name(f"{prefix}.{domain}"), "SRV")
        return [record for record in records if isinstance(record, dns.rdtypes.IN.SRV.SRV)]

    async def texts(self, name: str, kind: str) -> list[str]:
        """The records of any kind as a zone file has them, names with their final dot. Raises DeliveryError."""
        return [record.to_text() for record in await self._records(_name(name), kind)]

    async def canonical(self, domain: str) -> str:
        """The name that ``domain`` is an alias of (CNAME), else itself; A-labels. Raises DeliveryError."""
        name = _name(domain)
        canonical = (await self._answer(name, "A")).canonical
        return domain if canonical == name else canonical.to_text(omit_final_dot=True).lower()

    async def addresses(self, domain: str) -> list[str]:
        """The addresses of ``domain``, none if it has none. Raises DeliveryError."""
        return (await self._addresses(_name(domain)))[:MOST_TARGETS]

    def order(self, records: Sequence[dns.rdtypes.IN.SRV.SRV]) -> list[dns.rdtypes.IN.SRV.SRV]:
        """Put SRV records in the order to try them: by priority, then drawn by weight (RFC 2782, "Usage rules")."""
        ordered: list[dns.rdtypes.IN.SRV.SRV] = []
        for priority in sorted({record.priority for record in records}):
            # "any SRV records with weight 0 are placed at the beginning of the list"
            left = sorted((record for record in records if record.priority == priority), key=lambda r: r.weight > 0)
            while left:
                draw = int(self._uniform() * (sum(record.weight for record in left) + 1))
                running = 0
                for record in left:
                    running += record.weight
                    if running >= draw:
                        break
                left.remove(record)
                ordered.append(record)
        return ordered

    async def _by_address(self, host: str, port: int, transport: Transport) -> list[Target]:
        addresses = await self._addresses(_name(host))
        if not addresses:
            raise NoRouteError(f"{host} has no address in DNS")
        server_name = host.rstrip(".") if transport == "tls" else ""
        return [Target(transport, address, port, server_name) for address in addresses[:MOST_TARGETS]]

    # --- DNS -----------------------------------------------------------------------------------------------

    async def _addresses(self, name: dns.name.Name) -> list[str]:
        known = self._hosts.get(name.to_text(omit_final_dot=True).lower())
        if known is not None:
            return known
        answers = await asyncio.gather(self._records(name, "A"), self._records(name, "AAAA"), return_exceptions=True)
        found: list[str] = []
        for answer in answers:
            if not isinstance(answer, BaseException):
                found += [
                    record.address
                    for record in answer[:MOST_RECORDS]
                    if isinstance(record, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA)
                ]
        problems = [answer for answer in answers if isinstance(answer, BaseException)]
        if problems and not found:
            raise problems[0]
        return found

    async def _records(self, name: dns.name.Name, kind: str) -> tuple[dns.rdata.Rdata, ...]:
        return (await self._answer(name, kind)).records

    async def _answer(self, name: dns.name.Name, kind: str) -> _Answer:
        """Records of ``name``, from the cache while their TTL lasts; simultaneous questions are asked once."""
        key = (name, dns.rdatatype.from_text(kind))
        known = self._cache.get(key)
        if known is not None and self._clock.now() < max(known.fetched + known.ttl, known.good_until):
            _note(known)
            return known
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(*key))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        try:
            answer = await asyncio.shield(task)
        except DeliveryError:
            now = self._clock.now()
            if known is None or now >= known.fetched + known.ttl + STALE_SECONDS:
                raise
            answer = self._cache[key] = replace(known, good_until=now + TROUBLE_SECONDS)
        _note(answer)
        return answer

    async def _ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> _Answer:
        text = name.to_text(omit_final_dot=True)
        try:
            async with self._free:
                answer = await self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as error:
            return self._remember(name, kind, (), _negative_ttl(error, name), error.canonical_name)
        except (dns.resolver.LifetimeTimeout, dns.exception.Timeout) as error:
            raise DeliveryError(f"DNS did not answer for {text} within {QUERY_SECONDS * TRIES:g} s") from error
        except dns.resolver.NoNameservers as error:
            raise DeliveryError(f"no DNS server could answer for {text}") from error
        except (dns.exception.DNSException, OSError) as error:
            raise DeliveryError(f"DNS for {text} failed: {error}") from error
        chain = answer.chaining_result
        if len(chain.cnames) > MOST_ALIASES:
            raise DeliveryError(f"{text} is an alias of an alias, more than {MOST_ALIASES} times")
        if answer.rrset is None:
            return self._remember(name, kind, (), min(NEGATIVE_SECONDS, chain.minimum_ttl), chain.canonical_name)
        return self._remember(name, kind, tuple(answer.rrset), float(chain.minimum_ttl), chain.canonical_name)

    def _remember(
        self,
        name: dns.name.Name,
        kind: dns.rdatatype.RdataType,
        records: tuple[dns.rdata.Rdata, ...],
        ttl: float,
        canonical: dns.name.Name,
    ) -> _Answer:
        answer = _Answer(records, self._clock.now(), min(ttl, LONGEST_SECONDS), canonical)
        self._cache.pop((name, kind), None)
        while len(self._cache) >= MOST_ENTRIES:
            self._cache.pop(next(iter(self._cache)))
        self._cache[name, kind] = answer
        return answer


def _note(answer: _Answer) -> None:
    ends = _ENDS.get()
    if ends is not None:
        ends.append(max(answer.fetched + answer.ttl, answer.good_until))


def _negative_ttl(error: dns.resolver.NXDOMAIN, name: dns.name.Name) -> float:
    """How long "there is no such name" holds (RFC 2308): as the SOA record says, at most a minute."""
    response: dns.message.QueryMessage = error.response(name)  # type: ignore[no-untyped-call]  # dnspython: no annotations
    try:
        return min(NEGATIVE_SECONDS, response.resolve_chaining().minimum_ttl)
    except dns.exception.DNSException:
        return NEGATIVE_SECONDS


def _name(text: str) -> dns.name.Name:
    """Make an absolute DNS name of A-labels."""
    try:
        return dns.name.from_text(text.encode("ascii").decode("ascii"))
    except (dns.exception.DNSException, UnicodeError) as error:
        raise NoRouteError(f"{text[:128]!r} is not a host name") from error


def _literal(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _read_hosts(path: Path) -> dict[str, list[str]]:
    """Read a hosts(5) file; a line that is none is passed over, as everyone does."""
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except OSError:
        return {}
    found: dict[str, list[str]] = {}
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        if _literal(address) is not None:
            for name in names:
                found.setdefault(name.lower(), []).append(address)
    return found
