"""REGISTER carried out (RFC 3261 section 10): ``registration.py`` plans, the service's registrar keeps.

Place on the path: beside steps 4 and 5, for ``binding.py``.
"""

from __future__ import annotations

import asyncio
from email.utils import format_datetime
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from comity.bindings.sip.authentication import Authentication
from comity.bindings.sip.mapping import is_sender
from comity.bindings.sip.outbound import OPTION, asks_for_flow, came_directly
from comity.bindings.sip.registration import (
    Device,
    Flow,
    Plan,
    Rules,
    check_contacts,
    path_of,
    plan_registration,
    registered_user,
)
from comity.bindings.sip.requests import Request
from comity.cpim.address import Address
from comity.service.interfaces import Contact

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding


class Registrar:
    """The registrar of our domains; requests for one address-of-record one after the other."""

    def __init__(self, binding: SipBinding, authentication: Authentication, rules: Rules) -> None:
        self._binding = binding
        self._authentication = authentication
        self._rules = rules
        self._registering: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take(self, received: Request) -> None:
        """Authenticate and carry out one REGISTER; it is answered here."""
        request, accounts = received.request, self._binding.service.accounts
        check_contacts(request)
        user = registered_user(request)
        if not accounts.serves(user.host):
            self._binding.respond(received, 404, forget=True)
            return
        given = self._authentication.select(received, user.host)
        if given is None:
            self._authentication.challenge(received, user.host)
            return
        credentials = await self._authentication.look_up(given, user.host)
        principal = self._authentication.verify(received, user.host, given, credentials)
        if principal is None:
            return
        if not is_sender(str(user), principal) or not is_sender(str(request.from_.uri), principal):
            self._binding.respond(received, 403)
            return
        if self._binding.state_of(received.state.link) is None:
            return
        lock = self._registering.setdefault(principal.key, asyncio.Lock())
        async with lock:
            await self._register(received, principal)

    async def _register(self, received: Request, aor: Address) -> None:
        service, request = self._binding.service, received.request
        state, now = received.state, service.clock.when().timestamp()
        contacts = service.registrar.contacts(aor)
        devices = [Device.decode(contact.data) for contact in contacts if contact.binding == self._binding.name]
        flow = Flow(state.transport, received.source, state.link.peer.local)
        others = len(contacts) - len(devices)
        gone = {
            device.id
            for device in devices
            if device.transport != "udp" and self._binding.find_flow(aor, device) is None
        }
        is_flow = asks_for_flow(request)
        if is_flow and not came_directly(request):
            self._binding.respond(received, 439)
            return
        plan = plan_registration(request, devices, flow, self._rules, now=now, others=others, gone=gone)
        if plan.status_code == 200:
            state.registered.update((aor.key, device.id) for device, _ in plan.keep)
            await self._carry_out(plan, aor)
        if plan.status_code != 200:
            self._binding.respond(received, plan.status_code, headers=plan.headers)
            return
        headers = [("Require", OPTION)] if is_flow else []
        headers += [("Path", value) for value in path_of(request)]
        headers += [("Date", format_datetime(service.clock.when(), usegmt=True))]
        for contact in service.registrar.contacts(aor):
            if contact.binding == self._binding.name:
                headers.append(("Contact", Device.decode(contact.data).contact_value(now)))
        self._binding.respond(received, 200, headers=headers)

    async def _carry_out(self, plan: Plan, aor: Address) -> None:
        registrar = self._binding.service.registrar
        for device in plan.remove:
            await registrar.unregister(aor, self._binding.name, device.id)
        for device, lease in plan.keep:
            contact = Contact(
                device.id,
                aor,
                self._binding.name,
                priority=device.priority,
                is_durable=True,
                data=device.encode(),
                is_protected=device.transport == "tls",
            )
            await registrar.register(contact, float(lease))
