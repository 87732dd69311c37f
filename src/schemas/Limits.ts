/**
 * Every bound of the system, in one place, with the relations between them asserted at the end.
 * Sizes are in bytes, times in milliseconds, unless the name says otherwise.
 */

const KIB = 1024
const MIB = 1024 * KIB
const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

export const Limits = {
  /** Signed documents (root, order, admission, receipt) as bytes of their DSSE envelope. */
  envelopeBytes: 64 * KIB,
  envelopeSignatures: 16,
  jsonDepth: 24,
  rootKeys: 64,
  rootServers: 16,
  serverAddresses: 8,
  addressLength: 300,
  labelLength: 64,

  /** Age files: what is read of a header before anything is proved, and what a passphrase may cost to try. */
  ageHeaderBytes: 32 * KIB,
  ageStanzas: 288,
  scryptLogN: 17,
  scryptMaximumLogN: 20,
  encryptionKeys: 16,

  /** Work packages. */
  orderLifetimeMs: 90 * DAY,
  payloadBytes: 256 * MIB,
  unpackedBytes: 1024 * MIB,
  packageEntries: 10_000,
  packagePathLength: 240,
  packageDepth: 16,
  manifestBytes: 2 * MIB,
  /** Circuits of one download at once; what is remembered of parts that came out of order. */
  downloadCircuits: 8,
  downloadSpans: 4_096,
  commandArguments: 256,
  commandArgumentLength: 8 * KIB,
  environmentVariables: 128,
  environmentValueLength: 8 * KIB,
  resultRecipients: 16,
  expectedArtifacts: 64,
  runAttempts: 3,

  /** What one job may use at the most, whatever its manifest says. */
  jobTimeoutMs: 7 * DAY,
  jobGraceMs: 5 * MINUTE,
  jobMemoryBytes: 64 * 1024 * MIB,
  jobProcesses: 4096,
  jobDiskBytes: 16 * 1024 * MIB,
  jobOutputBytes: 64 * MIB,
  jobCpuPercent: 6400,
  artifactBytes: 256 * MIB,
  artifactEntries: 1_000,

  /** Output of a running job travels in chunks, each encrypted on its own. */
  outputChunkBytes: 64 * KIB,
  outputChunkEncryptedBytes: 80 * KIB,
  outputChunks: 4_096,
  outputFlushMs: 500,

  /** Bodies of one request; larger things travel in blocks. */
  requestBodyBytes: 1 * MIB,
  blockBytes: 4 * MIB,
  responseBodyBytes: 4 * MIB,
  /** Bodies of all requests in work together; above it requests are told to come later. */
  bodiesInWorkBytes: 256 * MIB,
  requestHeaderBytes: 16 * KIB,
  requestHeadersMs: 10 * SECOND,
  /** A block over a slow line; a body that is not there by then is cut off. */
  requestMs: 5 * MINUTE,
  /** A connection without a byte either way; longer than a long poll. */
  connectionIdleMs: 2 * MINUTE,
  /** At shutdown, requests in work may end within this. */
  drainMs: 1 * SECOND,
  requestClockSkewMs: 60 * SECOND,
  requestNonces: 200_000,

  /** One poll. */
  pollOrders: 16,
  pollCancels: 64,
  pollActive: 64,
  pollSleepMinimumMs: 200,
  pollSleepMaximumMs: 1 * HOUR,
  longPollMs: 60 * SECOND,
  progressEvents: 64,
  receiptsPerRequest: 32,

  /** What a device keeps. */
  outboxItems: 10_000,
  outboxBytes: 512 * MIB,
  ledgerRefusals: 1_000,
  /** Receipts over refused orders; what comes beyond is passed over. */
  refusalsPerHour: 256,
  rootChain: 256,
  /** Its own history: events of each kind, and the whole file. */
  historyEventsOfKind: 400,
  historyBytes: 8 * MIB,
  /** What its configuration may name. */
  referenceHosts: 8,
  requiredProcesses: 32,

  /** What a configuration may hand on to tor: so many lines of a kind, so long. */
  torLines: 64,
  torLineLength: 1_024,
  proxyAddressLength: 1_600,

  /** How long newcomers still reach the server over Tor after enrolment closed: who was let in last takes the news. */
  enrolmentLingerMs: 10 * MINUTE,

  /** Enrolment. */
  invitationLifetimeMs: 30 * DAY,
  pendingEnrolments: 1_000,
  /** Devices that may wait on one invitation at a time. */
  invitationUses: 16,
  /** New devices without a proof that are put on the list: so many at once, and then so many a second. */
  enrolmentBurst: 100,
  enrolmentsPerSecond: 10,
  /** A device's encryption key is kept so long after the next one was made: all that was sealed to it has expired. */
  retiredKeyMs: 180 * DAY,
  groups: 256,

  /** The server's onion service for devices: keys in its list, and how they are shared out (docs/tor.md). */
  onionKeys: 256,
  onionOwnKeys: 192,
  onionGroupDevices: 32,
  sharedOnionKeyLength: 1_024,

  /** Rollouts. Their devices and some operators are the recipients of one age file. */
  rolloutDevices: 256,
  rolloutPhases: 16,
  rolloutControls: 256,
  openRollouts: 64,
  /** Places that an order waiting for its phase leaves free below itself, for the device's other work meanwhile. */
  rolloutReserve: 100_000,

  /** Time. */
  clockLeapAlarmMs: 30 * DAY,

  /** Retention on the server: rows of one transaction, and how often it looks. */
  pruneRows: 256,
  retentionIntervalMs: 15 * MINUTE,
  /** A payload that no order names is kept this long after it was last uploaded. */
  unsubmittedPayloadMs: 6 * HOUR,
  /** Traces of what expired (invitations, tokens) are kept this long. */
  expiredDays: 30,
  /** A chain of receipts may begin late only where what is missing is at least this old. */
  receiptDaysMinimum: 365,

  /** Management pages. */
  pageItems: 1_000,
  /** Of one device; an envelope stays well below 16 KiB. A page with fewer is the last one. */
  receiptsPerPage: 200,
  logFollowMs: 30 * SECOND,
  healthReports: 1_000,
  seriesPoints: 1_000,
  jobWatchers: 10_000,
  devicePolls: 4,

  /** Messages that wait for an agent which has no session at the broker; {@link Limits.messagingQueueBytes} bounds them too. */
  undeliveredMessages: 10_000,
  /** Counts of refused messages, one for each agent and reason. */
  refusalRows: 4_096,
  /** Agents on one page. */
  agentsPerPage: 200,

  /** Threads that work for messages. */
  messagingThreads: 64,
  /** Connections of those who are no agents yet at the server's own broker. Anybody can make a key. */
  messagingStrangers: 256,
  /** Of one agent at the server's own broker: topics it keeps messages on, their bytes, and filters it subscribes to. */
  messagingRetained: 32,
  messagingRetainedBytes: 64 * KIB,
  messagingFilters: 64,
  /** Packets of one connection there that are worked on at once; agents send eight messages at a time. */
  messagingInHand: 16,
  /** Levels of a topic or filter there. */
  messagingTopicLevels: 16,
  /** Of one connection there: handshakes, and other words on itself, at once and a minute. All that a stranger does is one. */
  messagingHandshakes: { burst: 16, perMinute: 12 },
  messagingWords: { burst: 60, perMinute: 120 },
  /** Of all strangers together, who may come anew as often as they like. */
  messagingStrangerWords: { burst: 256, perMinute: 1_200 },
  /** What its queue may hold; how many packets is a setting. */
  messagingQueueBytes: 64 * MIB,

  /** Programs. */
  shutdownMs: 5 * SECOND,
  fencedLives: 8
} as const

