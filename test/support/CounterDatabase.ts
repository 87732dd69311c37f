/** A small database class for tests of the hosts, and its worker entry: this file is both. */
import type { DatabaseDefinition } from "../../src/adapters/sqlite/Database.ts"
import { isDatabaseWorker, serveDatabase } from "../../src/adapters/sqlite/DatabaseWorker.ts"

export type CounterMethods = {
  readonly add: (name: string, amount: number) => number
  readonly read: (name: string) => number
  /** Writes and then throws: the write must not stay. */
  readonly fail: (name: string) => never
  /** Ends the thread in the middle of a transaction. */
  readonly die: (name: string) => never
  /** Keeps the thread busy for some milliseconds. */
  readonly hold: (milliseconds: number) => void
  readonly echo: (bytes: Uint8Array) => Uint8Array
}

export const counterDatabase: DatabaseDefinition<CounterMethods> = {
  name: "counter",
  migrations: [
    "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT",
    "CREATE TABLE log (value INTEGER NOT NULL) STRICT"
  ],
  build: (database) => {
    const select = database.prepare("SELECT value FROM counter WHERE name = ?")
    const upsert = database.prepare(
      "INSERT INTO counter (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
    )
    const read = (name: string) => (select.get(name) as { value: number } | undefined)?.value ?? 0
    const add = (name: string, amount: number) => {
      upsert.run(name, amount)
      return read(name)
    }
    return {
      add,
      read,
      fail: (name) => {
        add(name, 1)
        throw new Error("as asked")
      },
      die: (name) => {
        add(name, 1)
        process.exit(3)
      },
      hold: (milliseconds) => {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds)
      },
      echo: (bytes) => bytes
    }
  }
}

if (isDatabaseWorker()) serveDatabase([counterDatabase])
