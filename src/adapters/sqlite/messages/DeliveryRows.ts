/** What was accepted and is not in its recipients' sessions yet, as synchronous functions over one database. */
import type { DeliveryRow, NewDelivery, WaitingDelivery } from "../../../ports/MessageStore.ts"
import { Limits } from "../../../schemas/Limits.ts"
import type { AgentName } from "../../../schemas/Topics.ts"
import { whenTakenBack } from "../Batch.ts"
import type { DatabaseSync } from "../Database.ts"

type Row = Readonly<Record<string, unknown>>

const toDelivery = (row: Row): DeliveryRow => ({
  place: row["place"] as number,
  to: row["recipient"] as DeliveryRow["to"],
  inbox: row["inbox"] as DeliveryRow["inbox"],
  wire: row["wire"] as Uint8Array
})

const toWaiting = (row: Row): WaitingDelivery => ({
  place: row["place"] as number,
  to: row["recipient"] as WaitingDelivery["to"],
  bytes: row["bytes"] as number
})

/** What has expired and goes in one transaction. */
const expiredTogether = { rows: 256, bytes: 4 * 1024 * 1024 }

/** Some of what waits for a recipient. */
interface Waiting {
  readonly messages: number
  readonly bytes: number
}

/**
 * What may still be stored for each recipient. To measure costs as much as waits, so it is done once for each, and what comes
 * and goes is counted from then on.
 */
const makeRoom = (database: DatabaseSync) => {
  const measure = database.prepare(
    "SELECT count(*) AS messages, coalesce(sum(length(wire)), 0) AS bytes FROM deliveries WHERE recipient = ?"
  )
  const left = new Map<string, Waiting>()
  whenTakenBack(database, () => left.clear())
  const measured = (recipient: string): Waiting => {
    const used = measure.get(recipient) as unknown as Waiting
    return {
      messages: Limits.undeliveredMessages - used.messages,
      bytes: Limits.messagingQueueBytes - used.bytes
    }
  }
  return {
    /** Whether there is room for one more, which is then taken. */
    take: (recipient: string, bytes: number): boolean => {
      const room = left.get(recipient) ?? measured(recipient)
      const isEnough = room.messages > 0 && room.bytes >= bytes
      left.set(recipient, isEnough ? { messages: room.messages - 1, bytes: room.bytes - bytes } : room)
      return isEnough
    },
    /** One has gone. */
    free: (recipient: string, bytes: number): void => {
      const room = left.get(recipient)
      if (room !== undefined) left.set(recipient, { messages: room.messages + 1, bytes: room.bytes + bytes })
    },
    forget: (recipient: string): void => void left.delete(recipient)
  }
}

export const deliveryMethods = (database: DatabaseSync) => {
  const insert = database.prepare(
    "INSERT INTO deliveries (recipient, inbox, expires_at_ms, wire) VALUES (?, ?, ?, ?)"
  )
  // SQLite tells how long a blob is without reading it.
  const waiting = "SELECT place, recipient, length(wire) AS bytes FROM deliveries"
  const page = database.prepare(`${waiting} WHERE place > ? ORDER BY place LIMIT ?`)
  const pageOf = database.prepare(`${waiting} WHERE recipient = ? AND place > ? ORDER BY place LIMIT ?`)
  const at = database.prepare("SELECT * FROM deliveries WHERE place = ?")
  const gone = "RETURNING recipient, length(wire) AS bytes"
  const remove = database.prepare(`DELETE FROM deliveries WHERE place = ? ${gone}`)
  const removeOf = database.prepare("DELETE FROM deliveries WHERE recipient = ?")
  const ended = database.prepare(`
    SELECT place, length(wire) AS bytes FROM deliveries WHERE expires_at_ms <= ?
    ORDER BY expires_at_ms LIMIT ${expiredTogether.rows}`)
  const room = makeRoom(database)
  const free = (rows: Array<Row>): void => {
    for (const { bytes, recipient } of rows) room.free(recipient as string, bytes as number)
  }
  return {
    /** Stores those for whose recipients there is room, and gives them. */
    store: (deliveries: ReadonlyArray<NewDelivery>, expiresAtMs: number): ReadonlyArray<DeliveryRow> =>
      deliveries
        .filter(({ to, wire }) => room.take(to, wire.length))
        .map((delivery) => {
          const { inbox, to, wire } = delivery
          return { ...delivery, place: Number(insert.run(to, inbox, expiresAtMs, wire).lastInsertRowid) }
        }),
    undelivered: (recipient: AgentName | null, behind: number, maximum: number) => {
      const rows = recipient === null ? page.all(behind, maximum) : pageOf.all(recipient, behind, maximum)
      return (rows as Array<Row>).map(toWaiting)
    },
    deliveries: (places: ReadonlyArray<number>): ReadonlyArray<DeliveryRow> =>
      places.flatMap((place) => (at.all(place) as Array<Row>).map(toDelivery)),
    delivered: (places: ReadonlyArray<number>): void => {
      for (const place of places) free(remove.all(place) as Array<Row>)
    },
    /** Removes what waits for a recipient. */
    drop: (recipient: AgentName): void => {
      removeOf.run(recipient)
      room.forget(recipient)
    },
    /** Removes some of what has expired; gives how many, and whether there may be more. */
    expire: (nowMs: number): { readonly expired: number; readonly isMore: boolean } => {
      const rows = ended.all(nowMs) as Array<Row>
      let expired = 0
      for (let bytes = 0; expired < rows.length && bytes < expiredTogether.bytes; expired++) {
        const { bytes: size, place } = rows[expired] as Row
        free(remove.all(place as number) as Array<Row>)
        bytes += size as number
      }
      return { expired, isMore: expired < rows.length || rows.length === expiredTogether.rows }
    }
  }
}
