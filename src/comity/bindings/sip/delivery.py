"""The way down: one MESSAGE transaction per delivery, over the flow the device registered by.

Place on the path: steps 7 to 9, for ``binding.py``. A device is reached only where it proved to be: at the source of
its REGISTER over UDP, on its connection over TCP and TLS, and by a new connection only if its Contact names the very
address it registered from. Its Contact host is never looked up, a redirect never followed (reliability.md 6.1 item 8).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from base64 import b32encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from comity.bindings.base import HostPort, Link, Network, Target, Transport
from comity.bindings.sip.events import RequestFailed, RequestTimedOut, ResponseReceived
from comity.bindings.sip.mapping import (
    NOT_UNDERSTOOD,
    Form,
    choose_form,
    operation_to_request,
    status_to_response,
)
from comity.bindings.sip.registration import Device
from comity.bindings.sip.wire import SipRequest
from comity.cpim.operations import Reason, Response, failure
from comity.errors import DeliveryError, LocalProtocolError
from comity.service.interfaces import Delivery, Service, Timer

if TYPE_CHECKING:
    from comity.bindings.sip.binding import LinkState, SipBinding

log = logging.getLogger(__name__)
