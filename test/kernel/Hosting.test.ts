/** A protocol is a plain RpcGroup, so that another host (a cluster entity, an RPC server) can front a kernel actor. */
import { expect, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Rpc, RpcGroup, RpcTest } from "effect/rpc"
import { ActorKey, Behaviour, ChildSpec, Supervisor } from "../../src/kernel/index.ts"
import { TestKit } from "../../src/kernel/testing/TestKit.ts"

class Unknown extends Schema.TaggedError<Unknown>()("Unknown", { name: Schema.String }) {}

const BookProtocol = RpcGroup.make(
  Rpc.make("Write", { payload: { name: Schema.String, number: Schema.Int } }),
  Rpc.make("Find", { payload: { name: Schema.String }, success: Schema.Int, error: Unknown })
)
const Book = ActorKey.make("book", BookProtocol)

const book = Behaviour.make(BookProtocol, (ctx) =>
  Effect.sync(() => {
    const numbers = new Map<string, number>()
    return ctx.handlers({
      Write: ({ payload }) =>
        Effect.sync(() => numbers.set(payload.name, payload.number)).pipe(Effect.asVoid),
      Find: ({ payload }) => {
        const number = numbers.get(payload.name)
        return number === undefined
          ? Effect.fail(new Unknown({ name: payload.name }))
          : Effect.succeed(number)
      }
    })
  })
)

it.effect(
  "a host of thin asks serves a kernel actor: answers and declared errors pass, the rest are defects",
  () =>
    Effect.gen(function* () {
      const root = Supervisor.spec({
        id: "root",
        strategy: "one-for-one",
        children: [ChildSpec.make({ key: Book, behaviour: book })]
      })
      const system = yield* TestKit.make({ root })
      const ref = system.ref(Book)
      const onlyDeclared = Effect.catch((error: { readonly _tag: string }) =>
        error instanceof Unknown ? Effect.fail(error) : Effect.die(error)
      )
      const host = BookProtocol.toLayer({
        Write: (payload) => Effect.orDie(ref.ask("Write", payload)),
        Find: (payload) => ref.ask("Find", payload).pipe(onlyDeclared)
      })
      const client = yield* RpcTest.makeClient(BookProtocol).pipe(Effect.provide(host))
      yield* client.Write({ name: "a", number: 7 })
      expect(yield* client.Find({ name: "a" })).toBe(7)
      expect(yield* Effect.flip(client.Find({ name: "b" }))).toMatchObject({ _tag: "Unknown", name: "b" })
      yield* system.stop
      expect(yield* Effect.exit(client.Find({ name: "a" }))).toMatchObject({ _tag: "Failure" })
    })
)
