/** The part of the fleet store that decides who is let in. */
import type { Effect } from "effect"
import type { DsseEnvelope } from "../schemas/Dsse.ts"
import type {
  Admission,
  EnrolmentRequest,
  Preauthorisation,
  PreauthorisedSubject
} from "../schemas/Enrolment.ts"
import type { InvitationId } from "../schemas/Ids.ts"
import type { DeviceStatus, StoreError } from "./FleetStore.ts"

/** Each is one transaction, answered after its commit. */
export interface EnrolmentMethods {
  readonly addInvitation: (
    id: InvitationId,
    expiresAtMs: number,
    actor: string,
    atMs: number
  ) => Effect.Effect<void, StoreError>
  /** Whether the invitation exists and has not expired. */
  readonly invitationValid: (id: InvitationId, nowMs: number) => Effect.Effect<boolean, StoreError>
  /**
   * Whether newcomers are expected: an invitation or a pre-authorisation has not expired, and no device was let in by it.
   */
  readonly enrolmentOpen: (nowMs: number) => Effect.Effect<boolean, StoreError>

  /**
   * A verified enrolment, its invitation proved. `full` when the fleet has its maximum, or too many wait on the same
   * invitation; too many without one push out the one of them that was silent longest. An accepted device stays accepted.
   */
  readonly enrol: (
    request: EnrolmentRequest,
    envelope: DsseEnvelope,
    atMs: number
  ) => Effect.Effect<DeviceStatus | "full", StoreError>
  /** A verified pre-authorisation; `used` when a device was let in by one for the subject, `stale` when a newer is there. */
  readonly preauthorise: (
    document: Preauthorisation,
    envelope: DsseEnvelope,
    actor: string,
    atMs: number
  ) => Effect.Effect<"done" | "same" | "used" | "stale", StoreError>
  /** The one for a subject that was not used and has not expired, as it came. */
  readonly preauthorisation: (
    subject: PreauthorisedSubject,
    nowMs: number
  ) => Effect.Effect<DsseEnvelope | null, StoreError>
  /** Accepts a device about which nothing was decided yet, and uses the pre-authorisation up. */
  readonly admitBeforehand: (
    admitted: Admission,
    subject: PreauthorisedSubject,
    envelope: DsseEnvelope,
    atMs: number
  ) => Effect.Effect<"done" | "used" | "name_taken", StoreError>
  /** A verified admission; `stale` when its sequence is not above the last. A name in use elsewhere is `name_taken`. */
  readonly admit: (
    admission: Admission,
    envelope: DsseEnvelope,
    actor: string,
    atMs: number
  ) => Effect.Effect<"done" | "same" | "stale" | "unknown" | "name_taken", StoreError>
}
