/**
 * The device's way through Tor. An actor opens it in its own life, so that restarting the actor starts Tor anew; everybody
 * else asks how it is, and where to send what is to go through it.
 */
import { Context, Effect, Layer, type Redacted, type Scope } from "effect"
import type { OnionClientKey, OnionHost } from "../schemas/Onion.ts"
import { TorError } from "../schemas/TorError.ts"
import type { TorEndpoint } from "../schemas/TorSettings.ts"
import type { TunnelState } from "../schemas/TunnelState.ts"

/** Tor, running. */
export interface OpenTunnel {
  /** Ends with the reason when Tor is gone, or hangs and was ended. */
  readonly ended: Effect.Effect<string>
}

export class Tunnel extends Context.Service<
  Tunnel,
  {
    /** Starts tor, or attaches to one; it ends with the scope. Does not wait until Tor's network is reached. */
    readonly open: Effect.Effect<OpenTunnel, TorError, Scope.Scope>
    /** How it is now. */
    readonly state: Effect.Effect<TunnelState>
    /** Waits until the state is another than the one given, and gives it. */
    readonly changed: (from: TunnelState) => Effect.Effect<TunnelState>
    /** Waits until somebody has asked for a way through Tor. */
    readonly wanted: Effect.Effect<void>
    /**
     * Where to send, by SOCKS, what is to go to an origin (scheme, host, port); null while there is no Tor. Asking says that
     * Tor is wanted, and makes this device's key, or the one given for it, known to tor before an onion address is used.
     */
    readonly endpoint: (origin: string) => Effect.Effect<TorEndpoint | null>
    /**
     * The public key by which onion services may know this device. Made on first need, its secret half 0600 in the state
     * folder; null where this device never uses Tor.
     */
    readonly clientKey: Effect.Effect<OnionClientKey | null, TorError>
    /**
     * Another secret (x25519, 32 bytes) for an onion service than the device's own; null goes back to that. Holds for as long
     * as the program lives, over every start of tor.
     */
    readonly authorise: (
      host: OnionHost,
      secret: Redacted.Redacted<Uint8Array> | null
    ) => Effect.Effect<void, TorError>
    /** New circuits for what comes: those that are open, and what tor remembers of addresses, serve no more. */
    readonly renew: Effect.Effect<void, TorError>
  }
>()("postern/ports/Tunnel") {}

/** How it is where no Tor is. */
const off: TunnelState = {
  phase: "off",
  progress: 0,
  summary: "not used",
  reason: null,
  problem: null,
  clockSkewSeconds: null
}

/** A device that never uses Tor: direct mode by choice, and simulation. */
export const NoTunnel: Layer.Layer<Tunnel> = Layer.succeed(Tunnel, {
  open: Effect.fail(new TorError({ code: "failed", reason: "Tor is not used", mend: "set tor.mode" })),
  state: Effect.succeed(off),
  changed: () => Effect.never,
  wanted: Effect.never,
  endpoint: () => Effect.succeed(null),
  clientKey: Effect.succeed(null),
  authorise: () => Effect.void,
  renew: Effect.void
})
