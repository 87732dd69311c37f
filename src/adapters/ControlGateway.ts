/** The control socket as an actor: opened in its own life, so that a restart opens it again. */
import { Effect } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { GatewayProtocol } from "../schemas/protocols/Gateway.ts"
import { type ControlHandlers, controlSocketPath, serveControl } from "./ControlSocket.ts"

/** Listens in `stateFolder` for `postern ps` and the like on this machine. A socket in use is a failed start. */
export const controlGateway = (options: {
  readonly stateFolder: string
  readonly handlers: ControlHandlers
}) =>
  Behaviour.make(GatewayProtocol, (context) =>
    Effect.as(
      serveControl(options),
      context.handlers({
        Address: () => Effect.succeed(controlSocketPath(options.stateFolder)),
        Lost: () => context.stopSelf
      })
    )
  )
