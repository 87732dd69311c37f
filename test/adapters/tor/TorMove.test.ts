import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import type { TorControl } from "../../../src/adapters/tor/TorControl.ts"
import { reconnectOnMove } from "../../../src/adapters/tor/TorMove.ts"

const anew = ["SETCONF DisableNetwork=1", "SETCONF DisableNetwork=0"]

/** What tor is told while the machine has these addresses, one a second. */
const told = (addresses: ReadonlyArray<string | null>) =>
  Effect.gen(function* () {
    const commands: Array<string> = []
    const control: Pick<TorControl, "send"> = {
      send: (command) => Effect.sync(() => [String(commands.push(command))])
    }
    let turn = 0
    const address = Effect.sync(() => addresses[Math.min(turn++, addresses.length - 1)] ?? null)
    yield* Effect.forkScoped(reconnectOnMove(control as TorControl, { address, lookMs: 1_000 }))
    yield* TestClock.adjust((addresses.length + 3) * 1_000)
    return commands
  }).pipe(Effect.scoped)

const [one, two] = ["192.0.2.1", "192.0.2.2"]

it.effect("lets tor connect anew once when the machine has moved", () =>
  Effect.gen(function* () {
    expect(yield* told([one, one, two, two, two])).toEqual(anew)
    expect(yield* told([one, null, null, two, two])).toEqual(anew)
    expect(yield* told([one, two, two, one, one])).toEqual([...anew, ...anew])
  })
)

it.effect("leaves tor alone while the machine stays, has no network, or wavers", () =>
  Effect.gen(function* () {
    expect(yield* told([one, one])).toEqual([])
    expect(yield* told([one, null, null, one, one])).toEqual([])
    expect(yield* told([one, two, one, two, one])).toEqual([])
    expect(yield* told([null, null, one, one])).toEqual([])
  })
)
