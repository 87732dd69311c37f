/**
 * The port `MessageBroker` over a Mosquitto 2 beside the server. Broker services are a client of it: they take what comes to
 * their inboxes, publish, and keep the agents' accounts through its dynamic security plugin.
 *
 * Opening never waits for Mosquitto: a connection that is lost, or never stood, is sought again and again, and until then
 * publications and questions for passwords fail. What agents publish meanwhile waits in the sessions of broker services.
 *
 * Inboxes are spread over connections by topic and not by a shared subscription, which would be faster still: messages of one
 * sender would overtake each other, and Mosquitto 2.0 forgets who shares a subscription when it is started anew.
 *
 * @module
 */
import { Clock, Effect, Latch, type Scope } from "effect"
import type { AgentBook } from "../../ports/AgentBook.ts"
import { BrokerError, type BrokerHandlers, type OpenBroker } from "../../ports/MessageBroker.ts"
import { brokerServices, type Inbox, topicOf } from "../../schemas/Topics.ts"
import type { AccountRow } from "../sqlite/messages/MosquittoRows.ts"
import { type Accounts, type AccountsLine, type AccountsOptions, makeAccounts } from "./Accounts.ts"
import { makeArrivals } from "./Arrivals.ts"
import { makeControl } from "./Control.ts"
import { controlAnswers, droppedTopic, uptimeTopic } from "./DynamicSecurity.ts"
import { type Line, type LineOptions, openLine } from "./Line.ts"
import { makeVitals } from "./Vitals.ts"

export interface MosquittoBrokerOptions extends AccountsOptions, LineOptions {
  /** Where agents reach it. */
  readonly agentsAddress: string
  readonly book: AgentBook["Service"]
}

/**
 * Which connection takes which inboxes, in the order in which they are opened. Each keeps the order of what it takes.
 * Handshakes come last: whoever is known sends, and what nobody has subscribed to yet would be lost.
 */
const takers: ReadonlyArray<readonly [string, ReadonlyArray<Inbox>]> = [
  ["protected", ["protected"]],
  ["private", ["private"]],
  ["presence", ["handshake", "status", "public/pingreq"]]
]
/** No agent can have a name with a slash in it. */
const clientIdOf = (part: string): string => `${brokerServices}/${part}`

/** Between two attempts to connect. */
const pauses = { firstMs: 500, factor: 2, maximumMs: 30_000 }
/**
 * How often the fleet is looked through for accounts whose end nobody told of: those of devices that never said who they
 * are, of which the directory knows nothing, and all.
 */
const unheardSweepMs = 10_000
const sweepMs = 300_000

/** What stands as long as the connections do. */
interface Standing {
  readonly line: Line
  readonly accounts: AccountsLine
  /** Whether broker services take what comes: before, nobody may come, since what they sent would be nobody's. */
  readonly isReady: boolean
}

const text = new TextDecoder()

/** Ends a session by beginning one of the same name that does not outlive its connection. */
const takeOver =
  (options: LineOptions): AccountsLine["takeOver"] =>
  (agent) =>
    Effect.scoped(
      Effect.asVoid(openLine(options, { clientId: agent, lasting: false, received: async () => undefined }))
    )

