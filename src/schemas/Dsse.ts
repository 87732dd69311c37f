/**
 * The envelope around everything that is signed: DSSE (https://github.com/secure-systems-lab/dsse). The payload is
 * RFC 8785 JSON with a `type` member; `payloadType` names the same kind once more, inside the signature.
 */
import { Schema } from "effect"
import { KeyId } from "./Ids.ts"
import { Limits } from "./Limits.ts"

export const Base64 = Schema.String.check(
  Schema.isPattern(/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/)
)

export const DsseSignature = Schema.Struct({
  keyid: Schema.Union([KeyId, Schema.String.check(Schema.isPattern(/^(dev|srv)_[a-z2-7]{52}$/))]),
  sig: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9+/]{86}==$/))
})

export const DsseEnvelope = Schema.Struct({
  payloadType: Schema.String.check(Schema.isPattern(/^application\/vnd\.postern\.[a-z-]+\+json$/)),
  payload: Base64.check(Schema.isMaxLength(Limits.envelopeBytes)),
  signatures: Schema.Array(DsseSignature).check(Schema.isMaxLength(Limits.envelopeSignatures))
})
export type DsseEnvelope = typeof DsseEnvelope.Type

/** The payload types in use: `payloadType` of the envelope and the `type` member of the payload belong together. */
export const PayloadTypes = {
  root: { payloadType: "application/vnd.postern.root+json", type: "postern/root/v1" },
  key: { payloadType: "application/vnd.postern.key+json", type: "postern/key/v1" },
  enrolment: { payloadType: "application/vnd.postern.enrolment+json", type: "postern/enrolment/v1" },
  admission: { payloadType: "application/vnd.postern.admission+json", type: "postern/admission/v1" },
  preauthorisation: {
    payloadType: "application/vnd.postern.preauthorisation+json",
    type: "postern/preauthorisation/v1"
  },
  device_statement: {
    payloadType: "application/vnd.postern.device-statement+json",
    type: "postern/device-statement/v1"
  },
  order: { payloadType: "application/vnd.postern.order+json", type: "postern/order/v1" },
  cancel: { payloadType: "application/vnd.postern.cancel+json", type: "postern/cancel/v1" },
  rollout: { payloadType: "application/vnd.postern.rollout+json", type: "postern/rollout/v1" },
  rolloutControl: {
    payloadType: "application/vnd.postern.rollout-control+json",
    type: "postern/rollout-control/v1"
  },
  receipt: { payloadType: "application/vnd.postern.receipt+json", type: "postern/receipt/v1" },
  broker_services: {
    payloadType: "application/vnd.postern.broker-services+json",
    type: "postern/broker-services/v1"
  },
  statement: { payloadType: "application/vnd.postern.statement+json", type: "postern/statement/v1" }
} as const
export type SignedKind = keyof typeof PayloadTypes
