/** The tables of the fleet database, one script per version. Times are Unix milliseconds; JSON is kept as it came. */

const version1 = `
CREATE TABLE roots (
  version INTEGER PRIMARY KEY,
  envelope TEXT NOT NULL,
  payload TEXT NOT NULL
) STRICT;

CREATE TABLE invitations (
  id TEXT PRIMARY KEY,
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
  device TEXT PRIMARY KEY,
  status TEXT NOT NULL CHECK (status IN ('pending', 'accepted', 'rejected', 'revoked')),
  name TEXT,
  enrolment TEXT NOT NULL,
  request TEXT NOT NULL,
  requested_at_ms INTEGER NOT NULL,
  invitation TEXT,
  admission TEXT,
  admitted TEXT,
  -- Rises when an acceptance replaces the ledger the device had; what was known of the old one counts no more.
  epoch INTEGER NOT NULL DEFAULT 0,
  enrolled_at_ms INTEGER NOT NULL,
  asked_at_ms INTEGER NOT NULL,
  last_seen_at_ms INTEGER,
  incarnation TEXT,
  high_water TEXT,
  told_at_ms INTEGER,
  blocked TEXT,
  last_receipt INTEGER NOT NULL DEFAULT 0,
  objection TEXT
) STRICT;
CREATE UNIQUE INDEX devices_by_name ON devices (name) WHERE status = 'accepted';
CREATE INDEX devices_by_status ON devices (status, enrolled_at_ms);
CREATE INDEX devices_by_invitation ON devices (invitation) WHERE status = 'pending';

CREATE TABLE jobs (
  id TEXT PRIMARY KEY,
  device TEXT NOT NULL REFERENCES devices (device),
  lane TEXT NOT NULL,
  root_version INTEGER NOT NULL,
  counter INTEGER NOT NULL,
  digest TEXT NOT NULL,
  payload_digest TEXT NOT NULL,
  work_order TEXT NOT NULL,
  envelope TEXT NOT NULL,
  state TEXT NOT NULL,
  final INTEGER NOT NULL DEFAULT 0,
  version INTEGER NOT NULL DEFAULT 0,
  reason TEXT,
  -- The last step the device told of: its own version of the order, its clock, and in which epoch.
  device_version INTEGER NOT NULL DEFAULT -1,
  taken_at_ms INTEGER,
  taken_epoch INTEGER,
  done_bytes INTEGER,
  total_bytes INTEGER,
  submitted_at_ms INTEGER NOT NULL,
  submitted_by TEXT NOT NULL,
  changed_at_ms INTEGER NOT NULL,
  cancel TEXT,
  stop INTEGER NOT NULL DEFAULT 0,
  receipt TEXT,
  receipt_digest TEXT,
  output_chunks INTEGER NOT NULL DEFAULT 0,
  artifact_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX jobs_by_place ON jobs (device, root_version, counter);
CREATE INDEX jobs_open ON jobs (device, root_version, counter) WHERE final = 0;
CREATE INDEX jobs_by_payload ON jobs (device, payload_digest);
CREATE INDEX jobs_by_time ON jobs (submitted_at_ms);
CREATE INDEX jobs_by_state ON jobs (state);

CREATE TABLE output (
  job TEXT NOT NULL REFERENCES jobs (id),
  sequence INTEGER NOT NULL,
  bytes BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX output_by_place ON output (job, sequence);

CREATE TABLE receipts (
  device TEXT NOT NULL REFERENCES devices (device),
  incarnation TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  number INTEGER NOT NULL,
  digest TEXT NOT NULL,
  job TEXT,
  envelope TEXT NOT NULL,
  written_at_ms INTEGER NOT NULL,
  received_at_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX receipts_by_place ON receipts (device, incarnation, epoch, number);
CREATE INDEX receipts_by_number ON receipts (device, number);

CREATE TABLE tokens (
  hash TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  role TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL
) STRICT;
`

