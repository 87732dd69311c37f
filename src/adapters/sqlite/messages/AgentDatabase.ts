/** What an agent keeps of messages, as a database class. Bounded: beyond it nothing more is taken. */
import type {
  Draft,
  Guess,
  Moment,
  Pruned,
  Received,
  WaitingDraft,
  WaitingMessage
} from "../../../ports/AgentStore.ts"
import { type Message, type MessageId, MessageLimits, type PublicMessage } from "../../../schemas/Message.ts"
import { whenTakenBack } from "../Batch.ts"
import type { DatabaseDefinition, DatabaseSync } from "../Database.ts"

/**
 * Messages that may wait to be sent, or for the application; and ids that may be remembered. Of public messages, which have
 * no end and no sender but a claim, the newest: it suffices for those that a broker brings twice. They are taken only while
 * half of the inbox is free, so that no stranger can fill it. What was full, inbox or ids, takes nothing before it has some
 * room again: what the broker keeps meanwhile is asked for as a whole.
 */
export const agentBounds = {
  drafts: 10_000,
  inbox: 10_000,
  inboxForPublic: 5_000,
  inboxAgain: 9_500,
  seen: 1_000_000,
  seenAgain: 990_000,
  seenPublic: 10_000
} as const

/** What there is no room in: the inbox, which programs empty, or the ids, which time does. */
type Lack = "full" | "ids_full"

