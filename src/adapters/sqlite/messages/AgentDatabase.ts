/** What an agent keeps of messages, as a database class. Bounded: beyond it nothing more is taken. */
import type { Draft, Received, WaitingMessage } from "../../../ports/AgentStore.ts"
import type { MessageId } from "../../../schemas/Message.ts"
import type { DatabaseDefinition } from "../Database.ts"

/** Messages that may wait to be sent, or for the application; and ids that may be remembered. */
export const agentBounds = { drafts: 10_000, inbox: 10_000, seen: 1_000_000 } as const

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

type Row = Readonly<Record<string, unknown>>

export const agentDatabase: DatabaseDefinition<AgentMethods> = {
  name: "agent",
  migrations: [version1],
  build: (database) => {
    const count = (table: string) => database.prepare(`SELECT count(*) AS n FROM ${table}`)
    const [drafts, inbox, seen] = ["drafts", "inbox", "seen"].map(count) as [
      ReturnType<typeof count>,
      ReturnType<typeof count>,
      ReturnType<typeof count>
    ]
    const countOf = (counted: ReturnType<typeof count>) => (counted.get() as Row)["n"] as number
    const isFull = (counted: ReturnType<typeof count>, maximum: number): boolean =>
      countOf(counted) >= maximum
    const addDraft = database.prepare("INSERT INTO drafts (id, expires_at_ms, draft) VALUES (?, ?, ?)")
    const listDrafts = database.prepare("SELECT draft FROM drafts ORDER BY place LIMIT ?")
    const dropDraft = database.prepare("DELETE FROM drafts WHERE id = ?")
    const expireDrafts = database.prepare("DELETE FROM drafts WHERE expires_at_ms <= ? RETURNING id")
    const remember = database.prepare(
      "INSERT INTO seen (sender, id, expires_at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    )
    const forget = database.prepare("DELETE FROM seen WHERE expires_at_ms <= ?")
    const put = database.prepare("INSERT INTO inbox (received) VALUES (?)")
    const list = database.prepare("SELECT place, received FROM inbox WHERE place > ? ORDER BY place LIMIT ?")
    const drop = database.prepare("DELETE FROM inbox WHERE place = ?")
    return {
      queue: (draft) => {
        if (isFull(drafts, agentBounds.drafts)) return "full"
        addDraft.run(draft.id, draft.expires_at_ms, JSON.stringify(draft))
        return "queued"
      },
      queued: (maximum) =>
        (listDrafts.all(maximum) as Array<Row>).map((row) => JSON.parse(row["draft"] as string) as Draft),
      counts: () => ({ drafts: countOf(drafts), inbox: countOf(inbox) }),
      sent: (ids) => {
        for (const id of ids) dropDraft.run(id)
      },
      take: (received) => {
        if (isFull(inbox, agentBounds.inbox)) return "full"
        if (received._tag === "Secure") {
          if (isFull(seen, agentBounds.seen)) return "full"
          const { expires_at_ms, from, id } = received.message
          if (remember.run(from, id, expires_at_ms).changes === 0) return "seen"
        }
        put.run(JSON.stringify(received))
        return "taken"
      },
      waiting: (behind, maximum) =>
        (list.all(behind, maximum) as Array<Row>).map((row) => ({
          place: row["place"] as number,
          received: JSON.parse(row["received"] as string) as Received
        })),
      dealtWith: (places) => {
        for (const place of places) drop.run(place)
      },
      prune: (nowMs) => {
        forget.run(nowMs)
        return (expireDrafts.all(nowMs) as Array<Row>).map((row) => row["id"] as MessageId)
      }
    }
  }
}
