/** The way between device and server: slow, forgetful, and sometimes cut. */
import { Deferred, Effect } from "effect"
import type { ApiHandler } from "../../src/adapters/http/Exchange.ts"
import { handlerTransport, type Transport, TransportError } from "../../src/adapters/http/Transport.ts"
import type { Chance } from "./Chance.ts"

const lost = (reason: string) => new TransportError({ reason, stale: false })

export class Network {
  /** Share of requests that vanish on their way, and of answers that vanish after the server did its part. */
  forgetfulness: number
  readonly log: Array<string> = []
  private cutOff = false
  private cut = Deferred.makeUnsafe<never, TransportError>()
  private readonly chance: Chance
  private readonly reach: () => ApiHandler | undefined

  constructor(chance: Chance, forgetfulness: number, reach: () => ApiHandler | undefined) {
    this.chance = chance
    this.forgetfulness = forgetfulness
    this.reach = reach
  }

  /** Cuts everything under way, until {@link mend}. */
  readonly sever = Effect.suspend(() => {
    this.cutOff = true
    const cut = this.cut
    this.cut = Deferred.makeUnsafe<never, TransportError>()
    return Deferred.fail(cut, lost("the network was cut"))
  })

  readonly mend = Effect.sync(() => {
    this.cutOff = false
  })

  /** The transport of one life of a device; `alive` says whether it still may talk. */
  transport(alive: () => boolean): Transport {
    const inner = handlerTransport(() => this.reach())
    const stillAlive = <A>(value: A) => Effect.suspend(() => (alive() ? Effect.succeed(value) : Effect.never))
    return {
      send: (request) =>
        Effect.gen({ self: this }, function* () {
          yield* stillAlive(undefined)
          const delayMs = this.chance.between(5, 200)
          const vanishes = this.chance.happens(this.forgetfulness)
          const answerVanishes = this.chance.happens(this.forgetfulness)
          yield* Effect.sleep(delayMs)
          if (this.cutOff) return yield* lost("the network is cut")
          if (vanishes) return yield* lost("the request was lost")
          const response = yield* Effect.raceFirst(inner.send(request), Deferred.await(this.cut))
          this.log.push(`${request.method} ${request.path} ${response.status}`)
          if (answerVanishes) return yield* lost("the answer was lost")
          return yield* stillAlive(response)
        })
    }
  }
}
