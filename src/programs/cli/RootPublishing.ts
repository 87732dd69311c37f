/**
 * From edits to a published root: draft, show, confirm, sign, publish. Servers come first and the operator's own copy
 * last, so that no home ever holds a version that no server took.
 *
 * @module
 */
import { Clock, Effect, Option, Result } from "effect"
import { Flag } from "effect/cli"
import { ManagementClient, type ServerProblem } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome } from "../../adapters/operator/OperatorHome.ts"
import type { ServerEntry } from "../../adapters/operator/Records.ts"
import { type RootDraft, writeDraft } from "../../adapters/operator/RootFiles.ts"
import { keepRoot } from "../../adapters/operator/TrustStore.ts"
import { signDocument } from "../../crypto/Documents.ts"
import type { JudgedDraft } from "../../crypto/RootDrafts.ts"
import { nextRoot, type RootEdit } from "../../crypto/RootEdits.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { confirm } from "./Ask.ts"
import { failure } from "./Failure.ts"
import { optionalDurationFlag, yesFlag } from "./Flags.ts"
import { draftJson, draftLines, judged, keyFilesFlag, missingText, signDraft } from "./RootSigning.ts"
import { out, outJson, say } from "./Screen.ts"
import { chosenServer, Json, keepAbreast, requireRoot, serverEntries, withClientOf } from "./Settings.ts"
import { showTime } from "./Text.ts"

const defaultLifetimeMs = 365 * 86_400_000

export const expiresFlag = optionalDurationFlag(
  "expires",
  "How long the new root is good; default 365d, or as long as the present one where that is longer"
)

/** Flags of the commands that draft, sign and publish in one step. */
export const quickFlags = {
  key: keyFilesFlag,
  expires: expiresFlag,
  draft: Flag.String("draft").pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("Where to write the draft should more signatures be needed; default root-N.json"),
    Flag.optional
  ),
  yes: yesFlag
}

/** Takes in newer roots of the server that is logged in to, if it is reached: a draft must start from the newest. */
export const freshRoot = Effect.gen(function* () {
  const entry = yield* Effect.option(chosenServer)
  if (Option.isSome(entry)) yield* withClientOf(entry.value)(keepAbreast)
  return yield* requireRoot
})

/** The next root by edits, not signed by anybody. */
export const draftRoot = (edits: ReadonlyArray<RootEdit>, expires: Option.Option<number>) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const { envelope, root } = yield* freshRoot
    const nowMs = yield* Clock.currentTimeMillis
    const expiresAtMs = Option.match(expires, {
      onNone: () => Math.max(root.expires_at_ms, nowMs + defaultLifetimeMs),
      onSome: (lifetimeMs) => nowMs + lifetimeMs
    })
    const next = nextRoot(engine, root, edits, { nowMs, expiresAtMs })
    if (Result.isFailure(next)) return yield* failure(`No new root was made: ${next.failure}`)
    const { envelope: unsigned } = signDocument(engine, "root", next.success, [])
    return {
      type: "postern/root-draft/v1",
      current: envelope,
      next: unsigned
    } satisfies RootDraft as RootDraft
  })

/** Gives a server every version it lacks, the new one last. */
const publishAt = (entry: ServerEntry, draft: RootDraft) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const { chain } = yield* requireRoot
    const status = yield* client.call("ask which root the server holds", ({ server }) => server.status())
    for (const envelope of [...chain.slice(status.root_version ?? 0), draft.next]) {
      yield* client.call("publish the trust root", ({ server }) => server.publishRoot({ payload: envelope }))
    }
  }).pipe(withClientOf(entry))

/** One entry for each server that the new root names and this home is logged in to; the chosen one first. */
const carriers = (next: JudgedDraft["next"]) =>
  Effect.gen(function* () {
    const { servers } = yield* serverEntries
    const chosen = yield* Effect.option(chosenServer)
    const sorted = [...(Option.isSome(chosen) ? [chosen.value] : []), ...servers]
    const found = new Map<string, ServerEntry>()
    for (const entry of sorted) {
      if (next.servers.some(({ id }) => id === entry.server) && !found.has(entry.server))
        found.set(entry.server, entry)
    }
    return [...found.values()]
  })

