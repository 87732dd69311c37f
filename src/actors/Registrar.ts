/**
 * The registrar: decides who belongs to the fleet by what operators signed. It alone publishes roots, and only roots in
 * which this very server stands with its own key.
 */
import { Clock, Effect, Result } from "effect"
import type { RpcGroup } from "effect/rpc"
import type { Engine } from "../crypto/Engine.ts"
import { isSoundOnionKey } from "../crypto/OnionKeys.ts"
import {
  keyIdOf,
  signingKeyBytes,
  verifyAdmission,
  verifyEnrolment,
  verifyFirstRoot,
  verifyNextRoot,
  verifyPreauthorisation
} from "../crypto/Trust.ts"
import { type ActorRef, Behaviour } from "../kernel/index.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { type DeviceRow, FleetStore } from "../ports/FleetStore.ts"
import { type FleetRoot, FleetTrust } from "../ports/FleetTrust.ts"
import { Identity } from "../ports/Identity.ts"
import type { EnrolmentAnswer } from "../schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { Admission, EnrolmentRequest } from "../schemas/Enrolment.ts"
import type { DeviceId, KeyId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import { Conflict, NotFound, Refused } from "../schemas/ManagementApi.ts"
import type { DirectoryProtocol } from "../schemas/protocols/Directory.ts"
import { EnrolmentFull, NoRoot, RegistrarProtocol } from "../schemas/protocols/Registrar.ts"
import type { TrustRoot } from "../schemas/TrustRoot.ts"
import { makeAlarm } from "./Alarm.ts"
import { makePreauthorised, makeTurnstile, preauthorisationFlaw } from "./Newcomers.ts"
import { refusalOf, requireGoodRoot } from "./OperatorWord.ts"
import { DeviceKey, DirectoryKey, OnionKeeperKey } from "./ServerKeys.ts"
import { makeSharing } from "./SharedKeys.ts"
import { orUnavailable } from "./StoreTrouble.ts"

/** A root of ours names this server, with the key it really signs with. */
const isOurs = (engine: Engine, root: TrustRoot, identity: Identity["Service"]): boolean => {
  const key = signingKeyBytes(identity.signingKey)
  const entry = root.servers.find((server) => server.id === identity.id)
  return (
    entry !== undefined &&
    key !== undefined &&
    entry.key === keyIdOf(engine, key) &&
    entry.recipient === identity.recipient
  )
}

/** Everybody who was an operator before this root and is none in it. */
const formerOperators = (current: FleetRoot | null, root: TrustRoot): ReadonlySet<KeyId> => {
  const now = new Set<KeyId>(root.roles.operators.keys)
  const ever = [...(current?.formerOperators ?? []), ...(current?.root.roles.operators.keys ?? [])]
  return new Set(ever.filter((key) => !now.has(key)))
}

/** The next root of the chain, judged. `current` is null before the first. */
const judgeRoot = (
  engine: Engine,
  identity: Identity["Service"],
  current: FleetRoot | null,
  envelope: DsseEnvelope
): Result.Result<FleetRoot, string> => {
  const verified =
    current === null
      ? verifyFirstRoot(engine, envelope, null)
      : verifyNextRoot(engine, current.root, envelope)
  if (Result.isFailure(verified)) return Result.fail(verified.failure.message)
  const { digest, document: root } = verified.success
  if (current === null && root.version !== 1)
    return Result.fail(`the first root has version 1, not ${root.version}`)
  if (!isOurs(engine, root, identity)) {
    return Result.fail(
      `the root does not name this server (${identity.id}) with its own keys: add it and sign again`
    )
  }
  return Result.succeed({
    root,
    firstDigest: current?.firstDigest ?? digest,
    formerOperators: formerOperators(current, root)
  })
}

/** Reads the stored chain and checks it again, from version 1 on: what a disk changed is not trusted. */
const loadRoots = Effect.fnUntraced(function* (engine: Engine, identity: Identity["Service"]) {
  const store = yield* FleetStore
  let current: FleetRoot | null = null
  for (;;) {
    const chain: ReadonlyArray<DsseEnvelope> = yield* store.roots((current?.root.version ?? 0) + 1, 16)
    if (chain.length === 0) return current
    for (const envelope of chain) {
      const judged: Result.Result<FleetRoot, string> = judgeRoot(engine, identity, current, envelope)
      if (Result.isFailure(judged)) {
        const version = (current?.root.version ?? 0) + 1
        yield* Effect.logError(`the stored root ${version} is not acceptable any more: ${judged.failure}`)
        return current
      }
      current = judged.success
    }
  }
})

/** The key to the onion service that an enrolment names must be one that an honest program makes. */
const onionKeyFlaw = ({ onion_key }: EnrolmentRequest): Refused | null =>
  onion_key === undefined || isSoundOnionKey(onion_key)
    ? null
    : new Refused({ message: "the onion key is no good x25519 key" })

const pending: EnrolmentAnswer = { status: "pending", admission: null, preauthorisation: null }

/** What an accepted device that enrols again is told: the acceptance counts for the ledger it names alone. */
const answerTo = (request: EnrolmentRequest, row: DeviceRow): EnrolmentAnswer =>
  row.status === "accepted" && row.admitted?.incarnation !== request.incarnation
    ? pending
    : {
        status: row.status,
        admission: row.admission,
        // The device has taken it as its first acceptance, if no decision came since.
        preauthorisation: row.admission === null ? row.preauthorisation : null
      }

/** Why an admission does not fit the device it names, or null. */
const admissionFlaw = (admission: Admission, row: DeviceRow, server: string): string | null => {
  const { request } = row
  if (admission.server !== server) return `it is for the server ${admission.server}`
  if (admission.signing_key !== request.signing_key || admission.recipient !== request.recipient) {
    return "it names other keys than the device enrolled with"
  }
  return null
}

/** Whom others are told of. A lost word costs time: those who hear it look for themselves now and then. */
interface News {
  /** A change that may concern a device's key to the onion service. */
  readonly keyChanged: (row: DeviceRow) => Effect.Effect<void>
  /** A device was let in, turned away or given another name. */
  readonly decided: (device: DeviceId) => Effect.Effect<void>
}

const enrolments = Effect.fnUntraced(function* ({ decided, keyChanged }: News) {
  const store = yield* FleetStore
  const engine = yield* CryptoEngine
  const identity = yield* Identity
  const trust = yield* FleetTrust
  const letInBeforehand = yield* makePreauthorised
  const mayCome = yield* makeTurnstile
  const share = yield* makeSharing

  const judge = (device: DeviceId, envelope: DsseEnvelope, root: FleetRoot) => {
    const verified = verifyEnrolment(engine, envelope)
    if (Result.isFailure(verified)) return new Refused({ message: verified.failure.message })
    const request = verified.success.document
    if (request.device !== device)
      return new Refused({ message: `the document is of ${request.device}, the request of ${device}` })
    if (request.server !== identity.id)
      return new Refused({ message: `the document is for the server ${request.server}` })
    const flaw = onionKeyFlaw(request)
    if (flaw !== null) return flaw
    return request.root_digest === root.firstDigest
      ? request
      : new Conflict({
          code: "root_conflict",
          message: "the device was given another trust root than this server's"
        })
  }

  return Effect.fnUntraced(function* (device: DeviceId, envelope: DsseEnvelope) {
    const root = trust.current()
    if (root === null) return yield* new NoRoot()
    const request = judge(device, envelope, root)
    if ("_tag" in request) return yield* request
    const nowMs = yield* Clock.currentTimeMillis
    if (!(yield* mayCome(request, nowMs))) return yield* new EnrolmentFull()
    const status = yield* store.enrol(request, envelope, nowMs)
    if (status === "full") return yield* new EnrolmentFull()
    if (status === "pending") yield* letInBeforehand(request, root, nowMs)
    const row = yield* store.device(device)
    if (row === null) return pending
    if (row.status === "accepted") yield* keyChanged(row)
    if (row.status === "accepted" && status === "pending") yield* decided(device)
    // Over this a device that slept through a change of its group's key finds back.
    return { ...answerTo(request, row), ...(yield* share(row)) }
  })
})

/** Takes what operators sign beforehand. */
const preauthorisations = Effect.gen(function* () {
  const store = yield* FleetStore
  const engine = yield* CryptoEngine
  const identity = yield* Identity
  const trust = yield* FleetTrust
  const texts = {
    used: "a device was let in by a pre-authorisation for this already: make another invitation",
    stale: "a newer pre-authorisation for this is there already"
  } as const
  return Effect.fnUntraced(function* (envelope: DsseEnvelope, actor: string) {
    const root = trust.current()
    if (root === null) return yield* new Conflict({ code: "no_root", message: new NoRoot().message })
    yield* requireGoodRoot(root)
    const verified = verifyPreauthorisation(engine, root.root, envelope)
    if (Result.isFailure(verified)) return yield* refusalOf(verified.failure, envelope, root)
    const document = verified.success.document
    const nowMs = yield* Clock.currentTimeMillis
    const flaw = preauthorisationFlaw(document, root, identity.id, nowMs)
    if (flaw !== null) return yield* new Refused({ message: flaw })
    const outcome = yield* store.preauthorise(document, envelope, actor, nowMs)
    if (outcome === "done" || outcome === "same") return
    return yield* new Conflict({ code: "stale_admission", message: texts[outcome] })
  })
})

const admissions = Effect.fnUntraced(function* ({ decided, keyChanged }: News) {
  const store = yield* FleetStore
  const engine = yield* CryptoEngine
  const identity = yield* Identity
  const trust = yield* FleetTrust
  const texts = {
    stale: ["stale_admission", "a newer decision about this device is there already"],
    name_taken: ["name_taken", "another accepted device has this name"],
    unknown: ["unknown_device", "no such device has enrolled"]
  } as const

  return Effect.fnUntraced(function* (device: DeviceId, envelope: DsseEnvelope, actor: string) {
    const root = trust.current()
    if (root === null) return yield* new Conflict({ code: "no_root", message: new NoRoot().message })
    const verified = verifyAdmission(engine, root.root, envelope)
    if (Result.isFailure(verified)) return yield* refusalOf(verified.failure, envelope, root)
    const admission = verified.success.document
    // Turning a device away is always possible.
    if (admission.decision === "accept") yield* requireGoodRoot(root)
    if (admission.device !== device)
      return yield* new Refused({ message: `the decision is about ${admission.device}` })
    const row = yield* store.device(device)
    if (row === null) return yield* new NotFound({ message: texts.unknown[1] })
    const flaw = admissionFlaw(admission, row, identity.id)
    if (flaw !== null) return yield* new Refused({ message: flaw })
    const outcome = yield* store.admit(admission, envelope, actor, yield* Clock.currentTimeMillis)
    if (outcome === "done" || outcome === "same")
      return yield* Effect.andThen(keyChanged(row), decided(device))
    const [code, message] = texts[outcome]
    return yield* new Conflict({ code, message })
  })
})

const publication = Effect.gen(function* () {
  const store = yield* FleetStore
  const engine = yield* CryptoEngine
  const identity = yield* Identity
  const trust = yield* FleetTrust

  return Effect.fnUntraced(function* (envelope: DsseEnvelope, actor: string) {
    const current = trust.current()
    const judged = judgeRoot(engine, identity, current, envelope)
    if (Result.isFailure(judged)) {
      // The version there already, sent again, is no mistake.
      const versions = yield* store.roots(1, Limits.rootChain)
      if (versions.some((known) => known.payload === envelope.payload)) return
      const other = current !== null && Result.isSuccess(judgeRoot(engine, identity, null, envelope))
      return yield* other
        ? new Conflict({ code: "root_conflict", message: "the server holds another trust root already" })
        : new Refused({ message: judged.failure })
    }
    const { version } = judged.success.root
    if (version > Limits.rootChain)
      return yield* new Refused({ message: `a chain has at most ${Limits.rootChain} roots` })
    const outcome = yield* store.addRoot(version, envelope, actor, yield* Clock.currentTimeMillis)
    if (outcome === "conflict") {
      return yield* new Conflict({
        code: "root_conflict",
        message: `another root of version ${version} is there already`
      })
    }
    trust.set(judged.success)
    yield* Effect.logInfo(`the trust root has version ${version} now`)
  })
})

/** A directory that has no place for another word is told again, until it has. */
const tellAgainMs = 100

/**
 * Tells of decisions: an agent that was turned away is cut off, one that waited is let in. Without messaging there is nobody
 * to tell, and a directory that begins anew looks for itself.
 */
const makeDecided = (directory: ActorRef<RpcGroup.Rpcs<typeof DirectoryProtocol>>) =>
  Effect.gen(function* () {
    const untold = new Set<DeviceId>()
    const tell = (device: DeviceId) =>
      directory.tell("Decided", { device }).pipe(
        Effect.catchIf(
          ({ _tag }) => _tag !== "MailboxFull",
          () => Effect.void
        ),
        Effect.andThen(Effect.sync(() => untold.delete(device)))
      )
    const alarm = yield* makeAlarm(Effect.suspend(() => Effect.forEach([...untold], tell, { discard: true })))
    return (device: DeviceId) =>
      Effect.suspend(() => {
        untold.add(device)
        return Effect.catch(Effect.asVoid(tell(device)), () => alarm.ringIn(tellAgainMs))
      })
  })

export const registrar = Behaviour.make(RegistrarProtocol, (context) =>
  Effect.gen(function* () {
    const store = yield* FleetStore
    const trust = yield* FleetTrust
    const loaded = yield* loadRoots(yield* CryptoEngine, yield* Identity)
    if (loaded !== null) trust.set(loaded)
    /** The list of keys to the onion service follows within seconds. Without a key there is nothing in it to change. */
    const keyChanged = (row: DeviceRow) =>
      row.onionKey === null ? Effect.void : Effect.ignore(context.ref(OnionKeeperKey).tell("ClientsChanged"))
    /** Whom an invitation is for can come over Tor at once. That enrolment has closed is noticed without being told. */
    const enrolmentChanged = Effect.ignore(context.ref(OnionKeeperKey).tell("EnrolmentChanged"))
    const decided = yield* makeDecided(context.ref(DirectoryKey))
    const enrol = yield* enrolments({ keyChanged, decided })
    const admit = yield* admissions({ keyChanged, decided })
    const preauthorise = yield* preauthorisations
    const publish = yield* publication

    /** The device's actor reads its row again; when it is not to be reached it will do so at its next start. */
    const tellDevice = (device: DeviceId) =>
      Effect.catch(context.refOf(DeviceKey, device).tell("Changed"), (error) =>
        Effect.logWarning(error.message)
      )

    return context.handlers({
      Enrol: ({ payload }) =>
        enrol(payload.device, payload.envelope).pipe(
          Effect.tap(() => tellDevice(payload.device)),
          orUnavailable
        ),
      Admit: ({ payload }) =>
        admit(payload.device, payload.envelope, payload.actor).pipe(
          Effect.tap(() => tellDevice(payload.device)),
          orUnavailable
        ),
      Preauthorise: ({ payload }) =>
        preauthorise(payload.envelope, payload.actor).pipe(
          Effect.tap(() => enrolmentChanged),
          orUnavailable
        ),
      Invite: ({ payload }) =>
        Effect.gen(function* () {
          const nowMs = yield* Clock.currentTimeMillis
          const { actor, expires_at_ms, id } = payload
          if (expires_at_ms <= nowMs || expires_at_ms > nowMs + Limits.invitationLifetimeMs) {
            return yield* new Refused({ message: "an invitation expires in the future, within 30 days" })
          }
          yield* store.addInvitation(id, expires_at_ms, actor, nowMs)
          yield* enrolmentChanged
        }).pipe(orUnavailable),
      PublishRoot: ({ payload }) => publish(payload.envelope, payload.actor).pipe(orUnavailable)
    })
  })
)