/** Which root each device says it holds. */
const rootOfDevice = `
ALTER TABLE devices ADD COLUMN root_version INTEGER;
CREATE INDEX devices_by_root ON devices (root_version) WHERE status = 'accepted';
`

/** What retention and tokens need: how much results take, when they were dropped, and what was dropped whole. */
const retention = `
ALTER TABLE tokens ADD COLUMN expires_at_ms INTEGER;
ALTER TABLE tokens ADD COLUMN last_used_at_ms INTEGER;
ALTER TABLE tokens ADD COLUMN created_by TEXT NOT NULL DEFAULT 'console';

ALTER TABLE jobs ADD COLUMN expires_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN output_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN results_pruned_at_ms INTEGER;
-- 'age' or 'size': which rule it was.
ALTER TABLE jobs ADD COLUMN results_pruned_why TEXT;
UPDATE jobs SET expires_at_ms = work_order ->> '$.expires_at_ms',
  output_bytes = (SELECT coalesce(sum(length(bytes)), 0) FROM output WHERE output.job = jobs.id);
CREATE INDEX jobs_by_payload_alone ON jobs (payload_digest);
CREATE INDEX jobs_by_change ON jobs (changed_at_ms);
CREATE INDEX jobs_with_results ON jobs (changed_at_ms)
  WHERE results_pruned_at_ms IS NULL AND (output_bytes > 0 OR artifact_bytes > 0);
CREATE INDEX jobs_losing_output ON jobs (id) WHERE results_pruned_at_ms IS NOT NULL AND output_bytes > 0;

-- Jobs that are no longer kept, so that whoever asks for one hears what became of it.
CREATE TABLE pruned_jobs (
  id TEXT PRIMARY KEY,
  device TEXT NOT NULL,
  pruned_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX pruned_jobs_by_time ON pruned_jobs (pruned_at_ms);

-- Where a chain of receipts begins now: everything below this number was dropped for its age.
CREATE TABLE pruned_receipts (
  device TEXT NOT NULL,
  incarnation TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  below_number INTEGER NOT NULL,
  pruned_at_ms INTEGER NOT NULL,
  PRIMARY KEY (device, incarnation, epoch)
) STRICT, WITHOUT ROWID;
CREATE INDEX receipts_by_arrival ON receipts (received_at_ms);

-- Facts about the server itself, as JSON: when it was restored, and from what.
CREATE TABLE facts (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
`

/** Rollouts: plans, who belongs to which phase, what operators told them. An order waits for its phase while `held`. */
const rollouts = `
ALTER TABLE jobs ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_held ON jobs (device) WHERE held = 1 AND final = 0;

CREATE TABLE rollouts (
  id TEXT PRIMARY KEY,
  digest TEXT NOT NULL,
  plan TEXT NOT NULL,
  envelope TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'loading',
  reason TEXT,
  phase INTEGER NOT NULL DEFAULT -1,
  phase_started_at_ms INTEGER,
  settled_at_ms INTEGER,
  paused_at_ms INTEGER,
  version INTEGER NOT NULL DEFAULT 0,
  control_sequence INTEGER NOT NULL DEFAULT 0,
  created_at_ms INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  changed_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX rollouts_by_time ON rollouts (created_at_ms);
CREATE INDEX rollouts_open ON rollouts (created_at_ms) WHERE state IN ('loading', 'running', 'paused');

CREATE TABLE rollout_devices (
  job TEXT PRIMARY KEY,
  rollout TEXT NOT NULL REFERENCES rollouts (id),
  device TEXT NOT NULL,
  phase INTEGER NOT NULL,
  -- The order's state, kept when the job itself is no longer; null before the order came.
  state TEXT,
  excused INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX rollout_devices_by_phase ON rollout_devices (rollout, phase);
CREATE INDEX rollout_devices_by_device ON rollout_devices (device);
CREATE TRIGGER rollout_order_came AFTER INSERT ON jobs BEGIN
  UPDATE rollout_devices SET state = NEW.state WHERE job = NEW.id;
END;
CREATE TRIGGER rollout_order_moved AFTER UPDATE OF state ON jobs BEGIN
  UPDATE rollout_devices SET state = NEW.state WHERE job = NEW.id;
END;

CREATE TABLE rollout_controls (
  rollout TEXT NOT NULL REFERENCES rollouts (id),
  sequence INTEGER NOT NULL,
  envelope TEXT NOT NULL,
  PRIMARY KEY (rollout, sequence)
) STRICT, WITHOUT ROWID;
`