/** The connections: gives one session, from its beginning to the end of any of them, and what stands meanwhile. */
const makeSessions = (options: MosquittoBrokerOptions, handlers: BrokerHandlers, accounts: Accounts) =>
  Effect.gen(function* () {
    const run = Effect.runPromiseWith(yield* Effect.context<never>())
    const control = yield* makeControl
    const vitals = makeVitals(options.book, handlers)
    /** What came is dealt with as long as it can be answered. */
    const open = yield* Latch.make(false)
    const arrive = yield* makeArrivals({
      ...options,
      handlers,
      isKnown: accounts.has,
      whenOpen: open.await
    }).pipe(Effect.mapError((error) => new BrokerError({ reason: error.message })))
    let standing: Standing | null = null

    const openMain = openLine(options, {
      clientId: clientIdOf("main"),
      lasting: false,
      received: async (topic, payload) => {
        if (topic === controlAnswers) control.answered(payload)
        else await run(vitals.told(topic, text.decode(payload)))
      }
    })
    const openTaker = Effect.fnUntraced(function* (part: string, inboxes: ReadonlyArray<Inbox>) {
      const line = yield* openLine(options, {
        clientId: clientIdOf(part),
        lasting: true,
        received: (topic, payload) => run(arrive(topic, payload))
      })
      yield* line.subscribe(
        inboxes.map((inbox) => topicOf(options.topicRoot, { agent: brokerServices, inbox }))
      )
      return line
    })
    const session = Effect.gen(function* () {
      const line = yield* openMain
      yield* line.subscribe([controlAnswers, uptimeTopic, droppedTopic])
      const own: AccountsLine = { control: control.on(line), takeOver: takeOver(options) }
      yield* accounts.reconcile(own)
      vitals.connected(yield* Clock.currentTimeMillis)
      yield* Effect.addFinalizer(() =>
        Effect.andThen(
          Effect.sync(() => {
            standing = null
          }),
          open.close
        )
      )
      standing = { line, accounts: own, isReady: false }
      yield* open.open
      const lines = [line]
      for (const [part, inboxes] of takers) lines.push(yield* openTaker(part, inboxes))
      standing = { line, accounts: own, isReady: true }
      yield* Effect.logInfo(`connected with Mosquitto at ${options.address}`)
      const sweepEvery = (everyMs: number, which?: (row: AccountRow) => boolean) =>
        Effect.sleep(everyMs).pipe(
          Effect.andThen(accounts.sweep(own, which)),
          Effect.catch((error) => Effect.logWarning(error.message)),
          Effect.forever
        )
      const isUnheard = ({ agent, device }: AccountRow) => options.book.get(agent)?.device !== device
      return yield* Effect.raceAllFirst([
        ...lines.map(({ ended }) => ended),
        sweepEvery(sweepMs),
        sweepEvery(unheardSweepMs, isUnheard)
      ])
    })
    return { session: Effect.scoped(session), standing: () => standing }
  })

/** One session after the other. */
const again = (session: Effect.Effect<string, BrokerError>): Effect.Effect<never> => {
  let failures = 0
  const pause = Effect.suspend(() =>
    Effect.sleep(Math.min(pauses.maximumMs, pauses.firstMs * pauses.factor ** failures++))
  )
  const forgiven = Effect.tap(session, () =>
    Effect.sync(() => {
      failures = 0
    })
  )
  return forgiven.pipe(
    Effect.catch(({ reason }) => Effect.succeed(reason)),
    Effect.flatMap((reason) => Effect.logWarning(`no connection with Mosquitto: ${reason}`)),
    Effect.andThen(pause),
    Effect.forever
  )
}

/** Opens it for as long as the scope is open. */
export const mosquittoBroker =
  (options: MosquittoBrokerOptions) =>
  (handlers: BrokerHandlers): Effect.Effect<OpenBroker, BrokerError, Scope.Scope> =>
    Effect.gen(function* () {
      const accounts = yield* makeAccounts(options)
      const { session, standing } = yield* makeSessions(options, handlers, accounts)
      yield* Effect.forkScoped(again(session))
      const noLine = new BrokerError({
        reason: `Mosquitto at ${options.address} is not reached at the moment`
      })
      const withStanding = <A>(use: (standing: Standing) => Effect.Effect<A, BrokerError>) =>
        Effect.suspend(() => {
          const now = standing()
          return now === null ? Effect.fail(noLine) : use(now)
        })
      return {
        addresses: [options.agentsAddress],
        publish: (topic, payload, how) => withStanding(({ line }) => line.publish(topic, payload, how)),
        passwordFor: (agent, device) =>
          withStanding((now) =>
            now.isReady ? accounts.password(now.accounts, agent, device) : Effect.fail(noLine)
          ),
        expel: (agent) => Effect.suspend(() => accounts.expel(standing()?.accounts ?? null, agent)),
        connected: Effect.sync(() =>
          options.book.all().flatMap(({ agent, status }) => (status === "C" ? [agent] : []))
        ),
        ended: Effect.never
      }
    })
