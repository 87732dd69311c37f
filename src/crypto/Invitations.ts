/**
 * Invitations: a secret that an operator hands to a device, the key that follows from it, and what the device proves
 * with it. The server and everybody else can check the proof; none of them can make one.
 *
 * @module
 */
import { Result } from "effect"
import type { InvitationProof } from "../schemas/Enrolment.ts"
import type { DeviceId, Digest, InvitationId, ServerId, SigningKey } from "../schemas/Ids.ts"
import { encodeBase32 } from "./Base32.ts"
import { decodeBase64, encodeBase64 } from "./Base64.ts"
import { concatBytes, utf8 } from "./Bytes.ts"
import type { Engine } from "./Engine.ts"
import { parseEd25519PublicKey } from "./Keys.ts"

/** What an invitation's proof is about. */
export interface InvitationBinding {
  readonly device: DeviceId
  readonly server: ServerId
  readonly rootDigest: Digest
}

const invitationSeed = (engine: Engine, secret: string): Uint8Array =>
  engine.sha256(utf8(`postern/invitation-key/v1\0${secret}`))

const invitationIdOf = (engine: Engine, publicKey: Uint8Array): InvitationId =>
  `inv_${encodeBase32(engine.sha256(concatBytes(utf8("postern/invitation-id/v1\0"), publicKey)))}` as InvitationId

const invitationMessage = ({ device, rootDigest, server }: InvitationBinding): Uint8Array =>
  utf8(`postern/invitation-proof/v1\0${device}\0${server}\0${rootDigest}`)

/** The public id of an invitation: one way from its secret, so whoever knows the id learns nothing of it. */
export const invitationId = (engine: Engine, secret: string): InvitationId =>
  invitationIdOf(engine, engine.ed25519.publicKey(invitationSeed(engine, secret)))

/** Proves that a device holds an invitation's secret, for this device, server and root alone. */
export const proveInvitation = (
  engine: Engine,
  secret: string,
  bound: InvitationBinding
): InvitationProof => {
  const seed = invitationSeed(engine, secret)
  const publicKey = engine.ed25519.publicKey(seed)
  return {
    id: invitationIdOf(engine, publicKey),
    key: encodeBase64(publicKey) as SigningKey,
    signature: encodeBase64(engine.ed25519.sign(invitationMessage(bound), seed))
  }
}

/** Whether a proof was made by a holder of the secret of the invitation it names. */
export const invitationProofFits = (
  engine: Engine,
  bound: InvitationBinding,
  proof: InvitationProof
): boolean => {
  const key = parseEd25519PublicKey(decodeBase64(proof.key) ?? new Uint8Array(0))
  const signature = decodeBase64(proof.signature)
  return (
    Result.isSuccess(key) &&
    signature !== undefined &&
    invitationIdOf(engine, key.success) === proof.id &&
    engine.ed25519.verify(signature, invitationMessage(bound), key.success)
  )
}
