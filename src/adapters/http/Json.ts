/** JSON over the wire: strict on the way in, plain on the way out. */
import { Result, Schema } from "effect"
import { utf8 } from "../../crypto/Bytes.ts"
import { parseStrict } from "../../crypto/CanonicalJson.ts"

export const jsonType = "application/json"
export const octetsType = "application/octet-stream"

const strict = { onExcessProperty: "error" } as const

/** The value, or a sentence on why the bytes are no JSON of that shape. Unknown members are refused. */
export const decodeJson = <A>(
  schema: Schema.Codec<A, unknown>,
  bytes: Uint8Array,
  maximumBytes: number
): Result.Result<A, string> => {
  const parsed = parseStrict(bytes, { maximumBytes })
  if (Result.isFailure(parsed)) return Result.fail(parsed.failure.message)
  return Result.mapError(Schema.decodeUnknownResult(schema)(parsed.success, strict), (error) => error.message)
}

export const encodeJson = (value: unknown): Uint8Array => utf8(JSON.stringify(value))
