/**
 * Drafts of a trust root as files that people carry from machine to machine. Nothing in them is secret; everything in
 * them is checked wherever it is read.
 *
 * @module
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs"
import { Effect, Result, Schema } from "effect"
import { DsseEnvelope } from "../../schemas/Dsse.ts"
import { errorText } from "../files/AtomicFile.ts"

/** The root a draft starts from and the next one, with the signatures collected so far. */
export const RootDraft = Schema.Struct({
  type: Schema.Literal("postern/root-draft/v1"),
  current: DsseEnvelope,
  next: DsseEnvelope
})
export type RootDraft = typeof RootDraft.Type

/** A draft's file cannot be used. */
export class DraftFileError extends Schema.TaggedError<DraftFileError>()("DraftFileError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

/** The largest draft read: two envelopes. */
const fileBytes = 512 * 1024

const decodeDraft = Schema.decodeUnknownResult(Schema.fromJsonString(RootDraft), {
  onExcessProperty: "error"
})

const attempt = <A>(path: string, work: () => A): Effect.Effect<A, DraftFileError> =>
  Effect.try({ try: work, catch: (error) => new DraftFileError({ path, reason: errorText(error) }) })

export const readDraft = (path: string): Effect.Effect<RootDraft, DraftFileError> =>
  Effect.gen(function* () {
    const bytes = yield* attempt(path, () => readFileSync(path))
    const decoded = bytes.length > fileBytes ? undefined : decodeDraft(bytes.toString("utf8"))
    if (decoded !== undefined && Result.isSuccess(decoded)) return decoded.success
    return yield* new DraftFileError({
      path,
      reason: "it is no draft of a trust root. Make one with postern keys root draft"
    })
  })

/** Writes a draft; where `replace` is not said, never over a file that is there. */
export const writeDraft = (
  path: string,
  draft: RootDraft,
  replace: boolean
): Effect.Effect<void, DraftFileError> =>
  attempt(path, () => {
    const text = `${JSON.stringify(Schema.encodeSync(RootDraft)(draft), null, 2)}\n`
    if (!replace) return writeFileSync(path, text, { flag: "wx" })
    // Signatures that others gave must not be lost in the middle of writing.
    writeFileSync(`${path}.new`, text)
    renameSync(`${path}.new`, path)
  })
