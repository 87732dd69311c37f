/** The tables of a device's ledger. A script that was released is never changed; another one follows it. */

const version1 = `
CREATE TABLE identity (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  incarnation TEXT NOT NULL
) STRICT;

CREATE TABLE high_water (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  root_version INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  order_digest TEXT NOT NULL
) STRICT;

CREATE TABLE orders (
  id TEXT PRIMARY KEY,
  lane TEXT NOT NULL,
  root_version INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  document TEXT NOT NULL,
  envelope TEXT NOT NULL,
  digest TEXT NOT NULL,
  state TEXT NOT NULL,
  is_final INTEGER NOT NULL CHECK (is_final IN (0, 1)),
  version INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  is_idempotent INTEGER NOT NULL CHECK (is_idempotent IN (0, 1)),
  received_at_ms INTEGER NOT NULL,
  started_at_ms INTEGER
) STRICT;
CREATE INDEX orders_in_line ON orders (is_final, lane, root_version, counter);
CREATE INDEX orders_by_digest ON orders (digest);

-- What was refused before it was an order of ours, by the key its receipt was written under.
CREATE TABLE refusals (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE chain (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  number INTEGER NOT NULL,
  digest TEXT NOT NULL
) STRICT;

CREATE TABLE tally (
  outcome TEXT PRIMARY KEY,
  count INTEGER NOT NULL
) STRICT;

CREATE TABLE cancels (
  order_id TEXT PRIMARY KEY,
  envelope TEXT NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT;

-- One row per thing to send, in the order of sending. size_bytes is what it weighs, wherever its bytes lie.
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL CHECK (kind IN ('output', 'artifacts', 'receipt')),
  size_bytes INTEGER NOT NULL,
  order_id TEXT,
  sequence INTEGER,
  bytes BLOB,
  path TEXT,
  number INTEGER,
  digest TEXT,
  envelope TEXT,
  CHECK (kind <> 'output' OR (order_id IS NOT NULL AND sequence IS NOT NULL AND bytes IS NOT NULL)),
  CHECK (kind <> 'artifacts' OR (order_id IS NOT NULL AND path IS NOT NULL)),
  CHECK (kind <> 'receipt' OR (number IS NOT NULL AND digest IS NOT NULL AND envelope IS NOT NULL))
) STRICT;
CREATE INDEX outbox_weight ON outbox (size_bytes);
CREATE UNIQUE INDEX outbox_output ON outbox (order_id, sequence) WHERE kind = 'output';

CREATE TABLE notes (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;
`

export const ledgerMigrations: ReadonlyArray<string> = [version1]
