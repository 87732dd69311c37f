/** What a life of a device's actor knows: rows it read from the store, and what only it has heard. */
import { Clock, Effect, Result } from "effect"
import { decodeBase64 } from "../crypto/Base64.ts"
import { fromUtf8 } from "../crypto/Bytes.ts"
import type { Engine } from "../crypto/Engine.ts"
import { isSoundOnionKey } from "../crypto/OnionKeys.ts"
import { verifyDeviceStatement } from "../crypto/Trust.ts"
import { CryptoEngine } from "../ports/CryptoEngine.ts"
import { type DeviceRow, FleetStore, type Standing } from "../ports/FleetStore.ts"
import type { Objection, PollRequest } from "../schemas/DeviceApi.ts"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import { Limits } from "../schemas/Limits.ts"
import { type Heard, isHigher, livesAfter, type Memory, noLives } from "./DeviceJudgement.ts"

/** The same news from a poll is written again after this long, so that "last seen" stays roughly right. */
const seenEveryMs = 60_000

const rereadAfterMs = 60_000

/** What is held against whoever asks, by what is known already. */
export const knownObjection = (row: DeviceRow | null, request: PollRequest): Objection | null =>
  row === null || row.status !== "accepted"
    ? "not_enrolled"
    : request.incarnation === row.admitted?.incarnation
      ? row.objection
      : (row.objection ?? "ledger_rolled_back")

/** The keys a statement names, without a look at who signed it: only whether they changed is asked. */
const keysIn = (statement: DsseEnvelope | null): string => {
  const bytes = statement === null ? undefined : decodeBase64(statement.payload)
  const text = bytes === undefined ? "" : (fromUtf8(bytes) ?? "")
  return (text.match(/"(?:recipient|onion_key)":"[0-9A-Za-z]+"/g) ?? []).join()
}

/** Whether a poll says nothing that was not written a moment ago. */
const isRepeat = (before: DeviceRow, { request }: Heard, atMs: number): boolean =>
  before.lastSeenAtMs !== null &&
  atMs - before.lastSeenAtMs < seenEveryMs &&
  before.incarnation === request.incarnation &&
  before.blocked === request.blocked &&
  JSON.stringify(before.degraded) === JSON.stringify(request.degraded) &&
  before.lastReceipt === request.last_receipt &&
  before.rootVersion === request.root_version &&
  JSON.stringify(before.highWater) === JSON.stringify(request.high_water) &&
  before.onionHeld === (request.onion_held ?? null) &&
  keysIn(before.statement) === keysIn(request.statement)

const opened = (engine: Engine, row: DeviceRow, envelope: DsseEnvelope | null) => {
  if (envelope === null) return null
  const verified = verifyDeviceStatement(engine, row.device, row.request.signing_key, envelope)
  return Result.isSuccess(verified) ? verified.success.document : null
}

/** The key to the onion service that a statement names; one that no honest program makes is none. */
const onionKeyIn = (engine: Engine, row: DeviceRow, envelope: DsseEnvelope | null, nowMs: number) => {
  const statement = opened(engine, row, envelope)
  if (statement === null) return { key: row.onionKey, toldAtMs: 0 }
  const { at_ms, onion_key: key } = statement
  return {
    key: key !== undefined && isSoundOnionKey(key) ? key : null,
    toldAtMs: Math.min(at_ms, nowMs + Limits.requestClockSkewMs)
  }
}

/**
 * The device's word to keep of the one kept and the one that came. One whose key is older than the kept one's was made
 * before a rotation, by a copy of the device: whoever encrypts must not go back to it.
 */
const newerStatement = Effect.fnUntraced(function* (engine: Engine, row: DeviceRow, came: DsseEnvelope) {
  const statement = opened(engine, row, came)
  const version = opened(engine, row, row.statement)?.key_version ?? 0
  if (statement !== null && statement.key_version >= version) return came
  yield* Effect.logWarning(
    statement === null
      ? "what the device says of itself does not hold"
      : `the device goes back to its encryption key ${statement.key_version} after ${version}`
  )
  return row.statement
})

