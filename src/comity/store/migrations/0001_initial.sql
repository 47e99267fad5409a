-- Schema 1. One accept is one row of ``records``; ``dedup`` and ``marks`` and both partial indices are
-- projections of such rows. A row stays until its trace retention and its dedup windows are over.

CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('needs', '0.1'), ('epoch', 0), ('clean', 1), ('next', 1);

CREATE TABLE records (
    number INTEGER PRIMARY KEY,      -- Item.seq; one sequence for all lanes, never reused (meta 'next')
    id TEXT NOT NULL UNIQUE,
    lane TEXT NOT NULL,
    accepted REAL NOT NULL,
    expires REAL NOT NULL,
    keep REAL NOT NULL,              -- end of the longest dedup window
    size INTEGER NOT NULL,           -- octets of entity, known also after it is dropped
    ended REAL,                      -- NULL while pending
    gone REAL,                       -- when a terminal row may be deleted
    outcome BLOB,
    fingerprint TEXT NOT NULL,
    dedup TEXT NOT NULL,             -- JSON list of keys
    envelope BLOB NOT NULL,
    entity BLOB                      -- NULL once terminal; last, so that other columns never follow its pages
);
CREATE INDEX records_pending ON records (lane, number, size) WHERE ended IS NULL;
CREATE INDEX records_expires ON records (expires) WHERE ended IS NULL;
CREATE INDEX records_gone ON records (gone) WHERE ended IS NOT NULL;
-- Walked through, not searched: sorted by fingerprint it would cost every accept one more page of the log
-- (measured: a quarter of the rate), and finding one among a million this way takes a tenth of a second.
CREATE INDEX records_fingerprint ON records (number, fingerprint);

CREATE TABLE dedup (key TEXT PRIMARY KEY, number INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID;

CREATE TABLE marks (name TEXT PRIMARY KEY, value BLOB NOT NULL, at REAL NOT NULL) WITHOUT ROWID;

-- A table per Space: password equivalents never share one with anything else. meta 'floor.SPACE' is the
-- highest revision of any deleted key, so that a key written anew never repeats one.
CREATE TABLE kv_account (key TEXT PRIMARY KEY, value BLOB NOT NULL, rev INTEGER NOT NULL, until REAL) WITHOUT ROWID;
CREATE TABLE kv_scram (key TEXT PRIMARY KEY, value BLOB NOT NULL, rev INTEGER NOT NULL, until REAL) WITHOUT ROWID;
CREATE TABLE kv_ha1 (key TEXT PRIMARY KEY, value BLOB NOT NULL, rev INTEGER NOT NULL, until REAL) WITHOUT ROWID;
CREATE TABLE kv_contact (key TEXT PRIMARY KEY, value BLOB NOT NULL, rev INTEGER NOT NULL, until REAL) WITHOUT ROWID;
CREATE TABLE kv_setting (key TEXT PRIMARY KEY, value BLOB NOT NULL, rev INTEGER NOT NULL, until REAL) WITHOUT ROWID;
CREATE INDEX kv_account_until ON kv_account (until) WHERE until IS NOT NULL;
CREATE INDEX kv_scram_until ON kv_scram (until) WHERE until IS NOT NULL;
CREATE INDEX kv_ha1_until ON kv_ha1 (until) WHERE until IS NOT NULL;
CREATE INDEX kv_contact_until ON kv_contact (until) WHERE until IS NOT NULL;
CREATE INDEX kv_setting_until ON kv_setting (until) WHERE until IS NOT NULL;