export type AgentMethods = {
  readonly queue: (draft: Draft, guessedIn: Moment["guessedIn"]) => ReadonlyArray<MessageId> | "full"
  readonly settle: (guess: Guess) => void
  readonly queued: (behind: number, maximum: number, nowMs: number) => ReadonlyArray<WaitingDraft>
  readonly counts: () => { readonly drafts: number; readonly inbox: number }
  readonly sent: (ids: ReadonlyArray<MessageId>) => void
  readonly take: (received: Received) => "taken" | "seen" | Lack
  readonly isQueued: (id: MessageId) => boolean
  readonly hasRoom: () => boolean
  readonly waiting: (behind: number, maximum: number, nowMs?: number) => ReadonlyArray<WaitingMessage>
  readonly dealtWith: (places: ReadonlyArray<number>) => void
  readonly prune: (moment: Moment) => Pruned
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

// A public message says nothing of its end; it has as long as the longest of the others.
const version3 = `
ALTER TABLE inbox ADD COLUMN expires_at_ms INTEGER NOT NULL DEFAULT 0;
UPDATE inbox SET expires_at_ms = coalesce(
  json_extract(received, '$.message.expires_at_ms'),
  json_extract(received, '$.receivedAtMs') + ${MessageLimits.lifetimeMs}
);
CREATE INDEX inbox_by_end ON inbox (expires_at_ms);
`

// What an older version kept counts as dated by a clock that was right.
const version4 = `
ALTER TABLE drafts ADD COLUMN issued_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE drafts ADD COLUMN guessed_in TEXT;
UPDATE drafts SET issued_at_ms = json_extract(draft, '$.issued_at_ms');
CREATE INDEX drafts_guessed ON drafts (guessed_in) WHERE guessed_in IS NOT NULL;
`

type Row = Readonly<Record<string, unknown>>

/** When nobody is to be given it any more. */
const endOf = (received: Received): number =>
  received._tag === "Secure"
    ? received.message.expires_at_ms
    : received.receivedAtMs + MessageLimits.lifetimeMs

const publicKey = ({ claimed_from, id }: PublicMessage): string => `${claimed_from}/${id}`

/** Ids of messages that came: whether one is among them, and whether there is room for another. */
const makeSeen = (database: DatabaseSync) => {
  const count = database.prepare("SELECT count(*) AS n FROM seen")
  const find = database.prepare("SELECT 1 FROM seen WHERE sender = ? AND id = ?")
  const findPublic = database.prepare("SELECT 1 FROM seen_public WHERE id = ?")
  const remember = database.prepare("INSERT INTO seen (sender, id, expires_at_ms) VALUES (?, ?, ?)")
  const rememberPublic = database.prepare("INSERT INTO seen_public (id) VALUES (?)")
  const trim = database.prepare("DELETE FROM seen_public WHERE place <= ?")
  const forget = database.prepare("DELETE FROM seen WHERE expires_at_ms <= ?")
  /** To count them costs as much as there are; null when it is not known. */
  let known: number | null = null
  whenTakenBack(database, () => {
    known = null
  })
  return {
    has: ({ _tag, message }: Received): boolean =>
      (_tag === "Secure" ? find.get(message.from, message.id) : findPublic.get(publicKey(message))) !==
      undefined,
    hasReached: (maximum: number): boolean => {
      known ??= (count.get() as Row)["n"] as number
      return known >= maximum
    },
    secure: ({ expires_at_ms, from, id }: Message): void => {
      remember.run(from, id, expires_at_ms)
      if (known !== null) known++
    },
    public: (message: PublicMessage): void => {
      const { lastInsertRowid } = rememberPublic.run(publicKey(message))
      trim.run(Number(lastInsertRowid) - agentBounds.seenPublic)
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
  whenTakenBack(database, () => {
    known = null
  })
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

/** What keeps a message out; null where it may come in. */
const makeDoor = (inbox: ReturnType<typeof makeCount>, seen: ReturnType<typeof makeSeen>) => {
  const was = { full: false, idsFull: false }
  return {
    lacks: (tag: Received["_tag"]): Lack | null => {
      if (tag === "Public") return inbox.hasReached(agentBounds.inboxForPublic) ? "full" : null
      was.full = inbox.hasReached(was.full ? agentBounds.inboxAgain : agentBounds.inbox)
      was.idsFull = seen.hasReached(was.idsFull ? agentBounds.seenAgain : agentBounds.seen)
      return was.full ? "full" : was.idsFull ? "ids_full" : null
    }
  }
}

/** What is to be sent. */
const makeDrafts = (database: DatabaseSync) => {
  const count = makeCount(database, "drafts")
  const add = database.prepare(
    "INSERT INTO drafts (id, issued_at_ms, expires_at_ms, guessed_in, draft) VALUES (?, ?, ?, ?, ?)"
  )
  const list = database.prepare(
    `SELECT place, issued_at_ms, expires_at_ms, draft FROM drafts WHERE place > ? AND +expires_at_ms > ?
     ORDER BY place LIMIT ?`
  )
  const drop = database.prepare("DELETE FROM drafts WHERE id = ?")
  const expire = database.prepare(
    "DELETE FROM drafts WHERE expires_at_ms <= ? AND guessed_in IS ? RETURNING id"
  )
  const putRight = database.prepare(
    `UPDATE drafts SET issued_at_ms = issued_at_ms + :behind, expires_at_ms = expires_at_ms + :behind, guessed_in = NULL
     WHERE guessed_in = :guessed_in`
  )
  const putBack = database.prepare(
    `UPDATE drafts SET issued_at_ms = min(issued_at_ms, :now),
       expires_at_ms = expires_at_ms - max(issued_at_ms - :now, 0), guessed_in = NULL
     WHERE guessed_in IS NOT NULL`
  )
  const prune = ({ guessedIn, nowMs }: Moment): ReadonlyArray<MessageId> => {
    const ended = (expire.all(nowMs, guessedIn) as Array<Row>).map((row) => row["id"] as MessageId)
    count.changed(-ended.length)
    return ended
  }
  return {
    count: count.value,
    queue: (draft: Draft, guessedIn: Moment["guessedIn"]): ReadonlyArray<MessageId> | "full" => {
      const { expires_at_ms, id, issued_at_ms, ...rest } = draft
      const ended = count.hasReached(agentBounds.drafts) ? prune({ nowMs: issued_at_ms, guessedIn }) : []
      if (count.hasReached(agentBounds.drafts)) return "full"
      add.run(id, issued_at_ms, expires_at_ms, guessedIn, JSON.stringify({ id, ...rest }))
      count.changed(1)
      return ended
    },
    queued: (behind: number, maximum: number, nowMs: number): ReadonlyArray<WaitingDraft> =>
      (list.all(behind, nowMs, maximum) as Array<Row>).map((row) => ({
        place: row["place"] as number,
        draft: {
          ...(JSON.parse(row["draft"] as string) as Draft),
          issued_at_ms: row["issued_at_ms"] as number,
          expires_at_ms: row["expires_at_ms"] as number
        }
      })),
    settle: ({ behindMs, guessedIn, nowMs }: Guess): void => {
      putRight.run({ behind: behindMs, guessed_in: guessedIn })
      putBack.run({ now: nowMs })
    },
    sent: (ids: ReadonlyArray<MessageId>): void => {
      for (const id of ids) count.changed(-drop.run(id).changes)
    },
    prune
  }
}

export const agentDatabase: DatabaseDefinition<AgentMethods> = {
  name: "agent",
  migrations: [version1, version2, version3, version4],
  build: (database) => {
    const drafts = makeDrafts(database)
    const inbox = makeCount(database, "inbox")
    const seen = makeSeen(database)
    const findDraft = database.prepare("SELECT 1 FROM drafts WHERE id = ?")
    const door = makeDoor(inbox, seen)
    const put = database.prepare("INSERT INTO inbox (received, expires_at_ms) VALUES (?, ?)")
    const list = database.prepare(
      "SELECT place, received FROM inbox WHERE place > ? AND +expires_at_ms > ? ORDER BY place LIMIT ?"
    )
    const drop = database.prepare("DELETE FROM inbox WHERE place = ?")
    const expireInbox = database.prepare("DELETE FROM inbox WHERE expires_at_ms <= ?")
    return {
      queue: drafts.queue,
      queued: drafts.queued,
      settle: drafts.settle,
      counts: () => ({ drafts: drafts.count(), inbox: inbox.value() }),
      sent: drafts.sent,
      take: (received) => {
        // Also a full inbox tells that it has this one: whoever brings it again need not keep it.
        if (seen.has(received)) return "seen"
        const lack = door.lacks(received._tag)
        if (lack !== null) return lack
        if (received._tag === "Secure") seen.secure(received.message)
        else seen.public(received.message)
        put.run(JSON.stringify(received), endOf(received))
        inbox.changed(1)
        return "taken"
      },
      isQueued: (id) => findDraft.get(id) !== undefined,
      hasRoom: () => door.lacks("Secure") === null,
      waiting: (behind, maximum, nowMs = 0) =>
        (list.all(behind, nowMs, maximum) as Array<Row>).map((row) => ({
          place: row["place"] as number,
          received: JSON.parse(row["received"] as string) as Received
        })),
      dealtWith: (places) => {
        for (const place of places) inbox.changed(-drop.run(place).changes)
      },
      prune: (moment) => {
        const unsent = drafts.prune(moment)
        const { guessedIn, nowMs } = moment
        if (guessedIn !== null) return { unsent, untaken: 0 }
        seen.forget(nowMs)
        const untaken = Number(expireInbox.run(nowMs).changes)
        inbox.changed(-untaken)
        return { unsent, untaken }
      }
    }
  }
}
