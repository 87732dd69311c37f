/** Asks Mosquitto's dynamic security plugin, over a connection of broker services. */
import { Deferred, Effect, Result, Schema, Semaphore } from "effect"
import { BrokerError } from "../../ports/MessageBroker.ts"
import { type ControlCommand, controlTopic, isAbsence } from "./DynamicSecurity.ts"
import type { Line } from "./Line.ts"

const answerMs = 10_000
/** Accounts of one page of the list. */
const pageAccounts = 200

const Answer = Schema.Struct({
  responses: Schema.Array(
    Schema.Struct({
      command: Schema.String,
      correlationData: Schema.optionalKey(Schema.String),
      error: Schema.optionalKey(Schema.String),
      data: Schema.optionalKey(Schema.Unknown)
    })
  )
})
const decodeAnswer = Schema.decodeUnknownResult(Schema.fromJsonString(Answer))

type Responses = (typeof Answer.Type)["responses"]

const Listed = Schema.Struct({
  clients: Schema.Array(
    Schema.Struct({
      username: Schema.String,
      textname: Schema.optionalKey(Schema.String),
      textdescription: Schema.optionalKey(Schema.String)
    })
  )
})
const decodeListed = Schema.decodeUnknownEffect(Listed)

export type ListedAccount = (typeof Listed.Type)["clients"][number]

const fail = (reason: string) => new BrokerError({ reason })

export interface Control {
  /** Runs commands in their order. Fails with the first that Mosquitto does not do, unless what it removes is not there. */
  readonly run: (commands: ReadonlyArray<ControlCommand>) => Effect.Effect<void, BrokerError>
  /** All accounts. */
  readonly accounts: Effect.Effect<ReadonlyArray<ListedAccount>, BrokerError>
}

/** Its answers come by {@link controlAnswers}, and are to be handed to `answered`. */
export const makeControl = Effect.gen(function* () {
  const turns = yield* Semaphore.make(1)
  let questions = 0
  let waiting: { readonly question: string; readonly answer: Deferred.Deferred<Responses> } | undefined

  const ask = Effect.fnUntraced(function* (line: Line, commands: ReadonlyArray<ControlCommand>) {
    const answer = yield* Deferred.make<Responses>()
    const question = String(++questions)
    waiting = { question, answer }
    const text = JSON.stringify({ commands: commands.map((one) => ({ ...one, correlationData: question })) })
    yield* line.publish(controlTopic, new TextEncoder().encode(text))
    const responses = yield* Deferred.await(answer).pipe(
      Effect.timeoutOrElse({
        duration: answerMs,
        orElse: () =>
          Effect.fail(
            fail(
              `Mosquitto does not answer at ${controlTopic}: is its plugin mosquitto_dynamic_security loaded, with the file that postern broker mosquitto-config made?`
            )
          )
      })
    )
    const failed = responses.find(({ error }) => error !== undefined && !isAbsence(error))
    if (failed !== undefined)
      return yield* fail(`Mosquitto's dynamic security did not do ${failed.command}: ${failed.error}`)
    return responses
  })

  const on = (line: Line): Control => {
    const inTurn = (commands: ReadonlyArray<ControlCommand>) => turns.withPermits(1)(ask(line, commands))
    const page = Effect.fnUntraced(function* (offset: number) {
      const command = { command: "listClients", verbose: true, count: pageAccounts, offset }
      const [answer] = yield* inTurn([command])
      return yield* decodeListed(answer?.data).pipe(
        Effect.mapError((error) => fail(`Mosquitto's list of accounts is unreadable: ${error.message}`))
      )
    })
    return {
      run: (commands) => Effect.asVoid(inTurn(commands)),
      accounts: Effect.gen(function* () {
        const all: Array<ListedAccount> = []
        for (;;) {
          const { clients } = yield* page(all.length)
          all.push(...clients)
          if (clients.length < pageAccounts) return all
        }
      })
    }
  }
  return {
    on,
    /** An answer that came too late belongs to no question any more. */
    answered: (payload: Uint8Array) => {
      const read = decodeAnswer(new TextDecoder().decode(payload))
      if (Result.isFailure(read) || waiting === undefined) return
      const { responses } = read.success
      if (responses[0]?.correlationData === waiting.question)
        Deferred.doneUnsafe(waiting.answer, Effect.succeed(responses))
    }
  }
})
