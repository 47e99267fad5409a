"""Switch OpenSSL's server-side session cache off, for which Python has no call.

Place on the path: beside ``tls.py``, when a server's context is made. With tickets off, OpenSSL keeps every TLS 1.2
session for two hours so that it may be resumed: the keys of up to 20,480 connections that are over, and some 1 KiB
for each (G7: nothing after close; section 6.1 item 1). TLS 1.3 without tickets keeps none.

OpenSSL's own function is called on the context inside Python's object, whose first field it has been since it exists.
Interpreters this was not tried with are left alone, and what is found must answer like the context before it is
changed. Where that fails the cache stays on: no harm beyond the memory, which is bounded.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
import sys

TRIED = ((3, 11), (3, 13))
"""First and last version of CPython this is done with."""
SET_SESSION_CACHE_MODE = 44
"""SSL_CTRL_SET_SESS_CACHE_MODE and SSL_SESS_CACHE_OFF of openssl/ssl.h."""
OFF = 0


def switch_off(context: ssl.SSLContext) -> bool:
    """Keep no sessions for resumption; False if that cannot be done with this interpreter."""
    is_known = sys.implementation.name == "cpython" and TRIED[0] <= sys.version_info[:2] <= TRIED[1]
    if not is_known or ssl.OPENSSL_VERSION_INFO < (3, 0):
        return False
    try:
        library = ctypes.CDLL(_ssl.__file__)
        get_options, get_verify_mode = library.SSL_CTX_get_options, library.SSL_CTX_get_verify_mode
        control = library.SSL_CTX_ctrl
    except (AttributeError, OSError):
        return False  # linked in another way: OpenSSL's names cannot be found
    get_options.restype, get_options.argtypes = ctypes.c_uint64, [ctypes.c_void_p]
    get_verify_mode.restype, get_verify_mode.argtypes = ctypes.c_int, [ctypes.c_void_p]
    control.restype, control.argtypes = ctypes.c_long, [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    if not pointer.value or int(get_verify_mode(pointer)) != int(context.verify_mode):
        return False
    if int(get_options(pointer)) & 0xFFFFFFFF != int(context.options) & 0xFFFFFFFF:
        return False
    control(pointer, SET_SESSION_CACHE_MODE, OFF, None)
    return True
