"""The composition root: configuration in, running server out; no decisions.

Place on the path: around all of it. Read ``start`` to see in which order the parts come up, and ``stop`` for the
way back: nothing listens before everything that is stored can be delivered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from cryptography import x509

from comity import __version__
from comity.admin.commands import Commands
from comity.admin.control import ControlServer
from comity.admin.engine import open_store
from comity.admin.presence import PresenceDesk, StoredPresence, keeping_limits
from comity.admin.records import EnvelopeRecords
from comity.bindings.apex.binding import ApexBinding
from comity.bindings.apex.config import ApexConfig
from comity.bindings.apex.config import ListenAddress as ApexAddress
from comity.bindings.base import Binding, Listener
from comity.bindings.sip.binding import SipBinding
from comity.bindings.sip.config import SipConfig, TrunkConfig
from comity.bindings.xmpp.binding import XmppBinding
from comity.bindings.xmpp.config import HostConfig, ListenAddress, XmppConfig
from comity.config import Config, warnings_about
from comity.config.sections import RouteConfig
from comity.cpim.address import Address
from comity.cpim.message import DEFAULT, CpimLimits
from comity.cpim.protection import read_requirements
from comity.errors import ConfigError
from comity.failpoints import failpoint
from comity.net.driver import LoopClock
from comity.net.https import HttpsServer
from comity.net.limits import NetLimits
from comity.net.network import AsyncNetwork
from comity.net.outbound import OutboundPolicy
from comity.net.resolver import Resolver
from comity.net.tls import TlsContexts, TlsFiles
from comity.secure.inspector import SignatureInspector
from comity.secure.replay import StoredReplayCache
from comity.service.credentials import FailureGuard, StoreAccounts
from comity.service.finding import HopFinder
from comity.service.interfaces import Store
from comity.service.maps import LinkMaps
from comity.service.maps import Rule as MapRule
from comity.service.peers import KnownPeers, Peer
from comity.service.pipeline import Pipeline
from comity.service.policy import Limits
from comity.service.presence.publications import PublicationLimits
from comity.service.presence.quota import PeerLimits
from comity.service.presence.service import AccountPresence
from comity.service.presence.watching import PresenceLimits
from comity.service.protection import Protection, Rule
from comity.service.routes import Route, StaticRoutes
from comity.xcap.handler import XcapHandler
from comity.xcap.resources import Resources
from comity.xcap.standing import Standing

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""How long deliveries in flight may take to end at an orderly stop; what is left stays in the store."""


