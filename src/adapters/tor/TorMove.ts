/**
 * A machine that moves: when the address that it reaches the world from has become another, tor closes all connections
 * and makes new ones. By itself it would wait, often for minutes, until those from the old address count as dead.
 *
 * @module
 */
import { Duration, Effect } from "effect"
import { outwardAddress } from "../connectivity/Below.ts"
import type { TorControl } from "./TorControl.ts"

/** How often it is looked. */
const lookMs = 2_000

export interface TorMoveOptions {
  /** Addresses that tor connects to first: a proxy's. */
  readonly others?: ReadonlyArray<string>
  /** This machine's address towards the world; null while there is no way there. */
  readonly address?: Effect.Effect<string | null>
  readonly lookMs?: number
}

/** Closes all of tor's connections, and lets it begin anew; its listeners and onion services come back by themselves. */
const reconnect = (control: TorControl) =>
  Effect.andThen(control.send("SETCONF DisableNetwork=1"), control.send("SETCONF DisableNetwork=0"))

/** Watches, as long as it runs. An address counts once it was the same twice in a row. */
export const reconnectOnMove = Effect.fnUntraced(function* (
  control: TorControl,
  options: TorMoveOptions = {}
) {
  const look = options.address ?? Effect.promise(() => outwardAddress(options.others))
  let known = yield* look
  let last = known
  for (;;) {
    yield* Effect.sleep(Duration.millis(options.lookMs ?? lookMs))
    const now = yield* look
    const isSettled = now !== null && now === last
    last = now
    if (!isSettled || now === known) continue
    if (known !== null) {
      yield* Effect.logInfo("this machine has another address now: Tor makes its connections anew")
      yield* Effect.catch(reconnect(control), (error) =>
        Effect.logWarning(`tor was not told to connect anew: ${error.message}`)
      )
    }
    known = now
  }
})