/** Puts a complete draft on every server it can, and keeps it here as soon as one took it. */
export const publishDraft = (draft: RootDraft) =>
  Effect.gen(function* () {
    const trusted = yield* freshRoot
    const { current, next } = yield* judged(draft)
    if (trusted.envelope.payload === draft.next.payload) return { next, addresses: [], missed: [] }
    if (trusted.envelope.payload !== draft.current.payload) {
      return yield* failure(
        `The draft starts from version ${current.version}, but the newest trust root has version ${trusted.root.version}. Draft it again: postern keys root draft`
      )
    }
    const entries = yield* carriers(next)
    if (entries.length === 0) {
      return yield* failure(
        "You are logged in to no server that this root names. Log in first: postern login --server URL"
      )
    }
    const addresses: Array<string> = []
    const missed: Array<ServerProblem> = []
    for (const entry of entries) {
      const done = yield* Effect.result(publishAt(entry, draft))
      if (Result.isSuccess(done)) addresses.push(entry.address)
      else if (done.failure._tag === "ServerProblem") missed.push(done.failure)
      else return yield* done.failure
    }
    if (addresses.length === 0) return yield* missed[0] as ServerProblem
    yield* keepRoot(next.version, draft.next)
    return { next, addresses, missed }
  })

/** Says how publishing ended. */
export const reportPublished = (published: Effect.Success<ReturnType<typeof publishDraft>>) =>
  Effect.gen(function* () {
    const { addresses, missed, next } = published
    for (const problem of missed)
      yield* say(`${problem.message}. Publish there later: postern keys publish --server ${problem.address}`)
    if (yield* Json) {
      yield* outJson({
        root_version: next.version,
        expires_at_ms: next.expires_at_ms,
        published: true,
        servers: addresses,
        missed: missed.map(({ address }) => address)
      })
    } else {
      const where = addresses.length === 0 ? "there already" : `on ${addresses.join(" and ")}`
      yield* out(
        `Version ${next.version} of the trust root is ${where}, good until ${showTime(next.expires_at_ms)}.\n`
      )
    }
    if (missed.length > 0) return yield* failure("Not every server of the new root has it")
  })

/** Says which signatures a draft still needs, and what to do with it. */
export const reportDraft = (path: string, draft: JudgedDraft) =>
  Effect.gen(function* () {
    if (yield* Json) return yield* outJson({ draft: path, published: false, ...draftJson(draft) })
    const roots = [draft.current, draft.next] as const
    const missing = draft.needs.flatMap((need, index) => missingText(need, roots[index] ?? draft.next) ?? [])
    const next =
      missing.length === 0
        ? `It has all signatures. Publish it: postern keys root publish ${path}\n`
        : `It needs\n${missing.map((line) => `  - ${line}\n`).join("")}Have it signed there: postern keys root sign ${path} --key FILE. Then: postern keys root publish ${path}\n`
    yield* out(`The draft is in ${path}.\n${next}`)
  })

/** Values of {@link quickFlags}. */
export interface QuickValues {
  readonly key: ReadonlyArray<string>
  readonly expires: Option.Option<number>
  readonly draft: Option.Option<string>
  readonly yes: boolean
}

/** Shows a draft and has it confirmed. */
export const confirmDraft = (draft: JudgedDraft, question: string, yes: boolean) =>
  Effect.gen(function* () {
    yield* say(draftLines(draft))
    const isSure = yes || (yield* confirm(question, "There is no terminal to ask. Say --yes"))
    if (!isSure) return yield* failure("Nothing was signed")
  })

/**
 * Drafts, shows, signs and publishes in one step. Where one machine's keys are not enough, the draft is left in a file for
 * the others; then this gives undefined.
 */
export const makeAndPublish = (edits: ReadonlyArray<RootEdit>, flags: QuickValues) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    const draft = yield* draftRoot(edits, flags.expires)
    yield* confirmDraft(yield* judged(draft), "Sign and publish this?", flags.yes)
    const signed = yield* signDraft(draft, flags.key)
    const verdict = yield* judged(signed)
    if (verdict.complete) return yield* home.alone(publishDraft(signed))
    const path = Option.getOrElse(flags.draft, () => `root-${verdict.next.version}.json`)
    yield* writeDraft(path, signed, false)
    yield* reportDraft(path, verdict)
    return undefined
  })
