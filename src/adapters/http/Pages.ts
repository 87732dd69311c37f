/** Pages of lists: how many items, and where the next one begins. A cursor is opaque to those who are given it. */
import { Effect, Schema } from "effect"
import { DeviceId, OrderId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { BadRequest } from "../../schemas/ManagementErrors.ts"

/** Items of a page: as many as are asked for, within bounds. */
export const pageSize = (asked: number | undefined): number =>
  Math.min(Math.max(1, asked ?? Limits.pageItems), Limits.pageItems)

/** The cursor behind an item; null where there is none. */
export const cursorAt = <A>(
  last: A | undefined,
  place: (item: A) => readonly [atMs: number, id: string]
): string | null => (last === undefined ? null : place(last).join("."))

const wrong = new BadRequest({ message: "`after` is not what an earlier page gave as `next`" })

const behind = <Id extends string>(text: string | undefined, isId: (value: unknown) => value is Id) => {
  if (text === undefined) return Effect.succeed(undefined)
  const [, time, id] = /^([0-9]{1,15})[.](.+)$/.exec(text) ?? []
  return isId(id) ? Effect.succeed({ atMs: Number(time), id }) : Effect.fail(wrong)
}

const isDevice = Schema.is(DeviceId)
const isOrder = Schema.is(OrderId)

/** The device behind which a page begins. */
export const deviceBehind = (text: string | undefined) =>
  Effect.map(behind(text, isDevice), (place) =>
    place === undefined ? undefined : { atMs: place.atMs, device: place.id }
  )

/** The job behind which a page begins. */
export const jobBehind = (text: string | undefined) => behind(text, isOrder)
