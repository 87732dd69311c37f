/**
 * Letting devices in beforehand: an operator signs that whoever proves an invitation, or the device of an id, is accepted.
 *
 * @module
 */
import { Clock, Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import type { Preauthorisation, PreauthorisedSubject } from "../../schemas/Enrolment.ts"
import { DeviceId, Name, type ServerId } from "../../schemas/Ids.ts"
import { Limits } from "../../schemas/Limits.ts"
import { failure } from "./Failure.ts"
import { durationFlag } from "./Flags.ts"
import { out, outJson } from "./Screen.ts"
import { chosenServer, Json, requireRoot, withServer } from "./Settings.ts"
import { showTime } from "./Text.ts"
import { unlocked } from "./Unlock.ts"

/** Signs a pre-authorisation and gives it to the server. */
export const signPreauthorisation = (plan: {
  readonly subject: PreauthorisedSubject
  readonly name: Name
  readonly server: ServerId
  readonly expiresAtMs: number
}) =>
  Effect.gen(function* () {
    const client = yield* ManagementClient
    const { firstDigest, root } = yield* requireRoot
    const keys = yield* unlocked
    const document: Preauthorisation = {
      type: "postern/preauthorisation/v1",
      subject: plan.subject,
      name: plan.name,
      server: plan.server,
      root_digest: firstDigest,
      root_version: root.version,
      issued_at_ms: yield* Clock.currentTimeMillis,
      expires_at_ms: plan.expiresAtMs
    }
    const { envelope } = keys.sign("preauthorisation", document)
    yield* client.call("pre-authorise the device", ({ devices }) =>
      devices.preauthorise({ payload: envelope })
    )
    return document
  })

/** `postern devices preauthorise`: by a device id that is known before the device asks. */
export const preauthorise = Command.make(
  "preauthorise",
  {
    device: Argument.String("device").pipe(
      Argument.withDescription("The device's whole id, as its program logs it"),
      Argument.withSchema(DeviceId)
    ),
    name: Flag.String("name").pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription("The name the device is to have"),
      Flag.withSchema(Name)
    ),
    expires: durationFlag("expires", "Until when it may come in", "7d")
  },
  Effect.fnUntraced(function* ({ device, expires, name }) {
    if (expires > Limits.invitationLifetimeMs) return yield* failure("A pre-authorisation lives at most 30d")
    const { server } = yield* chosenServer
    const expiresAtMs = (yield* Clock.currentTimeMillis) + expires
    yield* signPreauthorisation({ subject: device, name, server, expiresAtMs })
    if (yield* Json) return yield* outJson({ device, name, expires_at_ms: expiresAtMs })
    yield* out(`${device} is let in as ${name} as soon as it asks, until ${showTime(expiresAtMs)}.\n`)
  }, withServer)
).pipe(
  Command.withDescription("Sign beforehand that the device of an id is let in, without a further step"),
  Command.withExamples([
    {
      command: "postern devices preauthorise dev_… --name pi-cellar",
      description: "For a device whose id is known; with an invitation: postern invite --preauthorise"
    }
  ])
)
