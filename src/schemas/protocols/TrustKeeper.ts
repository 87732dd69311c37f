/** The trust keeper: holds the root and the operators' decision about this device, and enrols it. */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { DeviceApiErrorCode, HighWater, SharedOnionKey } from "../DeviceApi.ts"
import { DsseEnvelope } from "../Dsse.ts"
import { Count, Digest, Name, ServerId } from "../Ids.ts"
import { OnionClientKey } from "../Onion.ts"
import { RouteFailure } from "../RouteFailure.ts"
import { TrustRoot } from "../TrustRoot.ts"

/** Where the device stands with its operators. */
export const TrustPhase = Schema.Literals(["not_enrolled", "accepted", "rejected", "revoked"])
export type TrustPhase = typeof TrustPhase.Type

/** A root the device trusts, and what it is bound to. */
export const HeldRoot = Schema.Struct({
  /** Digest of the payload of version 1: what the claim code binds and an invitation pins. */
  firstDigest: Digest,
  server: ServerId,
  /** The newest version. */
  envelope: DsseEnvelope,
  root: TrustRoot
})
export type HeldRoot = typeof HeldRoot.Type

/** Why a server takes a device's ledger for another than the one it knew. */
export const LedgerObjection = Schema.Literals(["ledger_rolled_back", "cloned"])
export type LedgerObjection = typeof LedgerObjection.Type

export const TrustView = Schema.Struct({
  phase: TrustPhase,
  held: Schema.NullOr(HeldRoot),
  /** Sequence of the last decision about this device; 0 before there is one. */
  admissionSequence: Count,
  name: Schema.NullOr(Name),
  /** To be compared by a person; null before there is a root, or once accepted. */
  claimCode: Schema.NullOr(Schema.String),
  /** What the server held against this device's ledger; only a later decision of the operators takes it away. */
  objection: Schema.NullOr(LedgerObjection),
  /** Orders up to here that are not begun may have begun elsewhere: they are begun no more. */
  doubtful: Schema.NullOr(HighWater),
  /** The key to the onion service that it shares with its group, if it has one. */
  onionHeld: Schema.NullOr(OnionClientKey),
  /** Whether a poll was answered in this life: before that, nobody knows whether this ledger is the newest. */
  heard: Schema.Boolean,
  /** What the keeper is waiting for, for people. */
  detail: Schema.String
})
export type TrustView = typeof TrustView.Type

/** How one attempt to fetch roots or to enrol ended. */
export const TrustStep = Schema.Struct({
  /** A root taken in, or null where nothing changed. */
  held: Schema.NullOr(HeldRoot),
  /** The decision as it came, or null. */
  admission: Schema.NullOr(DsseEnvelope),
  /** The shared key to the onion service that came with it. */
  onionShared: Schema.NullOr(SharedOnionKey),
  /** What the server says of this device, where it was asked. */
  status: Schema.NullOr(Schema.Literals(["pending", "accepted", "rejected", "revoked"])),
  failed: Schema.Boolean,
  /** Whether the server answered, whatever it said. */
  reached: Schema.Boolean,
  /** What failed on the way to it, where Tor or a proxy told. */
  code: Schema.NullOr(RouteFailure),
  detail: Schema.String
})
export type TrustStep = typeof TrustStep.Type

export const TrustKeeperProtocol = RpcGroup.make(
  Rpc.make("View", { success: TrustView }),
  /** What the answer to a poll told: the server's newest root, a decision about the device, an objection to its ledger. */
  Rpc.make("Heard", {
    payload: {
      rootVersion: Schema.NullOr(Count),
      admission: Schema.NullOr(DsseEnvelope),
      objection: Schema.NullOr(LedgerObjection),
      onionShared: Schema.NullOr(SharedOnionKey)
    },
    success: TrustView
  }),
  /** The server will not serve this device, or wants it to enrol again. */
  Rpc.make("Refused", { payload: { code: DeviceApiErrorCode } }),
  /** The server's onion service does not know the key that was shown. */
  Rpc.make("NotAuthorised"),
  /** The server's onion service was not reached; whether it knows the key that was shown, Tor does not say. */
  Rpc.make("OnionUnexplained"),
  Rpc.make("StepEnded", { payload: TrustStep }),
  Rpc.make("Due"),
  Rpc.make("Restart")
)
