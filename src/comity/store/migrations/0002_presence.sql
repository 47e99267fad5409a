-- Schema 2: contact lists with what both sides decided, subscriptions that live over a restart, and the documents
-- accounts keep here (presence rules, lists, vCards).

CREATE TABLE kv_relation (key TEXT PRIMARY KEY, value BLOB NOT NULL, rev INTEGER NOT NULL, until REAL) WITHOUT ROWID;
CREATE TABLE kv_subscription (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, rev INTEGER NOT NULL, until REAL
) WITHOUT ROWID;
CREATE TABLE kv_document (key TEXT PRIMARY KEY, value BLOB NOT NULL, rev INTEGER NOT NULL, until REAL) WITHOUT ROWID;
CREATE INDEX kv_relation_until ON kv_relation (until) WHERE until IS NOT NULL;
CREATE INDEX kv_subscription_until ON kv_subscription (until) WHERE until IS NOT NULL;
CREATE INDEX kv_document_until ON kv_document (until) WHERE until IS NOT NULL;
