/**
 * Agents' accounts at Mosquitto. What counts is the server's own table: whoever has no row there has no account for long.
 * A password is made with the account, handed out to the device that the account is for, and gone with it.
 */
import { createHash } from "node:crypto"
import { Effect, Semaphore } from "effect"
import { encodeBase64 } from "../../crypto/Base64.ts"
import { BrokerError } from "../../ports/MessageBroker.ts"
import type { DeviceId } from "../../schemas/Ids.ts"
import type { TopicRole } from "../../schemas/TopicRights.ts"
import type { AgentName } from "../../schemas/Topics.ts"
import type { DatabaseHost } from "../sqlite/Database.ts"
import type { AccountRow, MosquittoMethods } from "../sqlite/messages/MosquittoRows.ts"
import type { Control } from "./Control.ts"
import { aclsOf, agentMark, creation, type NewAccount, removal } from "./DynamicSecurity.ts"

const passwordBytes = 24

export interface AccountsOptions {
  readonly topicRoot: string
  readonly database: DatabaseHost<MosquittoMethods>
  readonly entropy: (bytes: number) => Effect.Effect<Uint8Array>
  /** Whether a device is still accepted under a name. */
  readonly isAgent: (
    agent: AgentName,
    device: DeviceId
  ) => Effect.Effect<boolean, { readonly message: string }>
}

/** What accounts need of a connection that stands. */
export interface AccountsLine {
  readonly control: Control
  /** Ends a session by beginning another of the same name that lasts no longer than this. */
  readonly takeOver: (agent: AgentName) => Effect.Effect<void, BrokerError>
}

const role: TopicRole = "agent"
const all = () => true

const fail = (what: string) => (error: { readonly message: string }) =>
  new BrokerError({ reason: `${what}: ${error.message}` })

/** Changes with the password and with the rights, so that an account of another table is made anew. */
const fingerprintOf = (agent: AgentName, password: string, root: string): string =>
  createHash("sha256")
    .update(JSON.stringify([password, aclsOf(role, agent, root)]))
    .digest("hex")

/** The server's own table, and what Mosquitto is known to have of it. */
const makeTable = ({ database, isAgent }: Pick<AccountsOptions, "database" | "isAgent">) =>
  Effect.gen(function* () {
    const stored = yield* database.call("accounts").pipe(Effect.mapError(fail("the accounts")))
    const rows = new Map<AgentName, AccountRow>(stored.map((row) => [row.agent, row]))
    /** Those that Mosquitto has, for certain, as they are here. */
    const standing = new Set<AgentName>()
    /** Those that are to be cut off, and are not yet. */
    const leaving = new Set<AgentName>()
    const ofAgent = (agent: AgentName) => Effect.mapError(fail(`the account of ${agent}`))
    const drop = (agent: AgentName) =>
      Effect.suspend(() => {
        rows.delete(agent)
        standing.delete(agent)
        leaving.add(agent)
        return Effect.asVoid(database.call("dropAccount", agent).pipe(ofAgent(agent)))
      })
    return {
      rows,
      standing,
      leaving,
      drop,
      put: (row: AccountRow) =>
        Effect.andThen(
          database.call("putAccount", row).pipe(ofAgent(row.agent)),
          Effect.sync(() => void rows.set(row.agent, row))
        ),
      isAgentsOwn: (agent: AgentName, device: DeviceId) => isAgent(agent, device).pipe(ofAgent(agent)),
      /** Removes those whose devices are agents no more, among some of them. */
      dropOutdated: Effect.fnUntraced(function* (which: (row: AccountRow) => boolean) {
        for (const { agent, device } of [...rows.values()].filter(which))
          if (!(yield* isAgent(agent, device).pipe(ofAgent(agent)))) yield* drop(agent)
      })
    }
  })

