/**
 * Opens the operator's keys for a command: asks for the passphrase, or takes it from the file that
 * `POSTERN_PASSPHRASE_FILE` names.
 *
 * @module
 */
import { Effect, type Redacted } from "effect"
import { unlockKeys } from "../../adapters/operator/OperatorKeys.ts"
import { askNewPassphrase, askSecret, secretFromFile } from "./Ask.ts"
import type { CliFailure } from "./Failure.ts"
import type { Screen } from "./Screen.ts"

const passphraseFile = (): string | undefined => {
  const path = process.env["POSTERN_PASSPHRASE_FILE"]
  return path === undefined || path === "" ? undefined : path
}

const noTerminal =
  "There is no terminal to ask for the passphrase. Put it into a file and name that in POSTERN_PASSPHRASE_FILE"

/** The passphrase of a key file, called by its path or by what is in it. */
export const passphraseFor = (what: string): Effect.Effect<Redacted.Redacted, CliFailure, Screen> =>
  Effect.suspend(() => {
    const path = passphraseFile()
    return path === undefined
      ? askSecret(`Passphrase of ${what}: `, noTerminal)
      : secretFromFile(path, "passphrase")
  })

/** The operator's keys, opened. Takes some tenths of a second where they are protected. */
export const unlocked = unlockKeys(passphraseFor("the operator's keys"))

/** The passphrase for new keys; null where the person explicitly wants none. */
export const newPassphrase = (wanted: boolean): Effect.Effect<Redacted.Redacted | null, CliFailure, Screen> =>
  Effect.suspend(() => {
    if (!wanted) return Effect.succeed(null)
    const path = passphraseFile()
    return path === undefined
      ? askNewPassphrase(`${noTerminal}, or say --no-passphrase`)
      : secretFromFile(path, "passphrase")
  })
