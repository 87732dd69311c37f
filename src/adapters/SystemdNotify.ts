/**
 * Word to systemd, through `systemd-notify`: Node has no Unix datagram sockets. Without `NOTIFY_SOCKET` nobody waits for
 * word and nothing is done. The unit needs `Type=notify` and `NotifyAccess=all`, since the word comes from a child.
 *
 * @module
 */
import { Effect, Layer } from "effect"
import { ServiceManager } from "../ports/ServiceManager.ts"
import { runTool } from "./Tool.ts"

const notifyTimeoutMs = 5_000

/** Runs `systemd-notify` once; says why it did not work. */
const notify = (text: string): Effect.Effect<string | null> =>
  runTool({ command: ["systemd-notify", text], timeoutMs: notifyTimeoutMs }).pipe(
    Effect.as(null),
    Effect.catch((failure) => Effect.succeed(failure.message))
  )

/** The service manager this process was started by, if any. */
export const SystemdNotify = (
  environment: Readonly<Record<string, string | undefined>>
): Layer.Layer<ServiceManager> =>
  Layer.sync(ServiceManager, () => {
    const awaited = (environment["NOTIFY_SOCKET"] ?? "") !== ""
    let complained = false
    const tell = (text: string): Effect.Effect<void> => {
      if (!awaited) return Effect.void
      return Effect.flatMap(notify(text), (problem) => {
        if (problem === null || complained) return Effect.void
        complained = true
        return Effect.logWarning(`systemd hears nothing of this program: ${problem}`)
      })
    }
    // Many rounds of the watchdog may pass while one word is on its way: one at a time is enough.
    let telling = false
    const alive = Effect.suspend(() => {
      if (!awaited || telling) return Effect.void
      telling = true
      const done = Effect.sync(() => {
        telling = false
      })
      return Effect.asVoid(Effect.forkDetach(Effect.ensuring(tell("WATCHDOG=1"), done)))
    })
    return { ready: tell("READY=1"), alive, stopping: tell("STOPPING=1") }
  })
