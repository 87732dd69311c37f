/**
 * Agents by the hundred exchange messages of all levels while their connections are cut, broker and broker services are
 * killed and started again, and one client never reads. Nothing is lost, nothing comes twice to an application, and nothing
 * comes to another agent.
 *
 * Broker services are a process of their own, ended by SIGKILL; agents are the real actors, each with a database of its own,
 * in this process. Who sends what to whom, and when what breaks, follows from a seed.
 */
import { randomInt } from "node:crypto"
import type { Socket } from "node:net"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import type { SecureLevel } from "../../src/schemas/Message.ts"
import {
  type Agent,
  Fleet,
  inState,
  send,
  serverKeys,
  startAgent,
  until,
  withFolder
} from "../support/messaging.ts"
import { servicesProcess } from "../support/messagingServices.ts"
import { freePort, Program, waitUntil } from "../support/Program.ts"
import { proofSize } from "../support/proof.ts"
import { RogueAgent } from "../support/RogueAgent.ts"

interface Size {
  readonly agents: number
  /** So many of them are on the list, and can be written to end to end. */
  readonly visible: number
  readonly messages: number
  /** Messages under way at one time. */
  readonly together: number
  /** A connection is cut for so many messages that came. */
  readonly cutEvery: number
  readonly pollMs: number
}

const size: Size =
  proofSize === "long"
    ? { agents: 1_000, visible: 100, messages: 20_000, together: 1_000, cutEvery: 20, pollMs: 1_000 }
    : { agents: 60, visible: 30, messages: 1_000, together: 200, cutEvery: 50, pollMs: 100 }

/** Without anything new for so long the proof has failed. */
const patienceMs = 120_000
const sloth = "sloth"

/** The generator mulberry32: small, seeded, good enough to choose with. */
const chanceOf = (seed: number) => {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (bound: number) => Math.floor(next() * bound)
  return { below, pick: <A>(values: ReadonlyArray<A>) => values[below(values.length)] as A }
}
type Chance = ReturnType<typeof chanceOf>

interface Planned {
  readonly number: number
  readonly from: string
  readonly to: ReadonlyArray<string>
  readonly level: SecureLevel | "public"
}

const nameOf = (index: number) => `agent-${String(index).padStart(4, "0")}`

const plan = (chance: Chance, names: ReadonlyArray<string>): ReadonlyArray<Planned> =>
  Array.from({ length: size.messages }, (_, number) => {
    const level = chance.pick(["public", "protected", "private", "private", "end_to_end"] as const)
    const candidates = level === "end_to_end" ? names.slice(0, size.visible) : [...names, sloth]
    const count = level === "protected" || level === "private" ? 1 + chance.below(3) : 1
    const to = new Set(Array.from({ length: count }, () => chance.pick(candidates)))
    return { number, level, from: chance.pick(names), to: [...to] }
  })

/** What applications were given: how often, by message and recipient. */
class Receipts {
  readonly counts = new Map<string, number>()
  readonly stray: Array<string> = []
  private readonly expected: ReadonlySet<string>

  constructor(planned: ReadonlyArray<Planned>) {
    this.expected = new Set(planned.flatMap(({ number, to }) => to.map((name) => `${number} ${name}`)))
  }

  take(name: string, number: unknown): void {
    const key = `${String(number)} ${name}`
    if (!this.expected.has(key)) this.stray.push(key)
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1)
  }

  /** Of those the receipts of others than the client that never reads. */
  outstanding(sent: number): number {
    let missing = 0
    for (const key of this.expected)
      if (!key.endsWith(sloth) && Number.parseInt(key, 10) < sent && !this.counts.has(key)) missing++
    return missing
  }

  missing(): ReadonlyArray<string> {
    return [...this.expected].filter((key) => !this.counts.has(key))
  }

  twice(): ReadonlyArray<string> {
    return [...this.counts].filter(([, count]) => count > 1).map(([key]) => key)
  }
}

/** An application: deals with what comes, for as long as its scope lives. */
const listen = (name: string, agent: Agent, receipts: Receipts) =>
  Effect.gen(function* () {
    const waiting = yield* agent.store.waiting(0, 500)
    for (const { received } of waiting) receipts.take(name, received.message.body)
    if (waiting.length > 0) yield* agent.store.dealtWith(waiting.map(({ place }) => place))
    yield* Effect.sleep(size.pollMs)
  }).pipe(Effect.forever, Effect.forkScoped)

