/** How a server's onion services are: what `postern status`, the management API and the figures show. */
import { Schema } from "effect"
import { Count, labelUpTo, TimestampMs } from "./Ids.ts"
import { ServerAddress } from "./TrustRoot.ts"

/**
 * - `enrol`: open to everybody who knows the address, for newcomers; published only while enrolment is open
 * - `device`: for accepted devices; who is not authorised does not even learn where it is
 * - `management`: the management API, for operators; off by default
 */
export const OnionServiceName = Schema.Literals(["enrol", "device", "management"])
export type OnionServiceName = typeof OnionServiceName.Type

/**
 * - `off`: not published, as it should be
 * - `waiting`: tor has not begun to upload a descriptor yet
 * - `uploading`: under way, none is in place
 * - `published`: directories have it, so clients can find it
 * - `failed`: every upload since the last change failed; tor goes on trying
 */
export const DescriptorState = Schema.Literals(["off", "waiting", "uploading", "published", "failed"])
export type DescriptorState = typeof DescriptorState.Type

export const OnionServiceStatus = Schema.Struct({
  service: OnionServiceName,
  address: ServerAddress,
  descriptor: DescriptorState,
  /** Uploads that directories confirmed and that failed, since this tor was started. */
  uploads: Count,
  failures: Count,
  uploaded_at_ms: Schema.NullOr(TimestampMs),
  /** Introduction points that stand, and circuits of clients that are open; null where tor was not asked yet. */
  introduction_points: Schema.NullOr(Count),
  circuits: Schema.NullOr(Count),
  /** Keys that may reach it, without the one nobody owns; null where everybody may. */
  authorised: Schema.NullOr(Count)
})
export type OnionServiceStatus = typeof OnionServiceStatus.Type

export const OnionStatus = Schema.Struct({
  tor: Schema.Struct({
    /** Whether this server started it, or attached to one that ran. */
    own: Schema.Boolean,
    /** 0–100; 100 means that circuits could be built once. */
    progress: Count,
    summary: labelUpTo(300),
    /**
     * tor's last warning about the way into the network, or why it does not run; null where there is none. At 100: that it
     * has no circuits any more.
     */
    warning: Schema.NullOr(labelUpTo(500))
  }),
  services: Schema.Array(OnionServiceStatus).check(Schema.isMaxLength(8))
})
export type OnionStatus = typeof OnionStatus.Type
