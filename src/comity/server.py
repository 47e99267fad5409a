"""The composition root: configuration in, running server out; no decisions.

Place on the path: around all of it. Read ``start`` to see in which order the parts come up, and ``stop`` for the
way back: nothing listens before everything that is stored can be delivered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from comity.admin.commands import Commands
from comity.admin.control import ControlServer
from comity.admin.engine import open_store
from comity.admin.records import EnvelopeRecords
from comity.bindings.base import Binding
from comity.bindings.sip.binding import SipBinding
from comity.bindings.xmpp.binding import XmppBinding
from comity.config import Config
from comity.cpim.address import Address
from comity.net.driver import LoopClock
from comity.net.limits import NetLimits
from comity.net.network import AsyncNetwork
from comity.net.tls import TlsContexts
from comity.service.credentials import FailureGuard, StoreAccounts
from comity.service.interfaces import Store
from comity.service.pipeline import Pipeline
from comity.service.policy import Limits

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
        self._network: AsyncNetwork | None = None
        self._control: ControlServer | None = None
        self._tls: TlsContexts | None = None
        self._bindings: list[Binding] = []

    @property
    def addresses(self) -> Sequence[str]:
        """Addresses really listened on, as URLs."""
        if self._network is None:
            return []
        return [_url(bound.listener.transport, *bound.address) for bound in self._network.bound]

    async def start(self) -> None:
        """Open the store, take up what it holds, open the listeners.

        Raises:
            ConfigError: a certificate or an address cannot be used.
            StoreError: the store cannot be opened; StoreDamaged if its file fails its checks.
        """
        config, clock = self.config, LoopClock()
        try:
            self._tls = TlsContexts(config.tls.certificate, config.tls.key, config.tls.trust)
            self._store = store = await open_store(config)
            accounts = _accounts(config, store)
            node = config.server.domains[0]
            self._pipeline = pipeline = Pipeline(store, accounts, clock, node, _limits(config))
            self._network = network = AsyncNetwork(clock, limits=_net_limits(config), tls=self._tls)
            self._bindings = [SipBinding(sip_config(config)), XmppBinding(xmpp_config(config))]
            await pipeline.start({binding.name: binding for binding in self._bindings})
            for binding in self._bindings:
                await binding.start(pipeline, network)
            for binding in self._bindings:
                await network.open(binding)
            commands = Commands(
                store,
                config.server.domains,
                EnvelopeRecords(node),
                changed=lambda address: self._changed(accounts, address),
                woken=pipeline.delivery.wake,
            )
            self._control = ControlServer(commands, config.control_socket)
            await self._control.start()
        except BaseException:
            await self.stop()
            raise

    def _changed(self, accounts: StoreAccounts, address: Address) -> None:
        """An account was changed: forget its keys; what is signed in stays signed in until it has to prove itself."""
        accounts.forget(address)

    async def reload(self, config: Config) -> None:
        """Take over certificates; what else changed needs a restart and is said.

        Raises ConfigError if the new certificate cannot be used; the former one stays.
        """
        assert self._tls is not None
        await asyncio.to_thread(self._tls.reload)
        kept = ("server", "sip", "xmpp", "limits", "policy", "store", "routes")
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
        if drains:
            _, late = await asyncio.wait(drains, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            for outcome in await asyncio.gather(*drains, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("draining failed", exc_info=outcome)
        if self._pipeline is not None:
            await self._pipeline.stop()
        if self._network is not None:
            await self._network.close()
        if self._store is not None:
            await self._store.close()


def _accounts(config: Config, store: Store) -> StoreAccounts:
    guard = FailureGuard(config.limits.failures_per_address, config.limits.ban)
    return StoreAccounts(store, config.server.domains, guard)


def _limits(config: Config) -> Limits:
    limits = config.limits
    return Limits(
        object_octets=limits.cpim_message,
        lifetime=limits.message_lifetime,
        dedup_window=limits.dedup_window,
        inbox_records=limits.stored_messages,
        inbox_octets=limits.stored_octets,
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
