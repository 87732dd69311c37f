/**
 * What commands show of a device's health. Text from devices is escaped here.
 *
 * @module
 */
import { conditionLine } from "../../schemas/Conditions.ts"
import type {
  HealthReport,
  HealthSample,
  NetworkAdapter,
  ProcessFigure,
  SeriesFigure
} from "../../schemas/Health.ts"
import { showAge, showDuration, showSize, visible } from "./Text.ts"

type Lines = ReadonlyArray<readonly [string, string]>

const figure = (value: number | null, show: (value: number) => string): string =>
  value === null ? "unknown" : show(value)

const adapterText = (adapter: NetworkAdapter): string => {
  const errors = (adapter.receive_errors ?? 0) + (adapter.send_errors ?? 0)
  return [
    `${adapter.name} ${adapter.up ? "up" : "down"}`,
    adapter.addresses.join(" "),
    `${figure(adapter.received_bytes, showSize)} in, ${figure(adapter.sent_bytes, showSize)} out`,
    ...(errors === 0 ? [] : [`${errors} errors`])
  ]
    .filter((part) => part !== "")
    .join(", ")
}

const processText = (all: ReadonlyArray<ProcessFigure>): string =>
  all.map(({ memory_bytes, name, pid }) => `${name} (${pid}) ${showSize(memory_bytes)}`).join(", ")

const linkLines = ({ link }: HealthReport, nowMs: number): Lines => [
  [
    "network",
    link.layer === "ok"
      ? "good"
      : `${link.layer} for ${showDuration(Math.max(0, nowMs - link.since_at_ms))}: ${visible(link.detail)}`
  ],
  ...(link.last_outage === null
    ? []
    : ([
        [
          "last outage",
          `${link.last_outage.layer} for ${showDuration(link.last_outage.until_at_ms - link.last_outage.from_at_ms)}, until ${showAge(link.last_outage.until_at_ms, nowMs)}`
        ]
      ] as const))
]

const machineLines = (report: HealthReport): Lines => {
  const { identity } = report
  const board = [identity.model, identity.serial === null ? null : `serial ${identity.serial}`]
  return [
    [
      "host",
      visible(`${report.hostname}, ${report.system ?? "Linux"}, ${report.kernel}, ${report.architecture}`)
    ],
    ...(identity.model === null && identity.serial === null
      ? []
      : ([["machine", visible(board.filter((part) => part !== null).join(", "))]] as const)),
    ["software", visible(`${report.software}, Node ${report.node}`)],
    [
      "jail",
      visible(report.jail === null ? "none, or not checked yet" : `${report.jail}, ${report.isolation}`)
    ],
    ["settings", report.settings_digest.slice(0, 19)]
  ]
}

/** A health report as lines. */
export const healthLines = (report: HealthReport, nowMs: number): Lines => [
  ["reported", showAge(report.at_ms, nowMs)],
  ...machineLines(report),
  [
    "up",
    `${figure(report.uptime_s, (seconds) => showDuration(seconds * 1000))}, program ${showDuration(report.process_uptime_s * 1000)}`
  ],
  [
    "load",
    `${[report.load_1m, report.load_5m, report.load_15m].map((load) => figure(load, (value) => value.toFixed(2))).join(" ")} on ${report.processors} processors`
  ],
  [
    "memory",
    `${figure(report.memory_available_bytes, showSize)} free of ${figure(report.memory_total_bytes, showSize)}, program ${showSize(report.process_memory_bytes)}`
  ],
  [
    "disk",
    `${figure(report.disk_free_bytes, showSize)} free of ${figure(report.disk_total_bytes, showSize)}`
  ],
  ["temperature", figure(report.temperature_celsius, (degrees) => `${degrees.toFixed(1)} °C`)],
  ...report.adapters.map((adapter) => ["adapter", visible(adapterText(adapter))] as const),
  ...linkLines(report, nowMs),
  [
    "processes",
    `${figure(report.processes.count, String)}; largest: ${visible(processText(report.processes.largest))}`
  ],
  ["", `own: ${visible(processText(report.processes.own))}`],
  ...report.processes.required
    .filter(({ running }) => !running)
    .map(({ name }) => ["", `missing: ${visible(name)}`] as const),
  [
    "work",
    `${report.work.succeeded} succeeded, ${report.work.failed} failed, ${report.work.rejected} rejected; ${report.work.polls} polls, ${report.work.poll_failures} failed`
  ],
  ["outbox", `${report.work.outbox_items} items, ${showSize(report.work.outbox_bytes)}`],
  ...report.degraded.map((entry) => ["degraded", visible(conditionLine(entry))] as const)
]

const shown: ReadonlyArray<readonly [label: string, name: SeriesFigure, show: (value: number) => string]> = [
  ["load", "load_1m", (value) => value.toFixed(2)],
  ["memory free", "memory_available_bytes", showSize],
  ["program", "process_memory_bytes", showSize],
  ["disk free", "disk_free_bytes", showSize],
  ["temperature", "temperature_celsius", (value) => `${value.toFixed(1)} °C`],
  ["outbox", "outbox_bytes", showSize]
]

const bars = "▁▂▃▄▅▆▇█"

/** Values as a row of bars from the lowest to the highest; a blank where there is none. */
export const sparkline = (values: ReadonlyArray<number | null>): string => {
  const known = values.filter((value) => value !== null)
  const low = Math.min(...known)
  const span = Math.max(...known) - low
  const bar = (value: number) =>
    bars[span === 0 ? 0 : Math.min(Math.floor(((value - low) / span) * bars.length), bars.length - 1)]
  return values.map((value) => (value === null ? " " : bar(value))).join("")
}

/** Each figure over time, oldest first: lowest to highest, and its course. Figures that are never told are left out. */
export const seriesLines = (samples: ReadonlyArray<HealthSample>): Lines =>
  shown.flatMap(([label, name, show]) => {
    const values = samples.map((sample) => sample[name])
    const known = values.filter((value) => value !== null)
    if (known.length === 0) return []
    return [
      [label, `${show(Math.min(...known))} to ${show(Math.max(...known))}  ${sparkline(values)}`] as const
    ]
  })
