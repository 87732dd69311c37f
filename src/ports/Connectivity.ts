/** How far the way to the server is good. It only looks: whatever it finds, the device goes on polling. */
import type { Effect } from "effect"
import { Context } from "effect"
import type { LinkFinding } from "../schemas/Connectivity.ts"

export class Connectivity extends Context.Service<
  Connectivity,
  {
    /**
     * Looks at each layer from the bottom up and tells the first that fails. `servers` are the origins a server has
     * (`https://postern.example`). Costs a connection or two, ends within {@link connectivityWithinMs}, never fails.
     */
    readonly look: (servers: ReadonlyArray<string>) => Effect.Effect<LinkFinding>
    /** Whether reference hosts are configured: then it is worth looking while the server is reached, too. */
    readonly hasReferences: boolean
  }
>()("postern/ports/Connectivity") {}

/** The longest a look may take. */
export const connectivityWithinMs = 15_000
