/**
 * Who sent a request: the strict signature, the authority it was meant for, its time, its nonce. Plain functions over
 * bytes and the store's keys, so that simulation includes them.
 */
import { Clock, Effect, Option, Result, Schema } from "effect"
import { openUnverified } from "../../crypto/Documents.ts"
import type { Engine } from "../../crypto/Engine.ts"
import { type ClaimedRequest, isBodyOf, readClaim, verifyClaim } from "../../crypto/RequestSignature.ts"
import { signingKeyBytes, verifyEnrolment } from "../../crypto/Trust.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { FleetStore } from "../../ports/FleetStore.ts"
import { EnrolmentRequest } from "../../schemas/Enrolment.ts"
import { DeviceId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { TrustRoot } from "../../schemas/TrustRoot.ts"
import { type DeviceRefusal, refuse, refusing } from "./DeviceRefusal.ts"
import type { ApiRequest } from "./Exchange.ts"
import { Nonces } from "./Nonces.ts"

/** What a request claims of itself; enough to sign an answer to it, whether or not it is true. */
export interface Claim {
  readonly device: DeviceId
  readonly request: ClaimedRequest
}

const isDeviceId = Schema.is(DeviceId)

/** Reads the claim; what has none cannot be given a signed answer. */
export const claimOf = (request: ApiRequest): Result.Result<Claim, DeviceRefusal> => {
  const { authority, headers, method, path, query } = request
  const claim = readClaim({ method, authority, path, query }, headers)
  if (Result.isFailure(claim)) {
    const code = claim.failure.reason === "request_malformed" ? "bad_request" : "bad_signature"
    return Result.fail(refuse(code, claim.failure.message))
  }
  const { keyId } = claim.success
  return isDeviceId(keyId)
    ? Result.succeed({ device: keyId, request: claim.success })
    : Result.fail(refuse("bad_signature", "only devices sign requests here"))
}

/**
 * For which hosts, as Host headers name them, requests are taken at a door: `only` one, whatever the root says, or those
 * that the root gives this server, `but` those that have a door of their own. So a request that was seen at one door cannot
 * be given in at another.
 */
export type DoorHosts = { readonly only: string } | { readonly but: ReadonlySet<string> }

/** Null before there is a root, where it is the root that says: then any. Worked out once for each root. */
const makeAuthorities = (hosts: DoorHosts) => {
  const only = "only" in hosts ? new Set([hosts.only]) : null
  const but = "but" in hosts ? hosts.but : new Set<string>()
  let known: { readonly root: TrustRoot; readonly authorities: ReadonlySet<string> } | null = null
  return (root: TrustRoot | null, server: string): ReadonlySet<string> | null => {
    if (only !== null) return only
    if (root === null) return null
    if (known?.root !== root) {
      const addresses = root.servers.find(({ id }) => id === server)?.addresses ?? []
      const here = addresses.map((address) => new URL(address).host).filter((host) => !but.has(host))
      known = { root, authorities: new Set(here) }
    }
    return known.authorities
  }
}

/** The key a device's own enrolment document names. That the document is genuine is the registrar's to judge. */
const keyInEnrolment = (engine: Engine, device: DeviceId, body: unknown): Uint8Array | null => {
  const opened = openUnverified(engine, "enrolment", EnrolmentRequest, body)
  if (Result.isFailure(opened) || opened.success.document.device !== device) return null
  return signingKeyBytes(opened.success.document.signing_key) ?? null
}

/** Public keys by device. A device's key never changes (its id is made of it), so what is kept never grows old. */
const makeKeys = (maximum: number) =>
  Effect.map(FleetStore, (store) => {
    const known = new Map<DeviceId, Uint8Array>()
    return Effect.fnUntraced(function* (device: DeviceId) {
      const cached = known.get(device)
      if (cached !== undefined) return cached
      const row = yield* store.device(device)
      const key = row === null ? undefined : signingKeyBytes(row.request.signing_key)
      if (key === undefined) return null
      const oldest = known.size >= maximum ? known.keys().next().value : undefined
      if (oldest !== undefined) known.delete(oldest)
      known.set(device, key)
      return key
    })
  })

const keptKeys = 20_000
const noncesPerDevice = 4_096

const timeFlaw = (createdSeconds: number, nowMs: number, startedMs: number): DeviceRefusal | null => {
  const createdMs = createdSeconds * 1_000
  if (createdMs < startedMs) {
    return refuse("clock_skew", "the request was made before this server started: make it again")
  }
  return Math.abs(createdMs - nowMs) > Limits.requestClockSkewMs
    ? refuse("clock_skew", "the request's time is too far from the server's: take the time from this answer")
    : null
}

/** Whether operators know who enrols: by an earlier decision, or by an invitation of theirs that it proves. */
const makeVouching = Effect.gen(function* () {
  const store = yield* FleetStore
  const engine = yield* CryptoEngine
  return Effect.fnUntraced(function* (device: DeviceId, document: unknown, nowMs: number) {
    const row = yield* refusing(store.device(device))
    if (row !== null && row.status !== "pending") return true
    const verified = verifyEnrolment(engine, document)
    const invitation = Result.isSuccess(verified) ? verified.success.document.invitation : null
    return invitation !== null && (yield* refusing(store.invitationValid(invitation.id, nowMs)))
  })
})

/** Builds the check of one door. Its memory of nonces is this life's own. */
export const makeAuthentication = Effect.fnUntraced(function* (hosts: DoorHosts) {
  const engine = yield* CryptoEngine
  const authoritiesOf = makeAuthorities(hosts)
  const keyOf = yield* makeKeys(keptKeys)
  const isVouchedFor = yield* makeVouching
  const startedMs = yield* Clock.currentTimeMillis
  const keepMs = 2 * Limits.requestClockSkewMs
  const known = new Nonces({ maximum: Limits.requestNonces, maximumPerKey: noncesPerDevice, keepMs })
  // Strangers can make keys without end; they must not use up the room of those we know.
  const strangers = new Nonces({ maximum: Limits.requestNonces / 10, maximumPerKey: 64, keepMs })

  /** Succeeds when the request is what the claimed device signed, for this server, now, and for the first time. */
  return Effect.fnUntraced(function* (
    request: ApiRequest,
    claim: Claim,
    root: TrustRoot | null,
    server: string,
    /** The enrolment document, where the request carries one: its key is not known yet. */
    enrolment: Option.Option<unknown>
  ): Effect.fn.Return<void, DeviceRefusal> {
    const authorities = authoritiesOf(root, server)
    if (authorities !== null && !authorities.has(request.authority)) {
      return yield* refuse(
        "wrong_authority",
        "the request is signed for another address than the root gives this server, or came in by another"
      )
    }
    const nowMs = yield* Clock.currentTimeMillis
    const flaw = timeFlaw(claim.request.createdSeconds, nowMs, startedMs)
    if (flaw !== null) return yield* flaw
    if (!isBodyOf(engine, claim.request, request.body)) {
      return yield* refuse("bad_signature", "the body is not the one that was signed")
    }
    const key = Option.isSome(enrolment)
      ? keyInEnrolment(engine, claim.device, enrolment.value)
      : yield* refusing(keyOf(claim.device))
    if (key === null) {
      return yield* Option.isSome(enrolment)
        ? refuse("bad_request", "the body is no enrolment of the device that signed the request")
        : refuse("unknown_device", "the server knows no such device: enrol first")
    }
    if (!verifyClaim(engine, claim.request, key)) {
      return yield* refuse("bad_signature", "the signature does not fit the device's key")
    }
    const isKnown = Option.isNone(enrolment) || (yield* isVouchedFor(claim.device, enrolment.value, nowMs))
    const { nonce } = claim.request
    // Who is known now may have been a stranger when the nonce came first.
    const taken = isKnown
      ? strangers.has(claim.device, nonce)
        ? "replayed"
        : known.take(claim.device, nonce, nowMs)
      : strangers.take(claim.device, nonce, nowMs)
    if (taken === "replayed") return yield* refuse("replayed_nonce", "a request with this nonce came before")
    if (taken === "full") return yield* refuse("overloaded", "too many requests lately: try again later")
  })
})
