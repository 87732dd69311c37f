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

export const messagesMigrations: ReadonlyArray<string> = [version1]
