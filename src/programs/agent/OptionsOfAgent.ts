/** From a program's options to the settings of an agent, which are a client's. */
import { resolve } from "node:path"
import { Effect, Result } from "effect"
import { appearanceFlaw } from "../../adapters/agent/LocalChecks.ts"
import { loadConfig, renderProblem } from "../../adapters/TomlConfig.ts"
import { ClientConfig } from "../../schemas/ClientConfig.ts"
import { readInvitation } from "../client/Invitations.ts"
import type { OpenOptions } from "./Api.ts"
import { AgentUnavailable, type OwnAgentSettings } from "./OpenedAgent.ts"

const misconfigured = (reason: string) => new AgentUnavailable({ code: "misconfigured", reason })

const given = (invitation: string | undefined) =>
  invitation === undefined || invitation.trim() === "" ? Result.succeed(null) : readInvitation(invitation)

/** Fails with all that is wrong with the options. */
export const settingsFrom = (options: OpenOptions): Effect.Effect<OwnAgentSettings, AgentUnavailable> =>
  Effect.gen(function* () {
    if (typeof options.state !== "string" || options.state === "")
      return yield* misconfigured("the option `state` must name a folder")
    const invitation = given(options.invitation)
    if (Result.isFailure(invitation)) return yield* misconfigured(invitation.failure)
    const { config } = yield* loadConfig<ClientConfig>({
      schema: ClientConfig,
      file: undefined,
      environment: {},
      flags: {
        state_folder: resolve(options.state),
        server: options.server?.replace(/\/+$/, ""),
        name: options.name,
        proxy: options.proxy,
        "tor.mode": options.tor
      }
    }).pipe(Effect.mapError(({ problems }) => misconfigured(problems.map(renderProblem).join("\n"))))
    const appearance = { visible: options.visible ?? false, edge_devices: options.edgeDevices ?? [] }
    const flaw = appearanceFlaw(appearance)
    if (flaw !== undefined)
      return yield* misconfigured(`the options \`visible\` and \`edgeDevices\`: ${flaw.reason}`)
    return {
      config,
      invitation: invitation.success,
      appearance: { visible: appearance.visible, edgeDevices: [...appearance.edge_devices] }
    }
  })
