/** What tor tells of its way into the network, as the state of a way through it. */
import type { TunnelState } from "../../schemas/TunnelState.ts"
import { label } from "../host/Reading.ts"
import type { TorBootstrap } from "./TorBootstrap.ts"

/** Tor's words, bounded, on one line. */
export const tunnelWords = (text: string): string => label(text, 200)

/** How it is while tor runs, of which it is known whether it was ready before. */
export const tunnelStateOf = (bootstrap: TorBootstrap, wasReady: boolean): TunnelState => {
  const { circuits, clockDoubt, clockSkewSeconds, live, progress, reason, summary, warning } = bootstrap
  const isReady = progress === 100 && circuits && (live || !wasReady)
  return {
    phase: isReady ? "ready" : wasReady ? "lost" : "bootstrapping",
    progress,
    summary: tunnelWords(summary),
    reason:
      warning === null && reason === null
        ? null
        : tunnelWords([warning, reason].filter((part) => part !== null).join(", ")),
    problem: null,
    clockSkewSeconds,
    clockDoubt: clockDoubt === null ? null : tunnelWords(clockDoubt)
  }
}
