/** The fleet database's methods: the port `FleetStore` without health, as synchronous functions. */

import type { Effect } from "effect"
import type { FleetStore } from "../../../ports/FleetStore.ts"
import type { Objection } from "../../../schemas/DeviceApi.ts"

type Port = FleetStore["Service"]

/** What a method of the port looks like once it is synchronous. */
type Synchronous<F> = F extends (...args: infer A) => Effect.Effect<infer R, unknown>
  ? (...args: A) => R
  : never

type PortMethods = {
  readonly [K in Exclude<
    keyof Port,
    "addHealth" | "health" | "series" | "counts" | "tokens" | "enrol"
  >]: Synchronous<Port[K]>
}

export type FleetMethods = PortMethods & {
  readonly enrol: (
    request: Parameters<Port["enrol"]>[0],
    envelope: Parameters<Port["enrol"]>[1],
    atMs: number,
    maximumDevices: number
  ) => Effect.Success<ReturnType<Port["enrol"]>>
  readonly tokens: () => Effect.Success<Port["tokens"]>
  readonly counts: () => Effect.Success<Port["counts"]>
}

/** The statements' rows as SQLite gives them. */
export type Row = Readonly<Record<string, unknown>>

export const text = (row: Row, column: string): string => row[column] as string
export const textOrNull = (row: Row, column: string): string | null => (row[column] ?? null) as string | null
export const integer = (row: Row, column: string): number => row[column] as number
export const integerOrNull = (row: Row, column: string): number | null =>
  (row[column] ?? null) as number | null

/** What {@link toJson} wrote. */
export const fromJson = <A>(row: Row, column: string): A => JSON.parse(text(row, column)) as A
export const fromJsonOrNull = <A>(row: Row, column: string): A | null => {
  const found = textOrNull(row, column)
  return found === null ? null : (JSON.parse(found) as A)
}
export const toJson = (value: unknown): string => JSON.stringify(value)

export type StoredObjection = Exclude<Objection, "not_enrolled">