class Server:
    """One running node.

    Args:
        config: as ``comity.config.load`` gives it.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._store: Store | None = None
        self._pipeline: Pipeline | None = None
        self._presence: AccountPresence | None = None
        self._network: AsyncNetwork | None = None
        self._xcap: HttpsServer | None = None
        self._control: ControlServer | None = None
        self._tls: TlsContexts | None = None
        self._operations: StoredReplayCache | None = None
        self._bindings: list[Binding] = []

    @property
    def addresses(self) -> Sequence[str]:
        """Addresses really listened on, as URLs."""
        if self._network is None:
            return []
        urls = [_url(bound.listener.transport, *bound.address) for bound in self._network.bound]
        return urls + [_url("https", *bound.address) for bound in (self._xcap.bound if self._xcap else ())]

    async def start(self) -> None:
        """Open the store, take up what it holds, open the listeners.

        Raises:
            ConfigError: a certificate or an address cannot be used.
            StoreError: the store cannot be opened; StoreDamaged if its file fails its checks.
        """
        config, clock = self.config, LoopClock()
        for warning in warnings_about(config):
            log.warning("%s", warning)
        try:
            self._tls = TlsContexts(config.tls.certificate, config.tls.key, config.tls.trust, has_peers=True)
            self._store = store = await open_store(config)
            accounts = _accounts(config, store)
            node = config.server.domains[0]
            protection = Protection(_rules(config), self._inspector(config))
            self._pipeline = pipeline = Pipeline(
                *(store, accounts, clock, node, _limits(config)),
                protection=protection,
                peers=_peers(config),
                routes=_routes(config),
                maps=_maps(config),
            )
            self._network = network = _network(config, clock, self._tls, lambda: pipeline.lag)
            pipeline.delivery.finder = HopFinder(network, config.federation.order)
            self._bindings = [SipBinding(_sip_config(config)), XmppBinding(_xmpp_config(config))]
            if config.apex.listen or _calls_relays(config):
                self._bindings.append(ApexBinding(_apex_config(config)))
            desk: PresenceDesk
            if config.policy.presence:
                self._presence = presence = AccountPresence(
                    store,
                    accounts,
                    clock,
                    pipeline.admit_subscription,
                    hop=pipeline.routes.hop,
                    find=partial(pipeline.find_hops, kind="pres"),
                    limits=_presence_limits(config),
                    keeping=keeping_limits(config),
                )
                await presence.start()
                pipeline.presence, pipeline.inbox, desk = presence, presence.keeping.inbox, presence
            else:
                # Whom accounts block, and what they decided for when it is on again.
                stored = StoredPresence(store, config)
                await stored.start()
                pipeline.inbox, desk = stored.keeping.inbox, stored
            await pipeline.start({binding.name: binding for binding in self._bindings})
            for binding in self._bindings:
                await binding.start(pipeline, network)
            for binding in self._bindings:
                await network.open(binding)
            if config.xcap.listen:
                await self._open_xcap(pipeline, store, accounts, network, clock)
            commands = Commands(
                store,
                config.server.domains,
                EnvelopeRecords(node),
                changed=lambda address: self._changed(accounts, address),
                woken=pipeline.delivery.wake,
                dropped=pipeline.delivery.dropped,
                drop=pipeline.drop,
                protected=pipeline.protection.put,
                presence=desk,
                can_verify=config.security.trust is not None,
                iterations=config.policy.scram_iterations,
            )
            self._control = ControlServer(commands, config.control_socket)
            await self._control.start()
        except BaseException:
            await self.stop()
            raise

    async def _open_xcap(
        self, pipeline: Pipeline, store: Store, accounts: StoreAccounts, network: AsyncNetwork, clock: LoopClock
    ) -> None:
        config = self.config
        assert pipeline.presence is not None, "without presence the configuration has no [xcap]"
        resources = Resources(pipeline.presence, accounts, Standing(store), clock, config.limits.contact_list)
        await resources.start()
        handler = XcapHandler(resources, accounts, config.server.domains, clock, is_md5_offered=config.policy.sip_md5)
        self._xcap = HttpsServer(network, handler.handle, clock)
        await self._xcap.open(config.xcap.listen)

    def _changed(self, accounts: StoreAccounts, address: Address) -> None:
        """An account was changed: forget its keys; what is signed in stays signed in until it has to prove itself."""
        accounts.forget(address)

    def _inspector(self, config: Config) -> SignatureInspector | None:
        """Who looks at signatures, and remembers signed operations over a restart; None without authorities to do it by."""
        trust = config.security.trust
        if trust is None:
            return None
        try:
            anchors = tuple(x509.load_pem_x509_certificates(trust.read_bytes()))
        except (OSError, ValueError) as error:
            raise ConfigError("security.trust", f"{trust} holds no certificate.", "Name a PEM file.") from error
        self._operations = StoredReplayCache("operations", config.server.data)
        return SignatureInspector(anchors, self._operations)

    async def reload(self, config: Config) -> None:
        """Take over certificates; what else changed needs a restart and is said.

        Raises ConfigError if the new certificate cannot be used; the former one stays.
        """
        assert self._tls is not None
        tls = config.tls
        await asyncio.to_thread(self._tls.reload, TlsFiles(tls.certificate, tls.key, tls.trust))
        failpoint("server.reload")
        log.info("%s is shown to who connects from now on; it ends %s", tls.certificate, _day(self._tls.expires))
        kept = (
            "server",
            "sip",
            "xmpp",
            "apex",
            "xcap",
            "limits",
            "policy",
            "security",
            "store",
            "routes",
            "peers",
            "federation",
            "maps",
        )
        changed = [name for name in kept if getattr(config, name) != getattr(self.config, name)]
        if changed:
            log.warning("[%s] changed; restart to use it", "], [".join(changed))

    async def stop(self) -> None:
        """Refuse what is new, let what is in flight end, close; whatever is left is in the store."""
        if self._control is not None:
            await self._control.stop()
        if self._network is not None:
            self._network.stop_listening()
        drains = [asyncio.ensure_future(binding.drain()) for binding in self._bindings]
        if self._xcap is not None:
            drains.append(asyncio.ensure_future(self._xcap.close()))
        failpoint("server.drain")
        if drains:
            _, late = await asyncio.wait(drains, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            for outcome in await asyncio.gather(*drains, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("draining failed", exc_info=outcome)
        if self._presence is not None:
            self._presence.stop()
        if self._pipeline is not None:
            await self._pipeline.stop()
        if self._network is not None:
            await self._network.close()
        if self._operations is not None:
            self._operations.close()
        if self._store is not None:
            await self._store.close()


def _day(when: datetime | None) -> str:
    return "never" if when is None else f"{when:%Y-%m-%d %H:%M} UTC"


def _accounts(config: Config, store: Store) -> StoreAccounts:
    guard = FailureGuard(config.limits.failures_per_address, config.limits.ban)
    return StoreAccounts(store, config.server.domains, guard)


def _network(config: Config, clock: LoopClock, tls: TlsContexts, lag: Callable[[], float]) -> AsyncNetwork:
    federation = config.federation
    resolver = Resolver(clock, federation.nameservers, hosts=None) if federation.nameservers else None
    return AsyncNetwork(
        clock,
        limits=_net_limits(config),
        tls=tls,
        resolver=resolver,
        outbound=OutboundPolicy(federation.networks),
        lag=lag,
        most_targets=federation.targets,
    )


def _calls_relays(config: Config) -> bool:
    """True if relays of APEX may have to be called, whether we listen or not."""
    is_found = config.federation.dns and "apex" in config.federation.order
    return is_found or any(route.via == "apex" for route in config.routes)


def _peers(config: Config) -> KnownPeers:
    peers = [Peer(peer.name, peer.address, frozenset(peer.speaks_for), peer.asserted_identity) for peer in config.peers]
    return KnownPeers(config.server.domains, peers)


def _routes(config: Config) -> StaticRoutes:
    written = [
        Route(route.domain, route.via, route.next_hop, frozenset(route.transit), is_always_tls=route.via == "xmpp")
        for route in config.routes
    ]
    return StaticRoutes([*written, *_component_routes(config)], finds=config.federation.dns)


def _component_routes(config: Config) -> list[Route]:
    """What components imply: the domains of a server that we are attached to, and those of what is attached to us."""
    hosts = _hosts(config)
    routes: list[Route] = []
    for domain in dict.fromkeys(domain for host in hosts for domain in sorted(host.serves)):
        there = [host for host in hosts if domain in host.serves]
        routes.append(Route(domain, "xmpp", there[0].url, frozenset(host.domain for host in there)))
    is_protected = all(listener.transport == "tls" for listener in config.xmpp.component_listen)
    next_hop = "tls://attached" if is_protected else "tcp://attached"
    # What is attached to us is as much a part of this server as its accounts: whoever may write to us may write to it.
    routes += [Route(accept.domain, "xmpp", next_hop, frozenset({"*"})) for accept in config.xmpp.accept]
    return routes


def _hosts(config: Config) -> tuple[HostConfig, ...]:
    return tuple(
        HostConfig(one.domain, one.host, one.port, one.secret, has_tls=one.tls, serves=frozenset(one.served))
        for one in config.xmpp.component
    )


def _maps(config: Config) -> LinkMaps:
    via = {component.domain: "xmpp" for component in config.xmpp.component}
    via |= {route.domain: route.via for route in config.routes}
    rules = [MapRule(route.via, route.domain, route.domain, route.as_) for route in config.routes if route.as_]
    for rule in config.maps:
        core = rule.address
        if isinstance(core, Address) and core.domain in config.server.domains:
            core = core.folded()  # as the pipeline has our own people
        rules.append(MapRule(via[rule.on], rule.on, core, rule.is_))
    return LinkMaps(rules)


def _rules(config: Config) -> dict[str, Rule]:
    return {
        rule.of: Rule(
            read_requirements(rule.require),
            read_requirements(rule.require_from),
            rule.verify,
            frozenset(rule.verdicts),
            rule.operations,
        )
        for rule in config.policy.protection
    }


def _limits(config: Config) -> Limits:
    limits = config.limits
    cpim = CpimLimits(limits.cpim_message, limits.cpim_header_block, limits.cpim_header, limits.cpim_headers)
    return Limits(
        object_octets=limits.cpim_message,
        lifetime=limits.message_lifetime,
        dedup_window=limits.dedup_window,
        inbox_records=limits.stored_messages,
        inbox_octets=limits.stored_octets,
        cpim=DEFAULT if cpim == DEFAULT else cpim,  # the readers know the default by its identity
        has_messages=config.policy.messages,
    )


def _presence_limits(config: Config) -> PresenceLimits:
    limits = config.limits
    publications = PublicationLimits(limits.publications, limits.presence_document, round(limits.publication_lease))
    asks = limits.peer_asks
    peers = PeerLimits(limits.peer_subscriptions, limits.peer_requests, float(asks), 20 * asks)
    return PresenceLimits(publications, limits.subscriptions, limits.watchers, limits.requests, peers)


def _sip_config(config: Config) -> SipConfig:
    limits = config.limits
    return SipConfig(
        domains=config.server.domains,
        listen=tuple(listener.url for listener in config.sip.listen),
        sip_md5=config.policy.sip_md5,
        max_contacts=limits.contacts,
        failures_per_connection=limits.failures_per_connection,
        max_forwards=limits.hops_sip,
        unproved_requests=limits.udp_requests,
        unproved_window=limits.udp_window,
        user_messages=float(limits.user_messages),
        user_message_burst=limits.user_message_burst,
        user_octets=max(limits.user_octets, round(6553.6 * limits.user_messages)),
        peer_messages=float(limits.peer_messages),
        presence_interval=limits.presence_interval,
        user_publications=float(limits.user_publications),
        user_publication_burst=limits.user_publication_burst,
        datagram_octets=limits.sip_message_udp,
        head_octets=limits.sip_headers,
        body_octets=min(limits.sip_body, limits.sip_message_tcp - limits.sip_headers),
        header_octets=limits.sip_header,
        long_header_octets=limits.sip_credential_header,
        header_count=limits.sip_header_count,
        uri_octets=limits.sip_uri,
        method_octets=limits.sip_method,
        trunks=tuple(_trunk(index, config) for index, route in enumerate(config.routes) if _is_trunk(route)),
    )


def _is_trunk(route: RouteConfig) -> bool:
    return route.via == "sip" and bool(route.next_hop) and route.domain != "*"


def _trunk(index: int, config: Config) -> TrunkConfig:
    route = config.routes[index]
    password = ""
    if route.password_file is not None:
        try:
            password = route.password_file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            cure = "Write the password into its first line, and let the server's user read it."
            raise ConfigError(
                f"route[{index}].password_file", f"{route.password_file} cannot be read.", cure
            ) from error
    return TrunkConfig(
        route.domain,
        route.as_ or route.domain,
        route.next_hop,
        route.user,
        password,
        route.realm,
        tuple(f"{address.local}@{address.domain}" for address in route.register),
        route.keep_alive,
        route.pres_uris,
    )


def _xmpp_config(config: Config) -> XmppConfig:
    limits = config.limits
    return XmppConfig(
        domains=config.server.domains,
        client=_addresses(config.xmpp.client),
        server=_addresses(config.xmpp.server),
        dialback=config.policy.dialback,
        component=_addresses(config.xmpp.component_listen),
        accept={accept.domain: accept.secret for accept in config.xmpp.accept},
        hosts=_hosts(config),
        software_version=__version__,
        plaintext_from=tuple(str(network) for network in config.policy.plaintext_from),
        scram_sha1=config.policy.scram_sha1,
        scram_iterations=config.policy.scram_iterations,
        pre_auth_stanza=limits.pre_auth_stanza,
        pre_auth_elements=limits.pre_auth_elements,
        pre_auth_time=limits.pre_auth_time,
        pre_auth_octets=limits.pre_auth_octets,
        stanza=limits.client_stanza,
        server_stanza=limits.server_stanza,
        depth=limits.xml_depth,
        elements=limits.xml_elements,
        attributes=limits.xml_attributes,
        namespaces=limits.xml_namespaces,
        name_length=limits.xml_name,
        slice=limits.xml_slice,
        failures_per_connection=limits.failures_per_connection,
        sm_queue=limits.sm_queue,
        sm_resume=limits.sm_resume,
        user_messages=float(limits.user_messages),
        user_message_burst=limits.user_message_burst,
        peer_messages=float(limits.peer_messages),
        # A presence stanza is often one of two where a phone sends one PUBLISH: what is told of them is half of that.
        presence_changes=limits.user_publications / 2,
        presence_burst=max(1, limits.user_publication_burst // 2),
        # Raising the rate of messages alone raises the others in the proportion of the defaults.
        user_stanzas=max(limits.user_stanzas, 5.0 * limits.user_messages),
        user_octets=max(limits.user_octets, 6553.6 * limits.user_messages),
        contacts=limits.contacts,
        in_flight=limits.in_flight,
    )


def _addresses(listeners: Sequence[Listener]) -> tuple[ListenAddress, ...]:
    return tuple(ListenAddress(one.transport, one.host, one.port) for one in listeners if one.transport != "udp")


def _apex_config(config: Config) -> ApexConfig:
    limits = config.limits
    return ApexConfig(
        domains=config.server.domains,
        listen=tuple(
            ApexAddress(listener.transport, listener.host, listener.port)
            for listener in config.apex.listen
            if listener.transport != "udp"
        ),
        plaintext_from=tuple(str(network) for network in config.policy.plaintext_from),
        scram_sha1=config.policy.scram_sha1,
        scram_iterations=config.policy.scram_iterations,
        failures_per_connection=limits.failures_per_connection,
        pre_auth_time=limits.pre_auth_time,
        window=limits.beep_window,
        window_max=limits.beep_window_max,
        frame=limits.beep_frame,
        channels=limits.beep_channels,
        message=limits.beep_message,
        attachments=limits.contacts,
        user_messages=float(limits.user_messages),
        user_message_burst=limits.user_message_burst,
        user_octets=max(limits.user_octets, round(6553.6 * limits.user_messages)),
        peer_messages=float(limits.peer_messages),
        in_flight=limits.in_flight,
    )


def _net_limits(config: Config) -> NetLimits:
    limits = config.limits
    return NetLimits(
        per_address=limits.connections_per_address,
        unauthenticated=limits.connections_unauthenticated,
        total=limits.connections,
        write_buffer=limits.write_buffer,
    )


def _url(transport: str, host: str, port: int) -> str:
    return f"{transport}://[{host}]:{port}" if ":" in host else f"{transport}://{host}:{port}"
