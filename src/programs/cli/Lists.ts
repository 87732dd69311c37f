/**
 * Whole lists of what a server shows, page by page.
 *
 * @module
 */
import { Effect } from "effect"
import { ManagementClient } from "../../adapters/operator/ManagementClient.ts"
import type { Name } from "../../schemas/Ids.ts"
import type { DeviceView, JobView } from "../../schemas/ManagementApi.ts"
import type { JobQuery } from "../../schemas/ManagementViews.ts"
import type { AgentView } from "../../schemas/MessagingViews.ts"

/** Pages asked for at the most: a server that never comes to an end is not followed for ever. */
const maximumPages = 1_000

interface Page<A> {
  readonly items: ReadonlyArray<A>
  readonly next: string | null
}

const all = <A, E, R>(page: (after: string | undefined) => Effect.Effect<Page<A>, E, R>) =>
  Effect.gen(function* () {
    const items: Array<A> = []
    let after: string | undefined
    for (let count = 0; count < maximumPages; count++) {
      const found = yield* page(after)
      items.push(...found.items)
      if (found.next === null) break
      after = found.next
    }
    return items as ReadonlyArray<A>
  })

/** All devices, or all of one status. */
export const allDevices = (status?: DeviceView["status"]) =>
  Effect.flatMap(ManagementClient, (client) =>
    all((after) =>
      Effect.map(
        client.call("list the devices", (api) => api.devices.list({ query: { status, after } })),
        ({ devices, next }): Page<DeviceView> => ({ items: devices, next })
      )
    )
  )

/** All agents, or all of one status. */
export const allAgents = (status?: AgentView["status"]) =>
  Effect.flatMap(ManagementClient, (client) =>
    all((after) =>
      Effect.map(
        client.call("list the agents", (api) =>
          api.messaging.agents({ query: { status, after: after as Name | undefined } })
        ),
        ({ agents, next }): Page<AgentView> => ({ items: agents, next })
      )
    )
  )

/** All jobs that fit. */
export const allJobs = (query: Omit<JobQuery, "after">) =>
  Effect.flatMap(ManagementClient, (client) =>
    all((after) =>
      Effect.map(
        client.call("list the jobs", (api) => api.jobs.list({ query: { ...query, after } })),
        ({ jobs, next }): Page<JobView> => ({ items: jobs, next })
      )
    )
  )