/** What each device says is weaker on it than it should be: a JSON list of codes. */
const degradedOfDevice = `
ALTER TABLE devices ADD COLUMN degraded TEXT NOT NULL DEFAULT '[]';
`

/** Acceptances made beforehand, and what each device says of itself for its operators. */
const beforehand = `
CREATE TABLE preauthorisations (
  -- An invitation's id or a device's.
  subject TEXT PRIMARY KEY,
  envelope TEXT NOT NULL,
  issued_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  used_by TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_unproved ON devices (asked_at_ms, device)
  WHERE status = 'pending' AND admission IS NULL AND invitation IS NULL;
ALTER TABLE devices ADD COLUMN preauthorisation TEXT;
ALTER TABLE devices ADD COLUMN statement TEXT;
`

/** How fast a download goes: bytes a second, and the report of bytes that the next one is held against. */
const downloadRate = `
ALTER TABLE jobs ADD COLUMN bytes_per_second INTEGER;
ALTER TABLE jobs ADD COLUMN sampled_at_ms INTEGER;
ALTER TABLE jobs ADD COLUMN sampled_bytes INTEGER;
`

/**
 * Keys of devices to the onion service, and of the groups that share one. A group that a device leaves is spoiled by the
 * very change that turns the device away, whoever makes it.
 */
const onionKeys = `
ALTER TABLE devices ADD COLUMN onion_key TEXT;
-- When the device named it, by its own clock.
ALTER TABLE devices ADD COLUMN onion_told_at_ms INTEGER NOT NULL DEFAULT 0;
-- 0: a place of its own; NULL: none yet.
ALTER TABLE devices ADD COLUMN onion_group INTEGER;
-- The shared key that it said it holds.
ALTER TABLE devices ADD COLUMN onion_held TEXT;
CREATE INDEX devices_by_onion_group ON devices (onion_group) WHERE status = 'accepted' AND onion_key IS NOT NULL;

CREATE TABLE onion_groups (
  id INTEGER PRIMARY KEY,
  version INTEGER NOT NULL,
  key TEXT NOT NULL,
  salt TEXT NOT NULL,
  spoiled INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TRIGGER onion_member_left AFTER UPDATE OF status ON devices
  WHEN OLD.status = 'accepted' AND NEW.status <> 'accepted'
BEGIN
  UPDATE onion_groups SET spoiled = 1 WHERE id = OLD.onion_group;
  UPDATE devices SET onion_group = NULL, onion_held = NULL WHERE device = NEW.device;
END;
CREATE TRIGGER onion_member_dropped AFTER DELETE ON devices WHEN OLD.onion_group IS NOT NULL BEGIN
  UPDATE onion_groups SET spoiled = 1 WHERE id = OLD.onion_group;
END;
`

/** Whom an invitation let in: then it invites nobody any more. */
const invitedDevices = `
CREATE INDEX devices_by_proof ON devices (json_extract(request, '$.invitation.id'))
  WHERE status = 'accepted' AND json_extract(request, '$.invitation.id') IS NOT NULL;
`

export const fleetMigrations: ReadonlyArray<string> = [
  version1,
  retention,
  rootOfDevice,
  rollouts,
  degradedOfDevice,
  beforehand,
  downloadRate,
  onionKeys,
  invitedDevices
]
