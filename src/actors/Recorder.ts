/** The recorder: see its protocol. */
import { Effect } from "effect"
import { Behaviour } from "../kernel/index.ts"
import { FleetStore } from "../ports/FleetStore.ts"
import { RecorderProtocol } from "../schemas/protocols/Recorder.ts"

export const recorder = Behaviour.make(RecorderProtocol, (context) =>
  Effect.map(FleetStore, (store) =>
    context.handlers({
      Health: ({ payload }) =>
        store
          .addHealth(payload.device, payload.report, payload.receivedAtMs)
          .pipe(
            Effect.catch((error) =>
              Effect.logWarning(`a health report was not kept: ${error.reason}`).pipe(
                Effect.annotateLogs({ device: payload.device })
              )
            )
          )
    })
  )
)
