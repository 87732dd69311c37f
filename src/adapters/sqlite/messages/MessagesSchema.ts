/**
 * The tables of the messages database: what an MQTT broker keeps of sessions (MQTT 3.1.1, 3.1.2.4), and what broker
 * services keep of messages. Times are Unix milliseconds.
 */

const version1 = `
-- Of sessions that outlive their connection.
CREATE TABLE subscriptions (
  client TEXT NOT NULL,
  filter TEXT NOT NULL,
  qos INTEGER NOT NULL,
  PRIMARY KEY (client, filter)
) STRICT, WITHOUT ROWID;

CREATE TABLE retained (
  topic TEXT PRIMARY KEY,
  qos INTEGER NOT NULL,
  payload BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What waits for its acknowledgement, in the order it came. broker and counter name a packet: the life of the broker
-- that took it, and its number in that life.
CREATE TABLE outgoing (
  place INTEGER PRIMARY KEY AUTOINCREMENT,
  client TEXT NOT NULL,
  broker TEXT NOT NULL,
  counter INTEGER NOT NULL,
  topic TEXT NOT NULL,
  retain INTEGER NOT NULL,
  payload BLOB NOT NULL
) STRICT;
CREATE INDEX outgoing_by_client ON outgoing (client, place);
CREATE UNIQUE INDEX outgoing_by_packet ON outgoing (client, broker, counter);

CREATE TABLE wills (
  client TEXT PRIMARY KEY,
  broker TEXT NOT NULL,
  topic TEXT NOT NULL,
  qos INTEGER NOT NULL,
  retain INTEGER NOT NULL,
  payload BLOB NOT NULL
) STRICT, WITHOUT ROWID;
`

const version2 = `
CREATE TABLE agents (
  agent TEXT PRIMARY KEY,
  device TEXT NOT NULL,
  signing_key TEXT NOT NULL,
  agreement_key TEXT NOT NULL,
  agreement_version INTEGER NOT NULL,
  visible INTEGER NOT NULL,
  edge_devices TEXT NOT NULL,
  session TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('C', 'DG', 'DU')),
  status_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Ids of messages, until they expire.
CREATE TABLE seen (
  sender TEXT NOT NULL,
  id TEXT NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  PRIMARY KEY (sender, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX seen_by_end ON seen (expires_at_ms);

-- What was accepted and is not in its recipient's session yet.
CREATE TABLE deliveries (
  place INTEGER PRIMARY KEY AUTOINCREMENT,
  recipient TEXT NOT NULL,
  inbox TEXT NOT NULL CHECK (inbox IN ('protected', 'private')),
  expires_at_ms INTEGER NOT NULL,
  wire BLOB NOT NULL
) STRICT;
CREATE INDEX deliveries_by_recipient ON deliveries (recipient, place);
CREATE INDEX deliveries_by_end ON deliveries (expires_at_ms);

CREATE TABLE refusals (
  agent TEXT NOT NULL,
  code TEXT NOT NULL,
  count INTEGER NOT NULL,
  last_at_ms INTEGER NOT NULL,
  PRIMARY KEY (agent, code)
) STRICT, WITHOUT ROWID;
`

const version3 = `
ALTER TABLE agents ADD COLUMN shaken_at_ms INTEGER NOT NULL DEFAULT 0;
`

const version4 = `
-- Beside a Mosquitto: agents' passwords there, and what was taken from broker services' inboxes and is not dealt with yet.
CREATE TABLE mosquitto_accounts (
  agent TEXT PRIMARY KEY,
  device TEXT NOT NULL,
  password TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mosquitto_arrivals (
  place INTEGER PRIMARY KEY AUTOINCREMENT,
  sender TEXT NOT NULL,
  topic TEXT NOT NULL,
  payload BLOB NOT NULL
) STRICT;
CREATE INDEX mosquitto_arrivals_by_sender ON mosquitto_arrivals (sender, place);
`

const version5 = `
-- What goes first where a queue is full.
CREATE INDEX outgoing_public ON outgoing (client, place) WHERE topic GLOB '*/public' OR topic GLOB '*/public/*';
`

const version6 = `
-- Ids are a device's: whoever has its name next has used none of them, and it has used them if it is let in again.
ALTER TABLE seen RENAME COLUMN sender TO device;
UPDATE OR IGNORE seen SET device = (SELECT agents.device FROM agents WHERE agents.agent = seen.device)
  WHERE device IN (SELECT agent FROM agents);
`

export const messagesMigrations: ReadonlyArray<string> = [
  version1,
  version2,
  version3,
  version4,
  version5,
  version6
]
