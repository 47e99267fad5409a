"""The common language: addresses, message/cpim objects, operations (RFC 3859-3862)."""
