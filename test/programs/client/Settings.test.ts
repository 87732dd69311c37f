import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Option, Result } from "effect"
import { encodeBase64Url } from "../../../src/crypto/Base64.ts"
import { utf8 } from "../../../src/crypto/Bytes.ts"
import {
  type ClientArguments,
  defaultStateFolder,
  readSettings
} from "../../../src/programs/client/ClientSettings.ts"
import { readInvitation } from "../../../src/programs/client/Invitations.ts"
import type { Invitation } from "../../../src/schemas/Enrolment.ts"
import type { Digest } from "../../../src/schemas/Ids.ts"
import { server } from "../../actors/support/Parties.ts"
import { temporaryFolder } from "../../adapters/support/folders.ts"

const invitation: Invitation = {
  server,
  addresses: ["http://127.0.0.1:8470"],
  root_digest: `sha256:${"0".repeat(64)}` as Digest,
  secret: "a".repeat(32),
  expires_at_ms: 1
}

const textOf = (value: unknown) => `postern-invite-v1.${encodeBase64Url(utf8(JSON.stringify(value)))}`

const args = (
  given: Partial<Record<Exclude<keyof ClientArguments, "once">, string>> & { once?: boolean } = {}
): ClientArguments => ({
  config: Option.fromNullishOr(given.config),
  state: Option.fromNullishOr(given.state),
  server: Option.fromNullishOr(given.server),
  invitation: Option.fromNullishOr(given.invitation),
  name: Option.fromNullishOr(given.name),
  once: given.once ?? false
})

describe("an invitation", () => {
  it("is read as it was printed, blanks around it forgiven", () => {
    expect(Result.getOrThrow(readInvitation(` ${textOf(invitation)}\n`))).toEqual(invitation)
  })
  it.each([
    ["nothing", ""],
    ["another word", "hello"],
    ["a cut one", textOf(invitation).slice(0, -7)],
    ["one with more in it", textOf({ ...invitation, admin: true })],
    ["one without a secret", textOf({ ...invitation, secret: "" })]
  ])("is refused when it is %s, without being quoted", (_name, text) => {
    const read = readInvitation(text)
    expect(Result.isFailure(read)).toBe(true)
    if (Result.isFailure(read)) expect(read.failure).not.toContain(invitation.secret)
  })
})

describe("the client's settings", () => {
  it.effect("come from flags before environment before file before defaults", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const file = join(folder, "client.toml")
      writeFileSync(file, 'server = "http://file.test"\nname = "from-file"\nhealth_interval_ms = 5000\n')
      const env = {
        POSTERN_NAME: "from-environment",
        POSTERN_STATE: "/from/environment",
        POSTERN_LONG_POLL_MS: "1000"
      }
      const settings = yield* readSettings(args({ config: file, name: "from-flag" }), env)
      expect(settings.config).toMatchObject({
        name: "from-flag",
        state_folder: "/from/environment",
        server: "http://file.test",
        health_interval_ms: 5_000,
        long_poll_ms: 1_000
      })
      expect(settings.configurationDigest).toMatch(/^sha256:/)
      expect(settings.invitation).toBeNull()
    })
  )
  it.effect("take an invitation from the environment, and forgive a slash behind an address", () =>
    Effect.gen(function* () {
      const settings = yield* readSettings(args({ server: "https://postern.test/" }), {
        POSTERN_INVITATION: textOf(invitation)
      })
      expect(settings.invitation).toEqual(invitation)
      expect(settings.config.server).toBe("https://postern.test")
    })
  )
  it.effect("do not hold a poll open that is to be the only one", () =>
    Effect.map(readSettings(args({ once: true }), {}), (settings) => {
      expect(settings.config.long_poll_ms).toBe(0)
    })
  )
  it.effect("are refused as one list", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(readSettings(args({ server: "nonsense", invitation: "nonsense" }), {}))
      expect(error.exitCode).toBe(78)
      expect(error.problems).toHaveLength(2)
      expect(error.message).toContain("https://postern.example")
    })
  )
  it("keep their state where such things are kept", () => {
    expect(defaultStateFolder({ XDG_STATE_HOME: "/x" })).toBe(
      process.geteuid?.() === 0 ? "/var/lib/postern" : "/x/postern"
    )
  })
})
