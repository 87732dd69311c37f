/** A refused request of a device: its code, HTTP status, and where the kernel's and the actors' errors fit in. */
import { Effect, Schema } from "effect"
import type { AskError, SendError } from "../../kernel/index.ts"
import type { BlobError } from "../../ports/BlobStore.ts"
import type { StoreError } from "../../ports/FleetStore.ts"
import { DeviceApiErrorCode } from "../../schemas/DeviceApi.ts"
import type { Conflict, Refused, Unavailable } from "../../schemas/ManagementApi.ts"
import type { NotAccepted } from "../../schemas/protocols/Device.ts"
import type { EnrolmentFull, NoRoot } from "../../schemas/protocols/Registrar.ts"

export class DeviceRefusal extends Schema.TaggedError<DeviceRefusal>()("DeviceRefusal", {
  code: DeviceApiErrorCode,
  message: Schema.String
}) {}

export const refuse = (code: DeviceApiErrorCode, message: string): DeviceRefusal =>
  new DeviceRefusal({ code, message })

/** HTTP status of each code. */
export const statusOf: Record<DeviceApiErrorCode, number> = {
  bad_request: 400,
  bad_signature: 401,
  wrong_authority: 421,
  clock_skew: 401,
  replayed_nonce: 401,
  unknown_device: 404,
  not_accepted: 403,
  revoked: 403,
  no_root: 409,
  not_found: 404,
  conflict: 409,
  too_large: 413,
  gone: 410,
  no_messaging: 404,
  overloaded: 503,
  internal: 500
}

/** Seconds after which an overloaded server may be asked again. */
export const retryAfterSeconds = 2

type Known =
  | DeviceRefusal
  | AskError
  | SendError
  | Unavailable
  | Refused
  | Conflict
  | NotAccepted
  | NoRoot
  | EnrolmentFull
  | StoreError
  | BlobError

/** What each failure behind the API is to a device. */
const toRefusal = (error: Known): DeviceRefusal => {
  switch (error._tag) {
    case "DeviceRefusal":
      return error
    case "NotAccepted":
      return refuse(error.standing === "revoked" ? "revoked" : "not_accepted", error.message)
    case "Refused":
      return refuse("bad_request", error.message)
    case "Conflict":
      return refuse("conflict", error.message)
    case "NoRoot":
      return refuse("no_root", error.message)
    case "EnrolmentFull":
      return refuse("overloaded", error.message)
    case "ActorCrashed":
    case "AskCycle":
    case "Fenced":
    case "NotFound":
      return refuse("internal", "the server failed at this request: try again later")
    default:
      return refuse("overloaded", "the server cannot serve this request now: try again later")
  }
}

const isOurFault = new Set(["ActorCrashed", "AskCycle", "Fenced", "NotFound", "StoreError", "BlobError"])

/** Turns every failure into a refusal; what is our own fault goes to the log as well. */
export const refusing = <A, E extends Known>(effect: Effect.Effect<A, E>): Effect.Effect<A, DeviceRefusal> =>
  Effect.catch(effect, (error) => {
    const refusal = Effect.fail(toRefusal(error))
    return isOurFault.has(error._tag)
      ? Effect.andThen(Effect.logError(`a request failed: ${error._tag}: ${error.message}`), refusal)
      : refusal
  })
