/** What `postern doctor` looks at on a device. */
import { Clock, Effect, Option, Result, Schema } from "effect"
import { restoreRoot } from "../../actors/TrustState.ts"
import { BubblewrapJail } from "../../adapters/BubblewrapJail.ts"
import { checkGroup, requirement } from "../../adapters/doctor/Findings.ts"
import { jailChecks, machineChecks } from "../../adapters/doctor/MachineChecks.ts"
import { type Patient, rowsOf } from "../../adapters/doctor/Patient.ts"
import { processChecks } from "../../adapters/doctor/ProcessChecks.ts"
import { reachWithinMs } from "../../adapters/doctor/ReachChecks.ts"
import { stateChecks } from "../../adapters/doctor/StateChecks.ts"
import { torChecks } from "../../adapters/doctor/TorChecks.ts"
import { errorText } from "../../adapters/files/AtomicFile.ts"
import type { ConfigError, LoadedConfig } from "../../adapters/TomlConfig.ts"
import { openUnverified } from "../../crypto/Documents.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Jail } from "../../ports/Jail.ts"
import type { ClientConfig } from "../../schemas/ClientConfig.ts"
import { DsseEnvelope } from "../../schemas/Dsse.ts"
import { Admission } from "../../schemas/Enrolment.ts"
import type { Finding } from "../../schemas/Finding.ts"
import { isOnionOrigin } from "../../schemas/Onion.ts"
import type { JailVerdict } from "../../schemas/protocols/JailGuard.ts"
import type { HeldRoot } from "../../schemas/protocols/TrustKeeper.ts"
import { SelfReport } from "../../schemas/SelfReport.ts"
import type { TunnelState } from "../../schemas/TunnelState.ts"
import { examine } from "./Examination.ts"
import { reachFindings } from "./reachFindings.ts"
import { rootFinding } from "./rootFinding.ts"

const decodeReport = Schema.decodeUnknownOption(SelfReport)

/** What the running client says of itself, if it does. */
const wordOf = ({ running }: Patient): SelfReport | null =>
  Option.getOrNull(decodeReport(running?.answer ?? null))

const noteOf = (patient: Patient, key: string): string | null => {
  const [row] = rowsOf(patient, "ledger.db", `SELECT value FROM notes WHERE key = '${key}'`) ?? []
  return typeof row?.["value"] === "string" && row["value"] !== "" ? row["value"] : null
}

/** The root in the ledger, or what keeps it from being read; null where there is none. */
const heldRoot = (patient: Patient) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const note = yield* Effect.try({ try: () => noteOf(patient, "roots"), catch: errorText })
    return note === null ? null : restoreRoot(engine, note)
  }).pipe(
    Effect.catch((reason) => Effect.succeed(Result.fail<string>(`the ledger cannot be read: ${reason}`)))
  )

const enrolmentMend: Readonly<Record<string, string>> = {
  not_enrolled: "on the operator's machine: postern devices accept --waiting",
  rejected: "ask the operators; to try anew, remove the state folder and start with a new invitation",
  revoked: "ask the operators; to come back, it needs a new acceptance: postern devices accept"
}

const decodeEnvelope = Schema.decodeUnknownOption(Schema.fromJsonString(DsseEnvelope))

/** The decision that lies in the ledger of a client that does not run; the client verifies it anew at its start. */
const storedDecision = (patient: Patient) =>
  Effect.map(CryptoEngine, (engine): string => {
    const envelope = decodeEnvelope(noteOf(patient, "admission"))
    if (Option.isNone(envelope)) return "not_enrolled"
    const opened = openUnverified(engine, "admission", Admission, envelope.value)
    if (Result.isFailure(opened)) return "not_enrolled"
    const phases = { accept: "accepted", reject: "rejected", revoke: "revoked" } as const
    return phases[opened.success.document.decision]
  })

const enrolment = (patient: Patient) =>
  Effect.gen(function* () {
    const is = requirement("trust.enrolment", "the operators' acceptance of this device")
    const word = wordOf(patient)
    const phase = word?.phase ?? (yield* storedDecision(patient))
    if (phase === "accepted") {
      return word === null || word.blocked === null
        ? is.ok("accepted")
        : is.degraded(
            `accepted, but it takes no orders: ${word.blocked} (${word.detail})`,
            "see postern devices show on the operator's machine"
          )
    }
    const code = word === null || word.claim_code === null ? "" : `; claim code ${word.claim_code}`
    const detail = word === null || word.trust_detail === "" ? "" : `: ${word.trust_detail}`
    return is.degraded(`${phase.replace("_", " ")}${detail}${code}`, enrolmentMend[phase] ?? "")
  })

/** The addresses of its server that a device knows. */
const addressesOf = (config: ClientConfig, held: Result.Result<HeldRoot, string> | null) => {
  const known =
    held !== null && Result.isSuccess(held)
      ? (held.success.root.servers.find(({ id }) => id === held.success.server)?.addresses ?? [])
      : []
  return [...new Set([...known, ...(config.server === null ? [] : [config.server])])]
}

