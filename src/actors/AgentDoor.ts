/**
 * Who may come to the MQTT broker: agents are accepted devices that prove their key. Others may come as strangers, who can
 * do no more than tell their keys and hear that they wait.
 */
import { Clock, Effect, Result } from "effect"
import { readConnectProof } from "../crypto/Handshakes.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { type DeviceRow, FleetStore } from "../ports/FleetStore.ts"
import { Identity } from "../ports/Identity.ts"
import type { ConnectProof } from "../schemas/Agents.ts"
import type { DeviceId, SigningKey } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import type { TopicRole } from "../schemas/TopicRights.ts"
import { type AgentName, brokerServices } from "../schemas/Topics.ts"
import { monotonicMs } from "./Alarm.ts"

/** What a device that claims a name is. */
export type Claim =
  | { readonly _tag: "Agent"; readonly row: DeviceRow }
  | { readonly _tag: "Stranger" }
  /** The name is another device's, or this one was turned away. */
  | { readonly _tag: "Refused"; readonly reason: string }

/** Judges whether the holder of a key may use a name. */
export const makeClaims = Effect.gen(function* () {
  const store = yield* FleetStore
  return Effect.fnUntraced(function* (name: AgentName, device: DeviceId, signingKey: SigningKey) {
    const named = name === brokerServices ? null : yield* store.deviceNamed(name)
    if (named !== null) {
      const isIts = named.device === device && named.request.signing_key === signingKey
      return isIts
        ? ({ _tag: "Agent", row: named } satisfies Claim)
        : ({ _tag: "Refused", reason: "the name is another device's" } satisfies Claim)
    }
    const row = yield* store.device(device)
    // Whoever does not hold its key is told nothing of it.
    if (row !== null && row.request.signing_key !== signingKey)
      return { _tag: "Refused", reason: "the device's key is another" } satisfies Claim
    if (row?.status === "revoked" || row?.status === "rejected")
      return { _tag: "Refused", reason: `the device was ${row.status}` } satisfies Claim
    if (row?.status === "accepted")
      return { _tag: "Refused", reason: `the device's name is ${row.name}` } satisfies Claim
    return { _tag: "Stranger" } satisfies Claim
  })
})

/** Proofs of one agent that are remembered: one that comes more often than this within minutes is not well. */
const proofsOfAgent = 256

/**
 * Proofs of the last minutes are remembered, so that each is good once. None is forgotten while it is good: who has come too
 * often, and strangers all together, must wait until some of theirs are over. `who` is null for those who are no agents.
 */
export const makeOnce = () => {
  const seen = new Map<string, { readonly who: AgentName | null; readonly atMs: number }>()
  const counts = new Map<AgentName | null, number>()
  const count = (who: AgentName | null, more: number): void => {
    const now = (counts.get(who) ?? 0) + more
    if (now === 0) counts.delete(who)
    else counts.set(who, now)
  }
  return (who: AgentName | null, proof: string, nowMs: number): "first" | "again" | "too_many" => {
    for (const [old, { atMs, who: whose }] of seen) {
      if (atMs > nowMs - 2 * Limits.requestClockSkewMs) break
      seen.delete(old)
      count(whose, -1)
    }
    if (seen.has(proof)) return "again"
    if ((counts.get(who) ?? 0) >= (who === null ? Limits.requestNonces : proofsOfAgent)) return "too_many"
    seen.set(proof, { who, atMs: nowMs })
    count(who, 1)
    return "first"
  }
}

/** Why a proof does not count, whoever it is of; undefined where it does. */
const flawOf = (
  proof: ConnectProof,
  {
    name,
    nowMs,
    openedAtMs,
    server
  }: Readonly<Record<"name" | "server", string>> & Readonly<Record<"nowMs" | "openedAtMs", number>>
): string | undefined => {
  if (proof.agent !== name) return `its proof is for ${proof.agent}`
  if (proof.server !== server) return `its proof is for the server ${proof.server}`
  // What was remembered of proofs ended with the last life of broker services.
  if (proof.issued_at_ms < openedAtMs) return "its proof was made before broker services began"
  return Math.abs(proof.issued_at_ms - nowMs) > Limits.requestClockSkewMs
    ? `its proof is ${proof.issued_at_ms - nowMs} ms off`
    : undefined
}

/** Refusals of a minute that are told; anybody can cause any number of them, and all are counted elsewhere. */
const toldPerMinute = 20

/** Tells of who was turned away, so many times a minute. */
export const makeTeller = () => {
  let minute = 0
  let told = 0
  return (line: string, nowMs: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      const now = Math.floor(nowMs / 60_000)
      if (now !== minute) [minute, told] = [now, 0]
      told++
      if (told > toldPerMinute) return Effect.logDebug(line)
      return Effect.logWarning(told < toldPerMinute ? line : `${line}; more of this minute is not told`)
    })
}

/** Judges the password of a connection: a {@link ConnectProof}. Null turns it away. */
export const makeAgentDoor = Effect.gen(function* () {
  const engine = yield* CryptoEngine
  const identity = yield* Identity
  const claimOf = yield* makeClaims
  const taken = makeOnce()
  const tell = makeTeller()
  const openedMs = yield* monotonicMs
  return Effect.fnUntraced(
    function* (
      name: AgentName,
      password: Uint8Array
    ): Effect.fn.Return<TopicRole | null, { message: string }> {
      const nowMs = yield* Clock.currentTimeMillis
      // By the clock as it goes now: one that was ahead at the start, and was put back, would keep everybody out till then.
      const openedAtMs = nowMs - ((yield* monotonicMs) - openedMs)
      const refuse = (reason: string) => Effect.as(tell(`${name} may not come: ${reason}`, nowMs), null)
      const read = readConnectProof(engine, password)
      if (Result.isFailure(read)) return yield* refuse(read.failure.message)
      const proof = read.success
      const flaw = flawOf(proof, { name, server: identity.id, nowMs, openedAtMs })
      if (flaw !== undefined) return yield* refuse(flaw)
      const claim = yield* claimOf(name, proof.device, proof.signing_key)
      // Others may have read the session's name, and begin one of the same.
      const once = taken(claim._tag === "Agent" ? name : null, `${proof.signing_key} ${proof.session}`, nowMs)
      if (once === "again") return yield* refuse("its proof was used before")
      if (once === "too_many") return yield* refuse("too many proofs came within minutes")
      if (claim._tag === "Refused") return yield* refuse(claim.reason)
      return claim._tag === "Agent" ? "agent" : "stranger"
    },
    (effect, name) =>
      Effect.catch(effect, (error) =>
        Effect.as(Effect.logError(`${name} was not judged: ${error.message}`), null)
      )
  )
})
