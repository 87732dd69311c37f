/** What both blob stores (files, memory) have in common: names, bounds, and how a block joins what is there. */
import { Schema } from "effect"
import { BlobConflict, type BlobName } from "../../ports/BlobStore.ts"
import { Digest, OrderId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"

/** A file name below the folder of its kind; made of the validated digest or order id alone. */
export const blobPath = (name: BlobName): readonly [folder: "payloads" | "artifacts", file: string] =>
  name.kind === "payload"
    ? ["payloads", `${name.digest.slice("sha256:".length)}.age`]
    : ["artifacts", `${name.order}.tar.zst.age`]

const isDigest = Schema.is(Digest)
const isOrder = Schema.is(OrderId)

/** The blob that a file holds (whole, or in part), or undefined where it is none of ours. */
export const blobNamed = (
  folder: string,
  file: string
): { readonly name: BlobName; readonly complete: boolean } | undefined => {
  const complete = !file.endsWith(".part")
  const whole = complete ? file : file.slice(0, -".part".length)
  const digest = `sha256:${whole.replace(/[.]age$/, "")}`
  const order = whole.replace(/[.]tar[.]zst[.]age$/, "")
  const name: BlobName | undefined =
    folder === "payloads" && isDigest(digest)
      ? { kind: "payload", digest }
      : folder === "artifacts" && isOrder(order)
        ? { kind: "artifacts", order }
        : undefined
  return name === undefined || blobPath(name)[1] !== whole ? undefined : { name, complete }
}

export const describeBlob = (name: BlobName): string =>
  name.kind === "payload" ? `payload ${name.digest}` : `artifacts of ${name.order}`

export const conflict = (name: BlobName, reason: string, receivedBytes: number): BlobConflict =>
  new BlobConflict({ name: describeBlob(name), reason, receivedBytes })

const largest = (name: BlobName): number =>
  name.kind === "payload" ? Limits.payloadBytes : 2 * Limits.artifactBytes

/** Why a block cannot be taken whatever is there, or undefined. */
export const blockFlaw = (
  name: BlobName,
  offset: number,
  totalBytes: number,
  lengthBytes: number
): string | undefined => {
  if (totalBytes < 1 || totalBytes > largest(name))
    return `a total of ${totalBytes} bytes is not between 1 and ${largest(name)}`
  if (lengthBytes > Limits.blockBytes)
    return `a block has at most ${Limits.blockBytes} bytes, not ${lengthBytes}`
  return offset + lengthBytes > totalBytes ? "the block ends behind the total" : undefined
}

/** Where a block begins to be new, given what is there; `gap` when bytes before it are missing. */
export const overlap = (offset: number, lengthBytes: number, there: number): number | "gap" =>
  offset > there ? "gap" : Math.min(there - offset, lengthBytes)
