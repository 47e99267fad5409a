"""End-to-end security: sign, verify, verdicts; no binding and no service imports it."""

from comity.secure.chain import TrustStore
from comity.secure.freshness import ReplayCache, SigningClock
from comity.secure.identity import Identity, LocalCa, new_identity
from comity.secure.keystore import KeyEntry, KeyStore
from comity.secure.opening import decrypt
from comity.secure.policy import Action, Decision, Policy, load_policy
from comity.secure.replay import StoredReplayCache
from comity.secure.sealing import encrypt
from comity.secure.signing import canonical_text, sign
from comity.secure.verdict import IdentityMatch, Layer, LayerKind, Verdict, VerdictKind
from comity.secure.verifying import verify

__all__ = [
    "Action",
    "Decision",
    "Identity",
    "IdentityMatch",
    "KeyEntry",
    "KeyStore",
    "Layer",
    "LayerKind",
    "LocalCa",
    "Policy",
    "ReplayCache",
    "SigningClock",
    "StoredReplayCache",
    "TrustStore",
    "Verdict",
    "VerdictKind",
    "canonical_text",
    "decrypt",
    "encrypt",
    "load_policy",
    "new_identity",
    "sign",
    "verify",
]