/** `leaving`: who is to be cut off, and is taken off it when that is done. */
const cuttingOff = (leaving: Set<AgentName>) => {
  /** The account first, so that nobody comes back meanwhile. */
  const cutOff = Effect.fnUntraced(function* (line: AccountsLine, agent: AgentName) {
    yield* line.control.run(removal(agent))
    yield* line.takeOver(agent)
    leaving.delete(agent)
  })
  const cutOffLeaving = Effect.fnUntraced(function* (line: AccountsLine) {
    for (const agent of [...leaving]) yield* cutOff(line, agent)
  })
  return { cutOff, cutOffLeaving }
}

const notAccepted = (agent: AgentName, device: DeviceId) =>
  new BrokerError({ reason: `no account for ${device}: it is not accepted as ${agent}` })

const cutOffLater = (agent: AgentName, reason: string) =>
  new BrokerError({ reason: `${reason}: ${agent} is cut off as soon as Mosquitto is reached again` })

export const makeAccounts = (options: AccountsOptions) =>
  Effect.gen(function* () {
    const { entropy, topicRoot } = options
    const inTurn = (yield* Semaphore.make(1)).withPermits(1)
    const table = yield* makeTable(options)

    const { cutOff, cutOffLeaving } = cuttingOff(table.leaving)
    const newAccount = ({ agent, password }: AccountRow): NewAccount => ({
      agent,
      role,
      password,
      fingerprint: fingerprintOf(agent, password, topicRoot)
    })
    const password = Effect.fnUntraced(function* (line: AccountsLine, agent: AgentName, device: DeviceId) {
      // Whoever asked on its behalf looked a while ago: it may have been revoked since.
      if (!(yield* table.isAgentsOwn(agent, device))) return yield* notAccepted(agent, device)
      const known = table.rows.get(agent)
      if (known?.device === device && table.standing.has(agent)) return known.password
      if (known !== undefined && known.device !== device) yield* table.drop(agent)
      if (table.leaving.has(agent)) yield* cutOff(line, agent)
      const row = table.rows.get(agent) ?? {
        agent,
        device,
        password: encodeBase64(yield* entropy(passwordBytes))
      }
      yield* table.put(row)
      yield* line.control.run(creation(newAccount(row), topicRoot))
      table.standing.add(agent)
      if (yield* table.isAgentsOwn(agent, device)) return row.password
      yield* table.drop(agent)
      yield* cutOff(line, agent)
      return yield* notAccepted(agent, device)
    })
    const reconcile = Effect.fnUntraced(function* (line: AccountsLine) {
      table.standing.clear()
      yield* table.dropOutdated(all)
      yield* cutOffLeaving(line)
      for (const { textdescription, textname, username } of yield* line.control.accounts) {
        if (textname !== agentMark) continue
        const agent = username as AgentName
        const row = table.rows.get(agent)
        if (row === undefined) yield* cutOff(line, agent)
        // It comes again, and finds an account as it should be.
        else if (newAccount(row).fingerprint !== textdescription) yield* line.control.run(removal(agent))
        else table.standing.add(agent)
      }
    })

    return {
      has: (agent: AgentName): boolean => table.rows.has(agent),
      /** The password of an account, which is made where there is none. */
      password: (line: AccountsLine, agent: AgentName, device: DeviceId) =>
        inTurn(password(line, agent, device)),
      /** Where there is no connection, the account ends when there is one again. */
      expel: (line: AccountsLine | null, agent: AgentName) =>
        inTurn(
          Effect.andThen(
            table.drop(agent),
            line === null
              ? Effect.fail(cutOffLater(agent, "there is no connection"))
              : Effect.mapError(cutOff(line, agent), ({ reason }) => cutOffLater(agent, reason))
          )
        ),
      /** Makes Mosquitto's accounts of agents be those that stand here; others than agents' it leaves alone. */
      reconcile: (line: AccountsLine) => inTurn(reconcile(line)),
      /** Looks through the devices of accounts, or of some, for those whose end nobody told of. */
      sweep: (line: AccountsLine, which: (row: AccountRow) => boolean = all) =>
        inTurn(Effect.andThen(table.dropOutdated(which), cutOffLeaving(line)))
    }
  })

export type Accounts = Effect.Success<ReturnType<typeof makeAccounts>>
