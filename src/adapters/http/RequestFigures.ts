/**
 * What the HTTP port does, in figures. Series are named by declared routes, never by what a request brings along, so
 * there are only so many of them.
 */
import { Context, Metric } from "effect"
import { deviceApiPath } from "../../schemas/DeviceApi.ts"
import { managementApiPath } from "../../schemas/ManagementApi.ts"
import { routeOf } from "./DeviceRoutes.ts"
import type { ApiRequest } from "./Exchange.ts"
import { declaredPath } from "./ManagementEndpoints.ts"

/** Seconds; the longest polls are held for a minute. */
const bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

const requests = Metric.counter("postern_http_requests_total", {
  incremental: true,
  description: "Answered requests, by API, route and status"
})
const durations = Metric.histogram("postern_http_request_seconds", {
  boundaries: bounds,
  description: "Time from the head of a request to its answer; polls are held on purpose"
})
const rejected = Metric.counter("postern_http_rejected_total", {
  incremental: true,
  description: "Requests turned away at once because too many were in work"
})

/** Which API and route a request is for. */
export const routeLabel = (
  head: Omit<ApiRequest, "body">
): { readonly api: string; readonly route: string } => {
  if (head.path.startsWith(deviceApiPath)) {
    return { api: "device", route: routeOf(head)?.name ?? "unknown" }
  }
  const path = head.path.startsWith("/metrics") ? `${managementApiPath}/metrics` : head.path
  const declared = declaredPath(head.method, path)
  const route = declared?.slice(managementApiPath.length) ?? (path === "/openapi.json" ? path : "unknown")
  return { api: "management", route: declared === null ? route : `${head.method} ${route}` }
}

/** Requests in work, and the bytes of their bodies. */
export interface InWork {
  readonly inWork: number
  readonly bodyBytes: number
}

export class RequestFigures {
  private readonly context: Context.Context<never>
  private readonly counters = new Map<string, Metric.Metric<number, unknown>>()
  private readonly timers = new Map<string, Metric.Metric<number, unknown>>()
  private readonly doors = new Set<() => InWork>()

  /** Counts into a registry of its own: a process may hold many servers. */
  constructor(registry: Metric.MetricRegistry) {
    this.context = Context.make(Metric.MetricRegistry, registry) as Context.Context<never>
  }

  /** Counts in what is in work at one open door, until the given function is called. */
  watch(door: () => InWork): () => void {
    this.doors.add(door)
    return () => void this.doors.delete(door)
  }

  /** At all doors together. */
  now(): InWork {
    let [inWork, bodyBytes] = [0, 0]
    for (const door of this.doors) {
      const here = door()
      inWork += here.inWork
      bodyBytes += here.bodyBytes
    }
    return { inWork, bodyBytes }
  }

  answered(head: Omit<ApiRequest, "body">, status: number, seconds: number): void {
    const { api, route } = routeLabel(head)
    const place = `${api} ${route}`
    let counter = this.counters.get(`${place} ${status}`)
    if (counter === undefined) {
      counter = Metric.withAttributes(requests, { api, route, status: String(status) })
      this.counters.set(`${place} ${status}`, counter)
    }
    counter.updateUnsafe(1, this.context)
    let timer = this.timers.get(place)
    if (timer === undefined) {
      timer = Metric.withAttributes(durations, { api, route })
      this.timers.set(place, timer)
    }
    timer.updateUnsafe(seconds, this.context)
  }

  rejected(): void {
    rejected.updateUnsafe(1, this.context)
  }
}
