/**
 * `postern keys root`: the trust root, and the ceremony that makes the next version of it. Each step works on files, so
 * that keys can stay on machines without a network.
 *
 * @module
 */
import { Clock, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { createCarriedFile, errorText } from "../../adapters/files/AtomicFile.ts"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome } from "../../adapters/operator/OperatorHome.ts"
import { cardOf, keyFileBytes, makeKeys } from "../../adapters/operator/OperatorKeys.ts"
import { type RootDraft, readDraft, writeDraft } from "../../adapters/operator/RootFiles.ts"
import { adoptChain, catchUp } from "../../adapters/operator/RootSync.ts"
import { trustedRoot } from "../../adapters/operator/TrustStore.ts"
import { joinSignatures } from "../../crypto/RootDrafts.ts"
import { Digest, labelUpTo } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { failure, usage } from "./Failure.ts"
import { yesFlag } from "./Flags.ts"
import { editFlags, editsFrom } from "./RootEditFlags.ts"
import {
  confirmDraft,
  draftRoot,
  expiresFlag,
  publishDraft,
  reportDraft,
  reportPublished
} from "./RootPublishing.ts"
import {
  draftJson,
  draftLines,
  judged,
  keyFilesFlag,
  missingText,
  signDraft,
  signerAt
} from "./RootSigning.ts"
import { rootJson, rootLines, serverLaggards } from "./RootViews.ts"
import { out, outJson } from "./Screen.ts"
import { Json, requireRoot, withHome, withServerOnly } from "./Settings.ts"
import { newPassphrase } from "./Unlock.ts"

const draftArgument = Argument.String("draft").pipe(
  Argument.withDescription("The draft's file"),
  Argument.variadic({ min: 1, max: Limits.envelopeSignatures })
)

/** A draft whose signatures stand in several copies of its file. */
const joinedDraft = (paths: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const [first, ...others] = yield* Effect.forEach(paths, readDraft)
    let draft = first as RootDraft
    for (const [index, other] of others.entries()) {
      const next = joinSignatures(draft.next, other.next)
      if (next === undefined || other.current.payload !== draft.current.payload)
        return yield* failure(`${paths[index + 1]} is another draft than ${paths[0]}: nothing was joined`)
      draft = { ...draft, next }
    }
    return draft
  })

const show = Command.make(
  "show",
  {
    drafts: Argument.String("draft").pipe(
      Argument.withDescription("Drafts to look into, instead of the root in force"),
      Argument.variadic({ max: Limits.envelopeSignatures })
    )
  },
  Effect.fnUntraced(function* ({ drafts }) {
    if (drafts.length > 0) {
      const draft = yield* judged(yield* joinedDraft(drafts))
      if (yield* Json) return yield* outJson(draftJson(draft))
      const roots = [draft.current, draft.next] as const
      const missing = draft.needs.flatMap((need, at) => missingText(need, roots[at] ?? draft.next) ?? [])
      return yield* out(
        `${draftLines(draft)}${missing.length === 0 ? "It can be published.\n" : missing.map((line) => `It needs ${line}\n`).join("")}`
      )
    }
    const trusted = yield* requireRoot
    const nowMs = yield* Clock.currentTimeMillis
    const laggards = yield* serverLaggards(yield* Json)
    if (yield* Json) return yield* outJson(rootJson(trusted, laggards))
    yield* out(rootLines(trusted, laggards, nowMs))
  }, withHome)
).pipe(
  Command.withDescription(
    "Show the trust root, and which devices lag behind; or look into a draft of the next one"
  ),
  Command.withExamples([
    { command: "postern keys root show", description: "Who may sign, until when, and how many must" },
    { command: "postern keys root show root-3.json", description: "What a draft changes, and who signed it" }
  ])
)

const draft = Command.make(
  "draft",
  {
    out: Argument.String("file").pipe(Argument.withDescription("Where to write the draft")),
    ...editFlags,
    expires: expiresFlag
  },
  Effect.fnUntraced(function* ({ expires, out: path, ...flags }) {
    const made = yield* draftRoot(yield* editsFrom(flags), expires)
    const verdict = yield* judged(made)
    yield* writeDraft(path, made, false)
    if (!(yield* Json)) yield* out(draftLines(verdict))
    yield* reportDraft(path, verdict)
  }, withHome)
).pipe(
  Command.withDescription(
    "Draft the next version of the trust root into a file, to be signed where the keys are"
  ),
  Command.withExamples([
    {
      command: "postern keys root draft root-2.json --add-operator bea.card --threshold root=2",
      description: "One more operator, and two signatures for roots from now on"
    },
    {
      command: "postern keys root draft root-3.json --remove-operator anna",
      description: "Revoke an operator"
    },
    {
      command: "postern keys root draft root-4.json --broker-services server",
      description:
        "Let devices believe the server's broker services, where it could not carry messages before"
    }
  ])
)

const sign = Command.make(
  "sign",
  {
    path: Argument.String("draft").pipe(
      Argument.withDescription("The draft's file; the signature goes into it")
    ),
    key: keyFilesFlag,
    yes: yesFlag
  },
  Effect.fnUntraced(function* ({ key, path, yes }) {
    const found = yield* readDraft(path)
    yield* confirmDraft(yield* judged(found), "Sign this?", yes)
    const signed = yield* signDraft(found, key)
    yield* writeDraft(path, signed, true)
    yield* reportDraft(path, yield* judged(signed))
  }, withHome)
).pipe(
  Command.withDescription("Add your signature to a draft. Needs neither a network nor anything but the key"),
  Command.withExamples([
    {
      command: "postern keys root sign root-3.json --key /media/stick/recovery.key",
      description: "On the machine that keeps the key"
    }
  ])
)