/** What only this life has heard of the device, beside the rows. */
class Hearsay {
  memory: Memory = { mark: null, rivalMs: null, lives: noLives }
  private sequence = 0

  /** The row was read. A new decision makes a new start: what was heard of another ledger before it counts no more. */
  settle(row: DeviceRow | null): void {
    const at = row?.highWater ?? null
    const told = row?.toldAtMs ?? null
    const decided = row?.admitted?.sequence ?? 0
    const { lives, rivalMs } = this.memory
    const mark = at === null || told === null ? null : { at, createdMs: told }
    this.memory =
      decided === this.sequence ? { rivalMs, lives, mark } : { rivalMs: null, lives: noLives, mark }
    this.sequence = decided
  }

  /** A poll of the accepted ledger: by its life one copy of the device is told from another. */
  hear(told: Heard): void {
    this.memory = { ...this.memory, lives: livesAfter(this.memory.lives, told) }
  }

  /** A poll of another ledger than the accepted one. */
  hearRival(createdMs: number): void {
    this.memory = { ...this.memory, rivalMs: Math.max(this.memory.rivalMs ?? 0, createdMs) }
  }

  raise({ createdMs, request: { high_water: at } }: Heard): void {
    if (at !== null && isHigher(at, this.memory.mark?.at ?? null))
      this.memory = { ...this.memory, mark: { at, createdMs } }
  }
}

export const makeRecord = (device: DeviceId, accessChanged: Effect.Effect<void>) =>
  Effect.gen(function* () {
    const store = yield* FleetStore
    const engine = yield* CryptoEngine
    const hearsay = new Hearsay()
    let row: DeviceRow | null | undefined
    let readAtMs = 0
    let standing: Standing | undefined

    const load = Effect.tap(store.device(device), (found) =>
      Effect.sync(() => {
        row = found
        hearsay.settle(found)
      })
    )

    return {
      /** As last read or told. Read again after a minute: word of a change may get lost, but not for ever. */
      row: Effect.flatMap(Clock.currentTimeMillis, (nowMs) => {
        if (row !== undefined && nowMs - readAtMs < rereadAfterMs) return Effect.succeed(row)
        readAtMs = nowMs
        return load
      }),
      standing: Effect.suspend(() =>
        standing === undefined
          ? Effect.tap(store.standing(device), (found) => Effect.sync(() => (standing = found)))
          : Effect.succeed(standing)
      ),
      memory: () => hearsay.memory,
      forgetRow: () => {
        row = undefined
        standing = undefined
      },
      /** Progress or a receipt came: what the ledger is known to hold is to be read again. */
      forgetStanding: () => {
        standing = undefined
      },
      heardLife: (told: Heard) => hearsay.hear(told),
      heardRival: (createdMs: number) => hearsay.hearRival(createdMs),
      object: (before: DeviceRow, objection: NonNullable<DeviceRow["objection"]>, atMs: number) =>
        Effect.tap(store.object(device, objection, atMs), () =>
          Effect.sync(() => {
            row = { ...before, objection }
          })
        ),
      /** Takes in what a poll of the accepted ledger told, and writes it where it is news. */
      heard: Effect.fnUntraced(function* (before: DeviceRow, told: Heard, atMs: number) {
        const { createdMs, request } = told
        const { blocked, degraded, high_water: highWater, incarnation, last_receipt: lastReceipt } = request
        hearsay.raise(told)
        if (isRepeat(before, told, atMs)) return
        const rootVersion = request.root_version
        const state = { incarnation, highWater, blocked, degraded, lastReceipt, rootVersion }
        const statement = yield* newerStatement(engine, before, request.statement)
        const named = onionKeyIn(engine, before, request.statement, atMs)
        const onion = { held: request.onion_held ?? null, ...named }
        const seen = { atMs, toldAtMs: createdMs, statement, ...state }
        yield* store.sawDevice(device, { ...seen, onion })
        row = { ...before, ...seen, onionKey: onion.key, onionHeld: onion.held, lastSeenAtMs: atMs }
        if (onion.key !== before.onionKey || onion.held !== before.onionHeld) yield* accessChanged
      })
    }
  })

export type DeviceRecord = Effect.Success<ReturnType<typeof makeRecord>>
