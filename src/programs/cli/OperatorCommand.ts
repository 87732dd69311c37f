/**
 * `postern keys operator` and `postern keys renew`: the changes of the trust root that are made often, drafted, signed and
 * published in one step.
 *
 * @module
 */
import { Clock, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { OperatorHome, writeJson } from "../../adapters/operator/OperatorHome.ts"
import {
  cardOf,
  isProtected,
  keyFileBytes,
  makeKeys,
  profileOf
} from "../../adapters/operator/OperatorKeys.ts"
import {
  OperatorProfile,
  operatorCardFile,
  operatorFile,
  operatorKeyFile
} from "../../adapters/operator/Records.ts"
import { addKey, revokeOperator } from "../../crypto/RootEdits.ts"
import { labelUpTo } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import type { RoleName } from "../../schemas/TrustRoot.ts"
import { confirm } from "./Ask.ts"
import { failure, usage } from "./Failure.ts"
import { defaultLabel } from "./Labels.ts"
import { cardFrom } from "./RootEditFlags.ts"
import { freshRoot, makeAndPublish, quickFlags, reportPublished } from "./RootPublishing.ts"
import { out, outJson, say } from "./Screen.ts"
import { Json, requireRoot, withHome } from "./Settings.ts"
import { visible } from "./Text.ts"
import { newPassphrase } from "./Unlock.ts"

const rootFlag = Flag.Boolean("root").pipe(
  Flag.withDescription("Let the key sign roots too"),
  Flag.withDefault(false),
  Flag.withoutNegation
)

const newOperator = Command.make(
  "new",
  {
    label: Flag.String("label").pipe(
      Flag.withMetavar("TEXT"),
      Flag.withDescription("What the key is called in the root; default USER@HOST"),
      Flag.withSchema(labelUpTo(Limits.labelLength).check(Schema.isMinLength(1))),
      Flag.optional
    ),
    passphrase: Flag.Boolean("passphrase").pipe(
      Flag.withDescription("Protect the private keys with a passphrase (default)"),
      Flag.withDefault(true)
    )
  },
  Effect.fnUntraced(function* ({ label, passphrase }) {
    const home = yield* OperatorHome
    if ((yield* isProtected) !== undefined) {
      return yield* failure(
        `There are operator keys in ${home.folder} already. Their card: postern keys operator card`
      )
    }
    const secret = yield* newPassphrase(passphrase)
    const name = Option.getOrElse(label, defaultLabel)
    const keys = yield* makeKeys("operator", name, yield* Clock.currentTimeMillis)
    const card = yield* cardOf(keys)
    // The key itself comes last: as long as it is missing, nothing was made.
    yield* writeJson(operatorFile, OperatorProfile, profileOf(keys))
    yield* home.write(operatorCardFile, `${card}\n`)
    yield* home.createBytes(operatorKeyFile, yield* keyFileBytes(keys.stored, secret))
    if (yield* Json) return yield* outJson({ key: keys.keyId, label: name, home: home.folder, card })
    yield* out(
      `Made the operator's keys in ${home.folder}. Hand this card to somebody who is an operator already, and read them the key's id\n${keys.keyId}\nover another line, for them to compare:\n\n${card}\n`
    )
  }, withHome)
).pipe(
  Command.withDescription(
    "Make the keys of a further operator on their own machine, and print the card to hand over"
  ),
  Command.withExamples([
    { command: "postern keys operator new --label bea", description: "On Bea's machine" }
  ])
)

const card = Command.make(
  "card",
  {},
  Effect.fnUntraced(function* () {
    const home = yield* OperatorHome
    const text = yield* home.read(operatorCardFile)
    if (text === undefined)
      return yield* failure(
        `There is no key card in ${home.folder}. Make keys first: postern keys operator new`
      )
    if (yield* Json) return yield* outJson({ card: text.trim() })
    yield* out(text)
  }, withHome)
).pipe(
  Command.withDescription("Print this operator's key card again"),
  Command.withExamples([{ command: "postern keys operator card > bea.card", description: "Into a file" }])
)

const add = Command.make(
  "add",
  {
    card: Argument.String("card").pipe(Argument.withDescription("The key card, or a file that holds it")),
    root: rootFlag,
    ...quickFlags
  },
  Effect.fnUntraced(function* ({ card: text, root, ...flags }) {
    const { card: given, keyId } = yield* cardFrom(text)
    if (!flags.yes) {
      yield* say(`The card is of ${visible(given.label)}, whose key's id is\n\n    ${keyId}\n`)
      const isSame = yield* confirm(
        "Did they read you this id over another line?",
        "There is no terminal to compare the key's id. Say --yes once you have"
      )
      if (!isSame) return yield* failure("The key's id was not confirmed. Nothing was signed")
    }
    const roles: ReadonlyArray<RoleName> = root ? ["operators", "root"] : ["operators"]
    const published = yield* makeAndPublish([addKey({ card: given, keyId }, roles)], flags)
    if (published === undefined) return
    yield* reportPublished(published)
    if (yield* Json) return
    const { firstDigest } = yield* requireRoot
    const address = published.addresses[0] ?? "URL"
    yield* out(
      `Next, ${visible(given.label)} needs an API token of the server (server.js token create NAME --role operator) and runs\n    postern login --server ${address}\n    postern keys root fetch --root-digest ${firstDigest}\n`
    )
  }, withHome)
).pipe(
  Command.withDescription(
    "Make somebody an operator: shows what changes, signs and publishes the next trust root"
  ),
  Command.withExamples([
    { command: "postern keys operator add bea.card", description: "May give work and let devices in" },
    { command: "postern keys operator add bea.card --root", description: "May change the trust root too" }
  ])
)

const revoke = Command.make(
  "revoke",
  {
    operator: Argument.String("operator").pipe(
      Argument.withDescription("Label, id, or the beginning of the id; see postern keys root show")
    ),
    ...quickFlags
  },
  Effect.fnUntraced(function* ({ operator, ...flags }) {
    const published = yield* makeAndPublish([revokeOperator(operator)], flags)
    if (published === undefined) return
    yield* reportPublished(published)
    if (yield* Json) return
    yield* out(
      "What they signed and devices have not begun is refused there; devices they let in stay in. Take their API token away on the server too.\n"
    )
  }, withHome)
).pipe(
  Command.withDescription(
    "Revoke an operator: from the next trust root on, nothing they sign counts any more"
  ),
  Command.withExamples([
    { command: "postern keys operator revoke anna", description: "Shows what changes, and asks" }
  ])
)

export const operatorCommand = Command.make("operator").pipe(
  Command.withDescription("Operators: make keys for one, let one in, revoke one"),
  Command.withSubcommands([newOperator, card, add, revoke])
)

export const renewCommand = Command.make(
  "renew",
  quickFlags,
  Effect.fnUntraced(function* (flags) {
    const { root } = yield* freshRoot
    const nowMs = yield* Clock.currentTimeMillis
    const lifetimeMs = Option.getOrElse(flags.expires, () => 365 * 86_400_000)
    if (nowMs + lifetimeMs <= root.expires_at_ms && Option.isNone(flags.expires))
      return yield* usage(
        "The trust root is good for more than another year. Say how long it is to be good: --expires TIME"
      )
    const published = yield* makeAndPublish([], flags)
    if (published !== undefined) yield* reportPublished(published)
  }, withHome)
).pipe(
  Command.withDescription(
    "Make the trust root last longer: signs and publishes the same one with a later end"
  ),
  Command.withExamples([
    { command: "postern keys renew", description: "Another year" },
    { command: "postern keys renew --key /media/stick/recovery.key", description: "With the recovery key" }
  ])
)
