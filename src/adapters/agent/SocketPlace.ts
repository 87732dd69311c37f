/** Where the socket of an agent stands, looked at before anything is told to whoever listens there. */
import { lstatSync, statSync } from "node:fs"
import { Effect } from "effect"
import { ControlError, requireSocketPath } from "../ControlSocket.ts"
import { errorText } from "../files/AtomicFile.ts"
import { agentSocketPath } from "./AgentSocket.ts"

const writableForOthers = 0o022
const quiet = { throwIfNoEntry: false } as const

/** How another user could have put a socket there; undefined where only we, root, or whom root trusts could. */
const foreignFlaw = (stateFolder: string, own: number | undefined): string | undefined => {
  const folder = statSync(stateFolder, quiet)
  if (folder !== undefined && (folder.mode & writableForOthers) !== 0)
    return "other users can write there: run chmod 0700 on it"
  const owners = [
    lstatSync(stateFolder, quiet)?.uid,
    folder?.uid,
    lstatSync(agentSocketPath(stateFolder), quiet)?.uid
  ]
  const other = owners.find((uid) => uid !== undefined && uid !== 0 && uid !== own)
  return own === undefined || own === 0 || other === undefined
    ? undefined
    : `it belongs to uid ${other}, but this program runs as uid ${own}: name a folder of your own`
}

/**
 * Fails where a socket cannot stand in this folder, or where another user could have put one of theirs there, which would hear
 * what is sent. What is not there is fine.
 */
export const requireSocketPlace = (
  stateFolder: string,
  own = process.geteuid?.()
): Effect.Effect<void, ControlError> => {
  const failed = (reason: string) => new ControlError({ path: stateFolder, code: "failed", reason })
  return requireSocketPath(agentSocketPath(stateFolder)).pipe(
    Effect.andThen(
      Effect.try({
        try: () => foreignFlaw(stateFolder, own),
        catch: (error) => failed(errorText(error))
      })
    ),
    Effect.flatMap((flaw) => (flaw === undefined ? Effect.void : Effect.fail(failed(flaw))))
  )
}
