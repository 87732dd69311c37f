/** What an agent keeps of messages, as a database class. Bounded: beyond it nothing more is taken. */
import type { Draft, Received, WaitingMessage } from "../../../ports/AgentStore.ts"
import type { Message, MessageId, PublicMessage } from "../../../schemas/Message.ts"
import type { DatabaseDefinition, DatabaseSync } from "../Database.ts"

/**
 * Messages that may wait to be sent, or for the application; and ids that may be remembered. Of public messages, which have
 * no end and no sender but a claim, the newest: it suffices for those that a broker brings twice. They are taken only while
 * half of the inbox is free, so that no stranger can fill it.
 */
export const agentBounds = {
  drafts: 10_000,
  inbox: 10_000,
  inboxForPublic: 5_000,
  seen: 1_000_000,
  seenPublic: 10_000
} as const

export type AgentMethods = {
  readonly queue: (draft: Draft) => "queued" | "full"
  readonly queued: (maximum: number) => ReadonlyArray<Draft>
  readonly counts: () => { readonly drafts: number; readonly inbox: number }
  readonly sent: (ids: ReadonlyArray<MessageId>) => void
  readonly take: (received: Received) => "taken" | "seen" | "full"
  readonly waiting: (behind: number, maximum: number) => ReadonlyArray<WaitingMessage>
  readonly dealtWith: (places: ReadonlyArray<number>) => void
  readonly prune: (nowMs: number) => ReadonlyArray<MessageId>
}

const version1 = `
CREATE TABLE drafts (
  place INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  expires_at_ms INTEGER NOT NULL,
  draft TEXT NOT NULL
) STRICT;
CREATE INDEX drafts_by_end ON drafts (expires_at_ms);

-- Ids of messages that came, until they expire.
CREATE TABLE seen (
  sender TEXT NOT NULL,
  id TEXT NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  PRIMARY KEY (sender, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX seen_by_end ON seen (expires_at_ms);

CREATE TABLE inbox (
  place INTEGER PRIMARY KEY AUTOINCREMENT,
  received TEXT NOT NULL
) STRICT;
`

const version2 = `
CREATE TABLE seen_public (
  place INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE
) STRICT;
`

type Row = Readonly<Record<string, unknown>>

/** Ids of messages that came: whether one is new, full where no more may be remembered. */
const makeSeen = (database: DatabaseSync) => {
  const count = database.prepare("SELECT count(*) AS n FROM seen")
  const remember = database.prepare(
    "INSERT INTO seen (sender, id, expires_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
  )
  const rememberPublic = database.prepare("INSERT INTO seen_public (id) VALUES (?) ON CONFLICT DO NOTHING")
  const trim = database.prepare("DELETE FROM seen_public WHERE place <= ?")
  const forget = database.prepare("DELETE FROM seen WHERE expires_at_ms <= ?")
  /** To count them costs as much as there are; null when it is not known. */
  let known: number | null = null
  return {
    secure: ({ expires_at_ms, from, id }: Message): "new" | "seen" | "full" => {
      known ??= (count.get() as Row)["n"] as number
      if (known >= agentBounds.seen) return "full"
      if (remember.run(from, id, expires_at_ms).changes === 0) return "seen"
      known++
      return "new"
    },
    public: ({ claimed_from, id }: PublicMessage): "new" | "seen" => {
      const { changes, lastInsertRowid } = rememberPublic.run(`${claimed_from}/${id}`)
      if (changes === 0) return "seen"
      trim.run(Number(lastInsertRowid) - agentBounds.seenPublic)
      return "new"
    },
    forget: (nowMs: number): void => {
      if (forget.run(nowMs).changes > 0) known = null
    }
  }
}

/** How many rows a table has: counted once, then carried on. Before it is found to be full, it is counted again. */
const makeCount = (database: DatabaseSync, table: "drafts" | "inbox") => {
  const count = database.prepare(`SELECT count(*) AS n FROM ${table}`)
  const counted = () => (count.get() as Row)["n"] as number
  let known: number | null = null
  return {
    value: (): number => {
      known ??= counted()
      return known
    },
    hasReached: (maximum: number): boolean => {
      known ??= counted()
      if (known >= maximum) known = counted()
      return known >= maximum
    },
    changed: (by: number | bigint): void => {
      if (known !== null) known += Number(by)
    }
  }
}

export const agentDatabase: DatabaseDefinition<AgentMethods> = {
  name: "agent",
  migrations: [version1, version2],
  build: (database) => {
    const [drafts, inbox] = [makeCount(database, "drafts"), makeCount(database, "inbox")]
    const seen = makeSeen(database)
    const addDraft = database.prepare("INSERT INTO drafts (id, expires_at_ms, draft) VALUES (?, ?, ?)")
    const listDrafts = database.prepare("SELECT draft FROM drafts ORDER BY place LIMIT ?")
    const dropDraft = database.prepare("DELETE FROM drafts WHERE id = ?")
    const expireDrafts = database.prepare("DELETE FROM drafts WHERE expires_at_ms <= ? RETURNING id")
    const put = database.prepare("INSERT INTO inbox (received) VALUES (?)")
    const list = database.prepare("SELECT place, received FROM inbox WHERE place > ? ORDER BY place LIMIT ?")
    const drop = database.prepare("DELETE FROM inbox WHERE place = ?")
    return {
      queue: (draft) => {
        if (drafts.hasReached(agentBounds.drafts)) return "full"
        addDraft.run(draft.id, draft.expires_at_ms, JSON.stringify(draft))
        drafts.changed(1)
        return "queued"
      },
      queued: (maximum) =>
        (listDrafts.all(maximum) as Array<Row>).map((row) => JSON.parse(row["draft"] as string) as Draft),
      counts: () => ({ drafts: drafts.value(), inbox: inbox.value() }),
      sent: (ids) => {
        for (const id of ids) drafts.changed(-dropDraft.run(id).changes)
      },
      take: (received) => {
        const room = received._tag === "Secure" ? agentBounds.inbox : agentBounds.inboxForPublic
        if (inbox.hasReached(room)) return "full"
        const isNew =
          received._tag === "Secure" ? seen.secure(received.message) : seen.public(received.message)
        if (isNew !== "new") return isNew
        put.run(JSON.stringify(received))
        inbox.changed(1)
        return "taken"
      },
      waiting: (behind, maximum) =>
        (list.all(behind, maximum) as Array<Row>).map((row) => ({
          place: row["place"] as number,
          received: JSON.parse(row["received"] as string) as Received
        })),
      dealtWith: (places) => {
        for (const place of places) inbox.changed(-drop.run(place).changes)
      },
      prune: (nowMs) => {
        seen.forget(nowMs)
        const expired = (expireDrafts.all(nowMs) as Array<Row>).map((row) => row["id"] as MessageId)
        drafts.changed(-expired.length)
        return expired
      }
    }
  }
}
