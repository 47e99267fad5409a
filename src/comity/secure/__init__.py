"""End-to-end security: sign, verify, verdicts; no binding and no service imports it."""

from comity.secure.chain import TrustStore
from comity.secure.freshness import ReplayCache, SigningClock
from comity.secure.identity import Identity, LocalCa, new_identity
from comity.secure.keystore import KeyEntry, KeyStore
from comity.secure.opening import decrypt
from comity.secure.replay import StoredReplayCache
from comity.secure.sealing import encrypt
from comity.secure.signing import canonical_text, sign
from comity.secure.verdict import IdentityMatch, Layer, LayerKind, Verdict, VerdictKind
from comity.secure.verifying import verify

__all__ = [
    "Identity",
    "IdentityMatch",
    "KeyEntry",
    "KeyStore",
    "Layer",
    "LayerKind",
    "LocalCa",
    "ReplayCache",
    "SigningClock",
    "StoredReplayCache",
    "TrustStore",
    "Verdict",
    "VerdictKind",
    "canonical_text",
    "decrypt",
    "encrypt",
    "new_identity",
    "sign",
    "verify",
]