/** The relations that the numbers above must keep; read by a test and checked once at load. */
export const limitRelations: ReadonlyArray<readonly [description: string, holds: boolean]> = [
  [
    "an encrypted chunk has room for its header and tag",
    Limits.outputChunkEncryptedBytes > Limits.outputChunkBytes + 4 * KIB
  ],
  ["an age header has room for its stanzas", Limits.ageHeaderBytes >= Limits.ageStanzas * 98 + 70],
  ["an age file can name every result recipient", Limits.ageStanzas >= Limits.resultRecipients],
  [
    "an age file can name every device of a rollout, and operators",
    Limits.ageStanzas >= Limits.rolloutDevices + Limits.resultRecipients
  ],
  [
    "a signed plan can name every device of a rollout",
    ((Limits.rolloutDevices * 120 + Limits.rolloutPhases * 120 + 2 * KIB) * 4) / 3 < Limits.envelopeBytes
  ],
  ["a passphrase that is written can be read", Limits.scryptLogN <= Limits.scryptMaximumLogN],
  ["a chunk fits into a request body", Limits.outputChunkEncryptedBytes < Limits.requestBodyBytes],
  [
    "chunks can hold a whole job's output",
    Limits.outputChunks * Limits.outputChunkBytes >= Limits.jobOutputBytes
  ],
  [
    "a poll's orders fit into an answer",
    Limits.pollOrders * Limits.envelopeBytes * 2 <= Limits.responseBodyBytes
  ],
  ["a page of receipts fits into a request", Limits.receiptsPerRequest * 16 * KIB <= Limits.requestBodyBytes],
  [
    "one job's artifacts fit into the outbox",
    Limits.artifactBytes + Limits.jobOutputBytes < Limits.outboxBytes
  ],
  ["a manifest can name every entry", Limits.manifestBytes >= Limits.packageEntries * 200],
  ["a held poll does not look like a dead connection", Limits.longPollMs < Limits.connectionIdleMs],
  ["an order sealed to a retired key can be opened", Limits.retiredKeyMs >= 2 * Limits.orderLifetimeMs],
  [
    "groups and those who lack their keys have room beside devices with keys of their own",
    Limits.onionKeys - Limits.onionOwnKeys >= 2 * Limits.onionGroupDevices
  ],
  ["draining fits into shutting down", Limits.drainMs < Limits.shutdownMs],
  ["a long poll ends before a poll may sleep", Limits.longPollMs < Limits.pollSleepMaximumMs]
]

const broken = limitRelations.filter(([, holds]) => !holds).map(([description]) => description)
if (broken.length > 0) throw new Error(`Limits contradict each other: ${broken.join("; ")}`)
