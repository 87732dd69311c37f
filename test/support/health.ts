/** Health reports for tests that care about some of their members only. */
import type { HealthReport } from "../../src/schemas/Health.ts"
import type { Incarnation } from "../../src/schemas/Ids.ts"

/** A sound report of a quiet device. Later changes win. */
export const healthReport = (...changes: ReadonlyArray<Partial<HealthReport>>): HealthReport =>
  Object.assign(
    {
      version: 1 as const,
      at_ms: 0,
      uptime_s: 10,
      process_uptime_s: 5,
      load_1m: 0.5,
      load_5m: 0.4,
      load_15m: 0.3,
      processors: 4,
      memory_total_bytes: 1_000_000_000,
      memory_available_bytes: 500_000_000,
      swap_total_bytes: 0,
      swap_free_bytes: 0,
      process_memory_bytes: 60_000_000,
      disk_total_bytes: 30_000_000_000,
      disk_free_bytes: 20_000_000_000,
      disk_free_entries: 1_000_000,
      temperature_celsius: 41.5,
      adapters: [],
      processes: { count: 90, largest: [], own: [], required: [] },
      identity: {
        device: "dev_test",
        incarnation: "a".repeat(26) as Incarnation,
        machine_digest: null,
        boot: null,
        model: null,
        serial: null
      },
      hostname: "pi",
      kernel: "6.1",
      system: null,
      architecture: "arm64",
      node: "v24.0.0",
      software: "postern/0",
      jail: null,
      isolation: null,
      configuration_digest: null,
      settings_digest: "sha256:settings",
      link: { layer: "ok" as const, detail: "", since_at_ms: 0, last_outage: null },
      work: {
        succeeded: 0,
        failed: 0,
        rejected: 0,
        outbox_items: 0,
        outbox_bytes: 0,
        turns: 1,
        polls: 1,
        poll_failures: 0
      },
      blocked: null,
      degraded: []
    },
    ...changes
  )
