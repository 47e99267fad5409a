"""End-to-end security: sign, verify, verdicts; no binding and no service imports it."""
