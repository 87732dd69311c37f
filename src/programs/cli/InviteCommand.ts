/**
 * `postern invite`: lets one device in without anybody comparing a code.
 *
 * @module
 */
import { Clock, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import { OperatorHome, readJson, writeJson } from "../../adapters/operator/OperatorHome.ts"
import { InvitationRecord, invitationFile } from "../../adapters/operator/Records.ts"
import { encodeBase64Url } from "../../crypto/Base64.ts"
import { utf8 } from "../../crypto/Bytes.ts"
import { invitationId } from "../../crypto/Invitations.ts"
import { base32Token } from "../../crypto/Unguessable.ts"
import { CryptoEngine } from "../../ports/CryptoEngine.ts"
import { Entropy } from "../../ports/Entropy.ts"
import type { Invitation } from "../../schemas/Enrolment.ts"
import { Name } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { loopbackWarning } from "../../schemas/Loopback.ts"
import type { OnionServiceName } from "../../schemas/OnionStatus.ts"
import { failure, usage } from "./Failure.ts"
import { durationFlag } from "./Flags.ts"
import { signPreauthorisation } from "./PreauthoriseCommand.ts"
import { out, outJson, say } from "./Screen.ts"
import { chosenServer, Json, requireRoot, withClientOf, withServer } from "./Settings.ts"
import { showTime } from "./Text.ts"

const secretBits = 160

/** `postern-invite-v1.` and base64url of the invitation's JSON: one word for a shell. */
export const invitationText = (invitation: Invitation): string =>
  `postern-invite-v1.${encodeBase64Url(utf8(JSON.stringify(invitation)))}`

/** Removes invitations that have expired: their secrets serve for nothing any more. */
const dropExpired = (nowMs: number) =>
  Effect.gen(function* () {
    const home = yield* OperatorHome
    for (const name of yield* home.list("invitations")) {
      const record = yield* readJson(`invitations/${name}`, InvitationRecord)
      if (record !== undefined && record.expires_at_ms < nowMs) yield* home.remove(`invitations/${name}`)
    }
  })

/** The server's onion addresses, as it says itself: that of devices, and the one for enrolment alone. */
const askOnionAddresses = Effect.gen(function* () {
  const client = yield* ManagementClient
  const { onion } = yield* client.call("ask for the server's status", (api) => api.server.status())
  const of = (name: OnionServiceName) =>
    (onion?.services ?? []).filter(({ service }) => service === name).map(({ address }) => address)
  return { device: of("device"), enrol: of("enrol") }
})

/** Makes an invitation, tells the server its public id and when it ends, and keeps the secret here. */
export const makeInvitation = (options: { readonly name: Name | null; readonly lifetimeMs: number }) =>
  Effect.gen(function* () {
    const engine = yield* CryptoEngine
    const { firstDigest, root } = yield* requireRoot
    const entry = yield* chosenServer
    const server = root.servers.find((candidate) => candidate.id === entry.server)
    if (server === undefined)
      return yield* failure(`The server at ${entry.address} is not in your trust root`)
    const nowMs = yield* Clock.currentTimeMillis
    yield* dropExpired(nowMs)
    const onion = yield* withClientOf(entry)(askOnionAddresses)
    const secret = yield* base32Token(yield* Entropy, secretBits)
    const invitation: Invitation = {
      server: server.id,
      addresses: server.addresses,
      ...(onion.enrol.length > 0 ? { enrol_addresses: onion.enrol } : {}),
      root_digest: firstDigest,
      secret,
      expires_at_ms: nowMs + options.lifetimeMs
    }
    const id = invitationId(engine, secret)
    const { expires_at_ms, root_digest } = invitation
    // Kept before the server knows of it: an invitation that a device can use can always be checked here.
    yield* writeJson(invitationFile(id), InvitationRecord, {
      type: "postern/invitation-record/v1",
      id,
      secret,
      name: options.name,
      server: server.id,
      root_digest,
      expires_at_ms
    })
    yield* withClientOf(entry)(
      Effect.flatMap(ManagementClient, (client) =>
        client.call("make the invitation", ({ devices }) =>
          devices.invite({ payload: { id, expires_at_ms } })
        )
      )
    )
    const warning = loopbackWarning(invitation.addresses, onion.device)
    return { id, text: invitationText(invitation), invitation, warning }
  })

/** The command for the device. The invitation stands in the environment, which other users can't see. */
export const deviceCommand = (text: string): string => `POSTERN_INVITATION=${text} node client.js`

export const inviteCommand = Command.make(
  "invite",
  {
    name: Flag.String("name").pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("The name the device is to have; default the one it asks for"),
      Flag.withSchema(Name),
      Flag.optional
    ),
    expires: durationFlag("expires", "How long it can be used", "7d"),
    preauthorise: Flag.Boolean("preauthorise").pipe(
      Flag.withDescription("Let the first device that proves it in at once; needs --name and your keys"),
      Flag.withDefault(false),
      Flag.withoutNegation
    )
  },
  Effect.fnUntraced(function* ({ expires, name, preauthorise }) {
    if (preauthorise && Option.isNone(name))
      return yield* usage("--preauthorise needs --name: nobody is asked for the device's name later")
    if (expires > Limits.invitationLifetimeMs) return yield* usage("An invitation lives at most 30d")
    const { id, invitation, text, warning } = yield* makeInvitation({
      name: Option.getOrNull(name),
      lifetimeMs: expires
    })
    if (preauthorise && Option.isSome(name)) {
      const { expires_at_ms: expiresAtMs, server } = invitation
      yield* withClientOf(yield* chosenServer)(
        signPreauthorisation({ subject: id, name: name.value, server, expiresAtMs })
      )
    }
    const command = deviceCommand(text)
    if (yield* Json) {
      const warnings = warning === undefined ? [] : [warning]
      const { expires_at_ms } = invitation
      return yield* outJson({ id, invitation: text, command, expires_at_ms, warnings })
    }
    yield* say(
      `Run this on the device, once, until ${showTime(invitation.expires_at_ms)}. Whoever has it can ask to be let in:`
    )
    yield* out(`${command}\n`)
    yield* say(
      preauthorise
        ? "The first device that does is let in at once. Guard the command like a key until then."
        : "Then accept it here: postern devices accept --waiting"
    )
    if (warning !== undefined) yield* say(`Warning: ${warning}`)
  }, withServer)
).pipe(
  Command.withDescription(
    "Print a command that lets a device ask to be let in, with proof that you invited it"
  ),
  Command.withExamples([
    { command: "postern invite --name pi-cellar", description: "An invitation for 7 days" },
    { command: "postern invite --name pi-cellar --expires 1h --json", description: "For a script" },
    {
      command: "postern invite --name pi-cellar --expires 1h --preauthorise",
      description: "The device works as soon as it has run the command"
    }
  ])
)
