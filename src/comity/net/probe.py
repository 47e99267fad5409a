"""Is somebody there? One connection to a target, under TLS where that comes first, and nothing said on it.

Place on the path: beside it, for ``comity dns --check``.
"""

from __future__ import annotations

import asyncio
import ssl

from comity.bindings.base import Target
from comity.errors import DeliveryError

PROBE_SECONDS = 5.0


async def probe(target: Target, context: ssl.SSLContext, seconds: float = PROBE_SECONDS) -> None:
    """Open a connection, have its certificate verified for ``target.server_name`` if it is direct TLS, and close it.

    Raises:
        DeliveryError: nobody answers, or the certificate does not hold.
    """
    where = f"{target.host} port {target.port}"
    is_tls = target.transport == "tls"
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(
                target.host,
                target.port,
                ssl=context if is_tls else None,
                server_hostname=target.server_name if is_tls else None,
            )
    except TimeoutError as error:
        raise DeliveryError(f"{where} does not answer within {seconds:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise DeliveryError(f"{where} has no certificate for {target.server_name}: {error.verify_message}") from error
    except OSError as error:
        raise DeliveryError(f"{where} cannot be reached: {error.strerror or error}") from error
    writer.transport.abort()
