/**
 * The rollouts this operator planned, in its home: what was signed, so that a cut-off submission can go on and a server
 * that forgets one is noticed.
 *
 * @module
 */
import { Effect, Schema } from "effect"
import { DsseEnvelope } from "../../schemas/Dsse.ts"
import { Digest, type OrderId } from "../../schemas/Ids.ts"
import { RolloutId } from "../../schemas/Rollout.ts"
import { type HomeError, OperatorHome, readJson, writeJson } from "./OperatorHome.ts"

/** `rollouts/ID.json`. */
export const RolloutRecord = Schema.Struct({
  type: Schema.Literal("postern/rollout-record/v1"),
  id: RolloutId,
  digest: Digest,
  envelope: DsseEnvelope,
  /** Whether results are for the operator alone. */
  sealed: Schema.Boolean,
  /** Whether every order was taken by the server. */
  submitted: Schema.Boolean,
  /** Whether it was seen to have ended. */
  ended: Schema.Boolean
})
export type RolloutRecord = typeof RolloutRecord.Type

const fileOf = (id: RolloutId): string => `rollouts/${id}.json`

export const rolloutRecord = (
  id: RolloutId
): Effect.Effect<RolloutRecord | undefined, HomeError, OperatorHome> => readJson(fileOf(id), RolloutRecord)

export const writeRolloutRecord = (record: RolloutRecord): Effect.Effect<void, HomeError, OperatorHome> =>
  writeJson(fileOf(record.id), RolloutRecord, record)

export const removeRolloutRecord = (id: RolloutId): Effect.Effect<void, HomeError, OperatorHome> =>
  Effect.flatMap(OperatorHome, (home) => home.remove(fileOf(id)))

/** Every record. */
export const rolloutRecords: Effect.Effect<
  ReadonlyArray<RolloutRecord>,
  HomeError,
  OperatorHome
> = Effect.gen(function* () {
  const home = yield* OperatorHome
  const files = (yield* home.list("rollouts")).filter((name) => name.endsWith(".json"))
  const records = yield* Effect.forEach(files, (name) => readJson(`rollouts/${name}`, RolloutRecord))
  return records.filter((record) => record !== undefined)
})

/** An order's place in a rollout, as it is written beside a signed order. */
export interface PlannedPlace {
  readonly id: RolloutId
  readonly order: OrderId
  readonly expiresAtMs: number
}
