/**
 * What warden and client say to each other, and how each side reads it. The client is believed nothing: what it asks is
 * decoded strictly and bounded, and compared with the policy that it was given before it ever touched the network.
 */
import { Limits } from "../../schemas/Limits.ts"
import {
  boolean,
  type Decoder,
  dictionary,
  integer,
  list,
  literal,
  nullable,
  set,
  struct,
  tagged,
  text
} from "./Decoding.ts"

/** The environment variable that makes a process the client proper, and says which descriptor leads to its warden. */
export const wardenVariable = "POSTERN_WARDEN"
export const wardenDescriptor = 3

const name = /^[a-z0-9][a-z0-9-]{0,62}$/
const absolute = text(Limits.packagePathLength, /^\//)

/** As in a manifest. */
export const decodeLimits = struct({
  timeout_ms: integer(100, Limits.jobTimeoutMs),
  grace_ms: integer(0, Limits.jobGraceMs),
  memory_bytes: integer(16 * 1024 * 1024, Limits.jobMemoryBytes),
  cpu_percent: integer(1, Limits.jobCpuPercent),
  processes: integer(1, Limits.jobProcesses),
  disk_bytes: integer(64 * 1024, Limits.jobDiskBytes),
  output_bytes: integer(0, Limits.jobOutputBytes),
  artifact_bytes: integer(0, Limits.artifactBytes),
  artifact_entries: integer(0, Limits.artifactEntries)
})

/** As in a manifest. */
export const decodeGrants = struct({ devices: set(text(63, name), 16), read_only: set(absolute, 16) })

/** As in a manifest; the program's name is not empty. */
export const decodeCommand: Decoder<ReadonlyArray<string>> = (value, at) => {
  const command = list(text(Limits.commandArgumentLength), 1, Limits.commandArguments)(value, at)
  text(Limits.commandArgumentLength, /^[\s\S]/)(command[0], at)
  return command
}

/** As in a manifest. */
export const decodeEnvironment = dictionary(
  /^[A-Za-z_][A-Za-z0-9_]{0,127}$/,
  text(Limits.environmentValueLength),
  Limits.environmentVariables
)

/**
 * What the device's configuration says of jobs. It is the first message of a client's life, said before the client gives
 * up root and before it has heard anything from outside; it holds for that life.
 */
const policy = struct({
  bwrap: text(4_096, /^[\s\S]/),
  /** First uid for jobs; null where jobs share the client's. */
  uid_base: nullable(integer(1_000, 2_000_000_000)),
  /** Whom the client becomes; null where it stays who it is. */
  client_uid: nullable(integer(1, 4_294_967_294)),
  /** Devices by the name that packages use. */
  devices: dictionary(name, absolute, 64),
  read_only: set(absolute, 64),
  /** What no path may touch, beside the system's own folders: state, keys, configuration. */
  private_paths: list(text(4_096, /^\//), 0, 16),
  /** The time without a sign of life after which the client is taken for hung. */
  hung_after_ms: integer(1_000, 3_600_000),
  /** Whether the client is to be started again when it dies. */
  respawn: boolean
})
export type Policy = ReturnType<typeof policy>

const run = { run: integer(1, Number.MAX_SAFE_INTEGER) } as const

/** What the client says. */
export const decodeToWarden = tagged({
  hello: { policy },
  /** The event loop turns. */
  beat: {},
  /** All loops that must be heard of were heard of. */
  alive: {},
  /** The client does its work. */
  working: {},
  start: {
    ...run,
    command: decodeCommand,
    environment: decodeEnvironment,
    /** A descriptor of the client, open on the package's folder: what it cannot open itself it cannot lend. */
    package: nullable(integer(0, 1_000_000)),
    limits: decodeLimits,
    grants: decodeGrants
  },
  release: run,
  terminate: run,
  kill: run
})
export type ToWarden = ReturnType<typeof decodeToWarden>

/** Why a start was refused: the reasons that the jail gives. */
export const decodeRefusal = literal("bad_request", "grant_refused", "no_free_slot", "start_failed")

const report = text(4_000)

/** What the warden says. */
export const decodeToClient = tagged({
  welcome: {
    isolation: literal("separate-uid", "same-uid"),
    control_groups: boolean
  },
  /** All of the job but itself stands; `viewer` is the process through whose eyes its file system is seen. */
  ready: { ...run, viewer: integer(1, 2 ** 31) },
  begun: run,
  ended: {
    ...run,
    exit_code: nullable(integer(0, 255)),
    cpu_ms: nullable(integer(0, Number.MAX_SAFE_INTEGER)),
    peak_memory_bytes: nullable(integer(0, Number.MAX_SAFE_INTEGER)),
    message: report,
    clean: boolean
  },
  refused: { ...run, reason: decodeRefusal, detail: report }
})
export type ToClient = ReturnType<typeof decodeToClient>