/** Nothing where nothing leads through Tor. */
const tor = (
  config: ClientConfig,
  addresses: ReadonlyArray<string>,
  state: TunnelState | undefined
): Effect.Effect<ReadonlyArray<Finding>> => {
  const isNeeded = config.tor.mode === "always" || addresses.some(isOnionOrigin)
  return config.tor.mode === "never" || !isNeeded ? Effect.succeed([]) : torChecks(config.tor, state)
}

/** What the jail's own check found, made by the running client or, without one, by us as who we are. */
const verdictOf = (patient: Patient, config: ClientConfig): Effect.Effect<JailVerdict> => {
  const told = wordOf(patient)?.jail
  if (told !== undefined && (told.report !== null || told.problem !== null)) return Effect.succeed(told)
  return Effect.gen(function* () {
    const jail = yield* Jail
    return yield* jail.check.pipe(
      Effect.map((report): JailVerdict => ({ report, problem: null })),
      Effect.catch(({ message }) => Effect.succeed<JailVerdict>({ report: null, problem: message }))
    )
  }).pipe(
    Effect.provide(
      BubblewrapJail.layer({
        bwrap: config.bwrap,
        // Not the uids of a client at work, and none of its control groups.
        uidBase: config.jail_uid_base + 1_000,
        delegatedControlGroup: false
      })
    )
  )
}

const jailFindings = ({ problem, report }: JailVerdict): ReadonlyArray<Finding> => {
  const works = requirement("jail.works", "a jail that holds a trial job")
  if (report === null)
    return [
      works.degraded(
        problem ?? "it was not tried yet",
        "mend what is named above, then run postern doctor again"
      )
    ]
  const apart = requirement("jail.isolation", "a user of their own for jobs, apart from the client's")
  const limits = requirement("jail.limits", "limits on a job as a whole")
  const weak = Object.entries(report.limits).filter(
    ([, mechanism]) => mechanism !== "cgroup" && mechanism !== "tmpfs"
  )
  return [
    works.ok(
      `${report.engine} ${report.version}${report.notes.length === 0 ? "" : `. ${report.notes.join(" ")}`}`
    ),
    report.isolation === "same-uid"
      ? apart.degraded(
          "isolation: same-uid. Jobs share the client's user: the jail has one layer less",
          "start the client by deploy/postern-client.service"
        )
      : apart.ok(`isolation: ${report.isolation}`),
    weak.length === 0
      ? limits.ok("by control groups")
      : limits.degraded(
          `${weak.map(([name, mechanism]) => `${name} by ${mechanism}`).join(", ")}: per process, not per job`,
          "start the client by deploy/postern-client.service, on a machine whose control groups hold memory"
        )
  ]
}

/** Nothing where the configuration wants no agent, or where no client runs. */
const messaging = (patient: Patient, config: ClientConfig): ReadonlyArray<Finding> => {
  const word = wordOf(patient)?.agent
  if (!config.agent.enabled || patient.running === null || word === undefined) return []
  const is = requirement("agent.messaging", "messages from and to other devices")
  if (word === null) return [is.degraded("the agent does not answer", "see postern ps, and the client's log")]
  const { detail, state } = word
  switch (state) {
    case "known":
      return [is.ok("broker services know this device")]
    case "no_trust":
      return [is.ok("none: the device is not accepted, or its trust root names no broker services")]
    case "no_messaging":
      return [is.ok("none: the server has no messaging")]
    default:
      return [
        is.degraded(
          `no session with broker services: ${state.replace("_", " ")}${detail === "" ? "" : ` (${detail})`}`,
          "check the server (postern doctor there), and what filters between; postern status tells how its broker is"
        )
      ]
  }
}

/** Everything about a device, in the order in which it is worth mending. */
const deviceFindings = (patient: Patient, config: ClientConfig) =>
  Effect.gen(function* () {
    const held = yield* heldRoot(patient)
    const nowMs = yield* Clock.currentTimeMillis
    const addresses = addressesOf(config, held)
    const groups = [
      checkGroup("machine", "the machine", machineChecks),
      checkGroup(
        "state",
        "the state folder",
        Effect.try(() => stateChecks(patient, config.disk_reserve_bytes))
      ),
      checkGroup(
        "program",
        "the program",
        Effect.try(() => processChecks(patient))
      ),
      checkGroup(
        "server",
        "the server",
        reachFindings(config, addresses, wordOf(patient)?.last_poll_at_ms ?? null, nowMs),
        reachWithinMs
      ),
      checkGroup("tor", "the way through Tor", tor(config, addresses, wordOf(patient)?.tunnel)),
      Effect.succeed([rootFinding(held, nowMs, "it comes with the first answer of the server")]),
      checkGroup(
        "trust",
        "the enrolment",
        Effect.map(enrolment(patient), (one) => [one])
      ),
      Effect.succeed(messaging(patient, config)),
      checkGroup(
        "kernel",
        "what the jail stands on",
        Effect.try(() => jailChecks(config.bwrap))
      ),
      checkGroup("jail", "the jail", Effect.map(verdictOf(patient, config), jailFindings))
    ]
    return (yield* Effect.all(groups, { concurrency: 4 })).flat()
  })

/** Looks at a device with the configuration that its client would run with. */
export const examineDevice = (load: Effect.Effect<LoadedConfig<ClientConfig>, ConfigError>) =>
  examine("device", load, deviceFindings)
