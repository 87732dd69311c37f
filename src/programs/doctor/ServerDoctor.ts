/** What `postern doctor` looks at on a server's machine. */
import { Clock, Effect, Option, Result, Schema } from "effect"
import { checkGroup, requirement } from "../../adapters/doctor/Findings.ts"
import { machineChecks } from "../../adapters/doctor/MachineChecks.ts"
import { idOfState, type Patient, rowsOf } from "../../adapters/doctor/Patient.ts"
import { processChecks } from "../../adapters/doctor/ProcessChecks.ts"
import { reachChecks } from "../../adapters/doctor/ReachChecks.ts"
import { stateChecks } from "../../adapters/doctor/StateChecks.ts"
import { torChecks } from "../../adapters/doctor/TorChecks.ts"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import type { ConfigError, LoadedConfig } from "../../adapters/TomlConfig.ts"
import { verifyFirstRoot } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { DsseEnvelope } from "../../schemas/Dsse.ts"
import type { Finding } from "../../schemas/Finding.ts"
import { isLoopback } from "../../schemas/Loopback.ts"
import type { ServerConfig } from "../../schemas/ServerConfig.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"
import { examine } from "./Examination.ts"
import { messagingFindings } from "./MessagingFindings.ts"
import { onionFindings } from "./OnionFindings.ts"
import { rootFinding } from "./rootFinding.ts"

/** Room that a server is better not without; it has no setting for it. */
const reserveBytes = 256 * 1024 * 1024

const decodeEnvelope = Schema.decodeUnknownResult(Schema.fromJsonString(DsseEnvelope))

type Held = Result.Result<{ readonly root: TrustRoot }, string> | null

/** The newest root in the registry, or what keeps it from being read; null where there is none. */
const newestRoot = (patient: Patient): Effect.Effect<Held, never, CryptoEngine> =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const query = "SELECT envelope FROM roots ORDER BY version DESC LIMIT 1"
    const [row] = yield* Effect.try({
      try: () => rowsOf(patient, "fleet.db", query) ?? [],
      catch: errorText
    })
    if (row === undefined) return null
    const envelope = decodeEnvelope(row["envelope"])
    if (Result.isFailure(envelope)) return Result.fail("the newest root cannot be read")
    const root = verifyFirstRoot(engine, envelope.success, null)
    return Result.isFailure(root)
      ? Result.fail(`the newest root is damaged: ${root.failure.message}`)
      : Result.succeed({ root: root.success.document })
  }).pipe(Effect.catch((reason) => Effect.succeed(Result.fail(`the registry cannot be read: ${reason}`))))

const tokens = (patient: Patient): Finding => {
  const is = requirement("access.tokens", "an API token for the first operator")
  const [row] = rowsOf(patient, "fleet.db", "SELECT count(*) AS count FROM tokens") ?? []
  const count = Number(row?.["count"] ?? 0)
  return count > 0
    ? is.ok(`${count} of them`)
    : is.degraded("there is none yet", "node server.js token create NAME --role admin")
}

const Word = Schema.Struct({ origin: Schema.NullOr(Schema.String) })
const decodeWord = Schema.decodeUnknownOption(Word)

/** Where the running server listens, as it says itself; null where none runs, or it does not listen. */
const originOf = ({ running }: Patient): URL | null => {
  const word = decodeWord(running?.answer ?? null)
  const origin = Option.isSome(word) ? word.value.origin : null
  return origin === null || !URL.canParse(origin) ? null : new URL(origin)
}

/** An address of this very machine that leads to where it listens. */
const nearAddress = (origin: URL): string => {
  const near = new URL(origin)
  if (origin.hostname === "0.0.0.0") near.hostname = "127.0.0.1"
  if (origin.hostname === "[::]") near.hostname = "[::1]"
  return near.origin
}

const plannedOrigin = ({ host, port }: ServerConfig): string =>
  `http://${host.includes(":") ? `[${host}]` : host}:${port}`