/** Broker services as a process; a kill is followed by the next start. */
class ServicesProcess {
  private readonly program: Program
  private kills = 0
  constructor(path: string, port: number, names: ReadonlyArray<string>) {
    const command = [process.execPath, servicesProcess.script, path, String(port), names.join(",")]
    const environment = { PATH: process.env["PATH"] ?? "" }
    this.program = new Program("broker services", command, environment, join(path, "services.log"))
  }
  get isReady(): boolean {
    return this.program.log().split(servicesProcess.ready).length === this.kills + 2
  }
  log(): string {
    return this.program.log().slice(-2_000)
  }
  start(): void {
    this.program.start()
  }
  async kill(): Promise<void> {
    await this.program.crash()
    this.kills++
    this.program.start()
  }
  /** A process that does not listen to the signal yet would end by it. */
  async crashActor(signal: "SIGUSR2" | "SIGHUP"): Promise<void> {
    await waitUntil("broker services", () => this.isReady)
    this.program.signal(signal)
  }
  async end(): Promise<void> {
    await this.program.crash()
  }
}

/** Breaks things as messages come: whole processes at some moments, connections all the time. */
const breaker = (
  services: ServicesProcess,
  sockets: Map<string, Socket>,
  names: ReadonlyArray<string>,
  chance: Chance
) => {
  const deeds: Array<readonly [number, () => Promise<void>]> = [
    [0.2, () => services.kill()],
    [0.4, () => services.crashActor("SIGUSR2")],
    [0.6, () => services.crashActor("SIGHUP")],
    [0.8, () => services.kill()]
  ]
  let cuts = 0
  return async (came: number): Promise<void> => {
    for (; cuts * size.cutEvery < came; cuts++) {
      const socket = sockets.get(chance.pick(names))
      const isReset = chance.below(2) === 0
      // A socket that is ending already can be reset no more, and would then never tell of its end (libuv: EINVAL).
      if (isReset && socket?.writableEnded === false) socket.resetAndDestroy()
      else if (isReset) socket?.destroy()
      else socket?.end()
    }
    while (deeds[0] !== undefined && came > deeds[0][0] * size.messages) await deeds.shift()?.[1]()
  }
}

/** Connects and reads nothing for ever. */
const neverReading = (fleet: Fleet, address: URL) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const agent = await RogueAgent.connect(sloth, fleet.ring(sloth), {
        server: serverKeys.id,
        address,
        keepaliveSeconds: 600
      })
      await agent.shakeHands({ visible: false })
      agent.client.stream.pause()
      return agent
    }),
    (agent) => Effect.promise(() => agent.leave())
  )

const rowsIn = (path: string, sql: string): ReadonlyArray<Record<string, unknown>> => {
  const database = new DatabaseSync(join(path, "messages.db"), { readOnly: true })
  try {
    return database.prepare(sql).all()
  } finally {
    database.close()
  }
}

/** What broker services say to have refused. */
const refusalsIn = (path: string): ReadonlyArray<string> =>
  rowsIn(path, "SELECT DISTINCT code FROM refusals").map((row) => String(row["code"]))

const statusIn = (path: string, agent: string): unknown =>
  rowsIn(path, `SELECT status FROM agents WHERE agent = '${agent}'`)[0]?.["status"]

/** Looks until it is so, as long as there is progress. */
const whileProgress = (
  what: string,
  measure: () => number,
  isDone: () => boolean,
  explain: Effect.Effect<string>
) =>
  Effect.gen(function* () {
    let best = measure()
    let idleMs = 0
    while (!isDone()) {
      yield* Effect.sleep(100)
      const now = measure()
      idleMs = now === best ? idleMs + 100 : 0
      best = now
      if (idleMs > patienceMs) assert.fail(`no progress with ${what}: ${now}\n${yield* explain}`)
    }
  })

/** Where the first messages are that are missing. */
const whereabouts = (
  path: string,
  planned: ReadonlyArray<Planned>,
  receipts: Receipts,
  agents: ReadonlyMap<string, Agent>,
  services: ServicesProcess
): Effect.Effect<string> => {
  const stateOf = Effect.fnUntraced(function* (name: string) {
    const agent = agents.get(name)
    return agent === undefined ? name : `${name} ${JSON.stringify(yield* agent.ref.ask("Report"))}`
  })
  return Effect.gen(function* () {
    const lines: Array<string> = []
    for (const key of receipts.missing().slice(0, 12)) {
      const [number = "", to = ""] = key.split(" ")
      const { from, level } = planned[Number(number)] as Planned
      const drafts = yield* (agents.get(from) as Agent).store.queued(0, 10_000, 0)
      const isDraft = drafts.some(({ draft }) => draft.body === Number(number))
      const [queue] = rowsIn(path, `SELECT count(*) AS n FROM outgoing WHERE client = '${to}'`)
      lines.push(
        `${number}, ${level}, ${isDraft ? "not sent" : "sent"} from ${yield* stateOf(from)}`,
        `  to ${yield* stateOf(to)}, ${String(queue?.["n"])} packets in its queue`
      )
    }
    const [waiting] = rowsIn(path, "SELECT count(*) AS n FROM deliveries")
    return `${lines.join("\n")}\n${String(waiting?.["n"])} deliveries wait\n${services.log()}`
  }).pipe(Effect.catch((error) => Effect.succeed(`no more is known: ${String(error)}`)))
}

