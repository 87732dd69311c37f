/** What a life of a device's actor knows: rows it read from the store, and what only it has heard. */
import { Clock, Effect } from "effect"
import { type DeviceRow, FleetStore, type Standing } from "../ports/FleetStore.ts"
import type { Objection, PollRequest } from "../schemas/DeviceApi.ts"
import type { DeviceId } from "../schemas/Ids.ts"
import { type Heard, isHigher, type Memory } from "./DeviceJudgement.ts"

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

/** Whether a poll says nothing that was not written a moment ago. */
const isRepeat = (before: DeviceRow, { request }: Heard, atMs: number): boolean =>
  before.lastSeenAtMs !== null &&
  atMs - before.lastSeenAtMs < seenEveryMs &&
  before.incarnation === request.incarnation &&
  before.blocked === request.blocked &&
  before.lastReceipt === request.last_receipt &&
  before.rootVersion === request.root_version &&
  JSON.stringify(before.highWater) === JSON.stringify(request.high_water)

export const makeRecord = (device: DeviceId) =>
  Effect.map(FleetStore, (store) => {
    let row: DeviceRow | null | undefined
    let readAtMs = 0
    let sequence = 0
    let standing: Standing | undefined
    let memory: Memory = { mark: null, rivalMs: null }

    const load = Effect.tap(store.device(device), (found) =>
      Effect.sync(() => {
        row = found
        const at = found?.highWater ?? null
        const told = found?.toldAtMs ?? null
        const decided = found?.admitted?.sequence ?? 0
        // A new decision makes a new start: what was heard of another ledger before it counts no more.
        memory = {
          rivalMs: decided === sequence ? memory.rivalMs : null,
          mark: at === null || told === null ? null : { at, createdMs: told }
        }
        sequence = decided
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
      memory: () => memory,
      forgetRow: () => {
        row = undefined
        standing = undefined
      },
      /** Progress or a receipt came: what the ledger is known to hold is to be read again. */
      forgetStanding: () => {
        standing = undefined
      },
      /** A poll of another ledger than the accepted one was heard. */
      heardRival: (createdMs: number) => {
        memory = { ...memory, rivalMs: Math.max(memory.rivalMs ?? 0, createdMs) }
      },
      object: (before: DeviceRow, objection: NonNullable<DeviceRow["objection"]>, atMs: number) =>
        Effect.tap(store.object(device, objection, atMs), () =>
          Effect.sync(() => {
            row = { ...before, objection }
          })
        ),
      /** Takes in what a poll of the accepted ledger told, and writes it where it is news. */
      heard: Effect.fnUntraced(function* (before: DeviceRow, told: Heard, atMs: number) {
        const { createdMs, request } = told
        const { blocked, high_water: highWater, incarnation, last_receipt: lastReceipt } = request
        if (highWater !== null && isHigher(highWater, memory.mark?.at ?? null)) {
          memory = { ...memory, mark: { at: highWater, createdMs } }
        }
        if (isRepeat(before, told, atMs)) return
        const rootVersion = request.root_version
        const seen = { atMs, toldAtMs: createdMs, incarnation, highWater, blocked, lastReceipt, rootVersion }
        yield* store.sawDevice(device, seen)
        row = { ...before, ...seen, lastSeenAtMs: atMs }
      })
    }
  })

export type DeviceRecord = Effect.Success<ReturnType<typeof makeRecord>>