const publish = Command.make(
  "publish",
  { drafts: draftArgument, yes: yesFlag },
  Effect.fnUntraced(function* ({ drafts, yes }) {
    const home = yield* OperatorHome
    const joined = yield* joinedDraft(drafts)
    const verdict = yield* judged(joined)
    if (!verdict.complete) {
      const roots = [verdict.current, verdict.next] as const
      const missing = verdict.needs.flatMap((need, at) => missingText(need, roots[at] ?? verdict.next) ?? [])
      return yield* failure(`The draft cannot be published yet. It needs ${missing.join("; and ")}`)
    }
    yield* confirmDraft(verdict, "Publish this?", yes)
    yield* reportPublished(yield* home.alone(publishDraft(joined)))
  }, withHome)
).pipe(
  Command.withDescription(
    "Put a signed draft on the servers; several files of one draft have their signatures joined"
  ),
  Command.withExamples([
    { command: "postern keys root publish root-3.json", description: "Shows once more what changes" },
    { command: "postern keys root publish from-anna.json from-bea.json", description: "Signed apart" }
  ])
)

/** Takes the server's chain into a home without one. */
const adopt = (rootDigest: Option.Option<string>, key: Option.Option<string>) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    if (Option.isNone(rootDigest) && Option.isNone(key)) {
      return yield* usage(
        "There is no trust root here yet. Prove the first one: --root-digest sha256:… (postern keys show on another operator's machine says it), or --signed-by FILE with a key that signed it"
      )
    }
    const proof = Option.isSome(key)
      ? { kind: "signer" as const, keyId: (yield* signerAt(key.value)).keyId }
      : { kind: "digest" as const, digest: Digest.make(Option.getOrThrow(rootDigest)) }
    const root = yield* adoptChain(proof)
    const { server } = yield* client.call("ask which server it is", (api) => api.server.status())
    if (!root.servers.some(({ id }) => id === server))
      return yield* failure(
        `The server ${server} is not in the trust root it carries. Is it the right address?`
      )
    return { from: 0, to: root.version }
  })

const fetchCommand = Command.make(
  "fetch",
  {
    rootDigest: Flag.String("root-digest").pipe(
      Flag.withMetavar("DIGEST"),
      Flag.withDescription("Digest of the first root, as another operator's postern keys show says it"),
      Flag.withSchema(Digest),
      Flag.optional
    ),
    signedBy: Flag.String("signed-by").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("Or: a key file whose key signed the first root (the recovery key)"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ rootDigest, signedBy }) {
    const before = yield* trustedRoot
    if (before !== undefined && Option.isSome(rootDigest) && before.firstDigest !== rootDigest.value)
      return yield* failure(
        `The trust root here began with ${before.firstDigest}, not with ${rootDigest.value}. Use another --home for another fleet`
      )
    const { from, to } = (yield* catchUp) ?? (yield* adopt(rootDigest, signedBy))
    const { root } = yield* requireRoot
    if (yield* Json)
      return yield* outJson({ root_version: to, taken: to - from, expires_at_ms: root.expires_at_ms })
    yield* out(
      to === from
        ? `Version ${to} is the newest the server has.\n`
        : `Took in ${to - from} of the trust root's versions, each verified by the one before; the newest is ${to}.\n`
    )
  }, withServerOnly)
).pipe(
  Command.withDescription(
    "Take in the trust root from the server: newer versions, or all of it where it is proved"
  ),
  Command.withExamples([
    {
      command: "postern keys root fetch --root-digest sha256:…",
      description: "On a new operator's machine, after postern login"
    }
  ])
)

const newKey = Command.make(
  "new-key",
  {
    path: Argument.String("file").pipe(Argument.withDescription("Where to write the private key")),
    label: Flag.String("label").pipe(
      Flag.withMetavar("TEXT"),
      Flag.withDescription("What the key is called in the root"),
      Flag.withSchema(labelUpTo(Limits.labelLength).check(Schema.isMinLength(1)))
    ),
    passphrase: Flag.Boolean("passphrase").pipe(
      Flag.withDescription("Protect it with a passphrase (default)"),
      Flag.withDefault(true)
    )
  },
  Effect.fnUntraced(function* ({ label, passphrase, path }) {
    const secret = yield* newPassphrase(passphrase)
    const keys = yield* makeKeys("recovery", label, yield* Clock.currentTimeMillis)
    const bytes = yield* keyFileBytes(keys.stored, secret)
    yield* Effect.try({
      try: () => createCarriedFile(path, bytes),
      catch: (error) => failure(`Could not write the key to ${path}: ${errorText(error)}`)
    })
    const card = yield* cardOf(keys)
    if (yield* Json) return yield* outJson({ key: keys.keyId, file: path, card })
    yield* out(
      `Made the key ${keys.keyId} in ${path}. It signs roots and nothing else.\nHand its card to whoever drafts the next root (--add-root-key), and compare the key's id with them:\n\n${card}\n`
    )
  }, withHome)
).pipe(
  Command.withDescription(
    "Make a key that signs roots only, on the machine where it is to stay; needs no network"
  ),
  Command.withExamples([
    {
      command: "postern keys root new-key /media/stick/bea-root.key --label bea-root",
      description: "An offline key"
    }
  ])
)

export const rootCommand = Command.make("root").pipe(
  Command.withDescription("The trust root: who may sign what, and the making of its next version"),
  Command.withSubcommands([show, draft, sign, publish, fetchCommand, newKey])
)