const startAll = (fleet: Fleet, names: ReadonlyArray<string>, address: URL, path: string) =>
  Effect.gen(function* () {
    const sockets = new Map<string, Socket>()
    const agents = new Map<string, Agent>()
    yield* Effect.forEach(
      names.entries(),
      ([index, name]) =>
        Effect.gen(function* () {
          const agent = yield* startAgent(fleet, name, address, path, {
            visible: index < size.visible,
            inMemory: true,
            dialled: (socket) => void sockets.set(name, socket)
          })
          agents.set(name, agent)
          yield* inState(agent, "known")
        }),
      { concurrency: 16 }
    )
    return { agents, sockets }
  })

it.live(
  `${size.messages} messages between ${size.agents} agents, while everything breaks`,
  () =>
    withFolder((path) =>
      Effect.gen(function* () {
        const seed = Number(process.env["POSTERN_SEED"] ?? randomInt(2 ** 31))
        yield* Effect.logInfo(`POSTERN_SEED=${seed}`)
        const chance = chanceOf(seed)
        const names = Array.from({ length: size.agents }, (_, index) => nameOf(index))
        const fleet = new Fleet()
        for (const name of [...names, sloth]) fleet.add(name)
        const port = yield* Effect.promise(freePort)
        const address = new URL(`mqtt://127.0.0.1:${port}`)
        const services = yield* Effect.acquireRelease(
          Effect.sync(() => new ServicesProcess(path, port, [...names, sloth])),
          (process) => Effect.promise(() => process.end())
        )
        services.start()
        yield* until(
          "broker services",
          Effect.sync(() => (services.isReady ? true : undefined))
        )

        const planned = plan(chance, names)
        const receipts = new Receipts(planned)
        yield* neverReading(fleet, address)
        const { agents, sockets } = yield* startAll(fleet, names, address, path)
        for (const [name, agent] of agents) yield* listen(name, agent, receipts)
        yield* Effect.logInfo(`${agents.size} agents are known`)

        const explain = whereabouts(path, planned, receipts, agents, services)
        const breakThings = breaker(services, sockets, names, chance)
        let sent = 0
        for (const { from, level, number, to } of planned) {
          yield* send(agents.get(from) as Agent, level, to, number)
          sent++
          if (sent % 10 !== 0) continue
          yield* Effect.promise(() => breakThings(receipts.counts.size))
          yield* whileProgress(
            "what is under way",
            () => receipts.counts.size,
            () => receipts.outstanding(sent) < size.together,
            explain
          )
        }
        yield* whileProgress(
          "the last messages",
          () => receipts.counts.size,
          () => receipts.outstanding(sent) === 0,
          explain
        )
        yield* Effect.logInfo("all but the sloth have theirs")

        // It has said nothing since broker services were killed, and they know by its will.
        yield* until(
          "the sloth's will",
          Effect.sync(() => (statusIn(path, sloth) === "DU" ? true : undefined))
        )
        // The client that never read comes again as one that does.
        const late = yield* startAgent(fleet, sloth, address, path, { visible: false })
        yield* listen(sloth, late, receipts)
        yield* whileProgress(
          "what waited for the sloth",
          () => receipts.counts.size,
          () => receipts.missing().length === 0,
          explain
        )
        // Whatever would come again has come when each has sent and was sent what it had.
        for (const agent of agents.values())
          yield* until(
            "nothing to be sent",
            Effect.map(agent.ref.ask("Report", undefined, { timeoutMs: 60_000 }), ({ queued }) =>
              queued === 0 ? true : undefined
            )
          )
        yield* Effect.sleep(2 * size.pollMs)
        assert.deepStrictEqual(receipts.missing(), [])
        assert.deepStrictEqual(receipts.twice(), [])
        assert.deepStrictEqual(receipts.stray, [])
        // What was sent again since its acknowledgement was lost is known by its id; nothing else was found wrong.
        assert.deepStrictEqual(
          refusalsIn(path).filter((code) => code !== "replayed"),
          []
        )
      })
    ),
  // It fails by its own patience: an agent whose connection was cut again and again comes only a minute later.
  proofSize === "long" ? 1_800_000 : 900_000
)
