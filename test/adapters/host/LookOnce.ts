/** A program for other network namespaces: looks once from where it stands, and prints what it found. */
import { Effect } from "effect"
import { LinuxConnectivity } from "../../../src/adapters/LinuxConnectivity.ts"
import { Connectivity } from "../../../src/ports/Connectivity.ts"
import type { TunnelState } from "../../../src/schemas/TunnelState.ts"

/** What to look for, and how. */
export interface LookRequest {
  readonly servers: ReadonlyArray<string>
  readonly references?: ReadonlyArray<string>
  readonly captivePortalUrl?: string
  readonly proxy?: string
  readonly tor?: {
    readonly mode: "auto" | "always" | "never"
    readonly entries: ReadonlyArray<string>
    readonly state: TunnelState
  }
}

/** The request as one word of a command line. */
export const lookArgument = (request: LookRequest): string =>
  Buffer.from(JSON.stringify(request)).toString("base64url")

const argument = process.argv[2]
if (process.argv[1] === import.meta.filename && argument !== undefined) {
  const request: LookRequest = JSON.parse(Buffer.from(argument, "base64url").toString())
  const { references = [], servers, tor, ...options } = request
  const way =
    tor === undefined
      ? {}
      : {
          tor: { mode: tor.mode, entries: tor.entries, tunnel: { state: Effect.succeed(tor.state) } }
        }
  Effect.flatMap(Connectivity, ({ look }) => look(servers))
    .pipe(
      Effect.provide(LinuxConnectivity({ referenceHosts: references, ...options, ...way })),
      Effect.runPromise
    )
    .then((found) => process.stdout.write(`${JSON.stringify(found)}\n`))
}
