/**
 * Answers that a caller has already: a weak tag of what is said, and 304 where the caller names it. The tag is made of
 * the answer itself, so it cannot be wrong; what it saves is the way, which is the longer part of it.
 */
import { createHash } from "node:crypto"
import type { ApiRequest, ApiResponse } from "./Exchange.ts"

const tagOf = (body: Uint8Array): string =>
  `W/"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`

/** Whether an If-None-Match header names a tag (weak comparison, RFC 9110). */
const names = (header: string | undefined, tag: string): boolean =>
  header !== undefined &&
  (header.trim() === "*" ||
    header.split(",").some((each) => each.trim().replace(/^W\//, "") === tag.replace(/^W\//, "")))

/** Puts a tag on a good answer to a GET, or leaves its body out where the caller has it. */
export const conditional = (
  request: Pick<ApiRequest, "method" | "headers">,
  response: ApiResponse
): ApiResponse => {
  const { body, headers, status } = response
  if (request.method !== "GET" || status !== 200 || !(body instanceof Uint8Array)) return response
  const tag = tagOf(body)
  const tagged = { ...headers, etag: tag, "cache-control": "no-cache" }
  if (!names(request.headers["if-none-match"], tag)) return { ...response, headers: tagged }
  return { status: 304, headers: { etag: tag, "cache-control": "no-cache" }, body: new Uint8Array(0) }
}