const exposure = (origin: string, { addresses, onion }: ServerConfig): Finding => {
  const is = requirement("network.exposure", "a way in for devices, with TLS before it")
  if (!isLoopback(origin)) {
    return is.degraded(
      `it listens on ${origin} itself, without TLS: the network reads orders, receipts and health reports, but no packages or results`,
      "set host to 127.0.0.1 and put a proxy with TLS before it (docs/first-device.md)"
    )
  }
  if (addresses.length === 0 && !onion.enabled) {
    return is.degraded(
      "it listens on loopback only and no other address is configured: no other machine reaches it",
      'run it with --onion (docs/tor.md), or addresses = ["https://YOUR.NAME"] in its configuration, with a proxy that leads here (docs/first-device.md)'
    )
  }
  const ways = [...addresses, ...(onion.enabled ? ["its onion services"] : [])]
  return is.ok(`loopback, behind ${ways.join(", ")}`)
}

/** Whether the addresses that devices learn from the root lead to this machine from elsewhere. */
const rootAddresses = (held: Held, id: string | null): ReadonlyArray<Finding> => {
  if (held === null || Result.isFailure(held) || id === null) return []
  const is = requirement("trust.addresses", "addresses in the trust root that other machines can reach")
  const addresses = held.success.root.servers.find((server) => server.id === id)?.addresses
  if (addresses === undefined)
    return [
      is.failed(
        `the trust root does not name this server (${id})`,
        "node server.js identity > server.json, then postern keys root draft next.json --add-server server.json, postern keys root sign next.json and postern keys root publish next.json"
      )
    ]
  return [
    addresses.every(isLoopback)
      ? is.degraded(
          `${addresses.join(", ")}: only this machine reaches that`,
          "let it be reached from outside (docs/first-device.md), then postern keys root draft next.json --address URL, postern keys root sign next.json and postern keys root publish next.json"
        )
      : is.ok(addresses.join(", "))
  ]
}

const rootIn = (held: Held): TrustRoot | null =>
  held !== null && Result.isSuccess(held) ? held.success.root : null

/** Everything about a server, in the order in which it is worth mending. */
const serverFindings = (patient: Patient, config: ServerConfig) =>
  Effect.gen(function* () {
    const held = yield* newestRoot(patient)
    const nowMs = yield* Clock.currentTimeMillis
    const origin = originOf(patient)
    const restart = "systemctl restart postern-server; journalctl -u postern-server"
    const reach = origin === null ? Effect.succeed([]) : reachChecks([nearAddress(origin)], restart)
    const way = exposure(origin?.origin ?? plannedOrigin(config), config)
    const absent = "on the operator's machine: postern keys init --server URL"
    const groups = [
      checkGroup("machine", "the machine", machineChecks),
      checkGroup(
        "state",
        "the state folder",
        Effect.try(() => stateChecks(patient, reserveBytes))
      ),
      checkGroup(
        "program",
        "the program",
        Effect.try(() => processChecks(patient))
      ),
      checkGroup("server", "the server's answer", reach),
      Effect.succeed([
        way,
        rootFinding(held, nowMs, absent),
        ...rootAddresses(held, idOfState(patient.stateFolder))
      ]),
      checkGroup(
        "onion",
        "the way over Tor",
        Effect.map(config.onion.enabled ? torChecks(config.onion) : Effect.succeed([]), (found) => [
          ...found,
          ...onionFindings(config, patient.running?.answer, rootIn(held), idOfState(patient.stateFolder))
        ])
      ),
      checkGroup(
        "messaging",
        "messages between devices",
        Effect.try(() => messagingFindings(config, patient.running))
      ),
      checkGroup(
        "access",
        "the operators' access",
        Effect.try(() => [tokens(patient)])
      )
    ]
    return (yield* Effect.all(groups, { concurrency: 4 })).flat()
  })

/** Looks at a server with the configuration that it would run with. */
export const examineServer = (load: Effect.Effect<LoadedConfig<ServerConfig>, ConfigError>) =>
  examine("server", load, serverFindings)
