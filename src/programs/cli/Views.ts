/**
 * What commands show of devices and jobs, as JSON and as lines. Text from devices and servers is escaped here.
 *
 * @module
 */
import type { DeviceRecord } from "../../adapters/operator/Records.ts"
import { conditionLine } from "../../schemas/Conditions.ts"
import type { HealthReport } from "../../schemas/Health.ts"
import type { DeviceView } from "../../schemas/ManagementApi.ts"
import { blockedTexts } from "../../schemas/Refusals.ts"
import { shortId, showAge, showDuration, showSize, visible } from "./Text.ts"

/** A device as server and device book see it, side by side. */
export interface KnownDevice {
  readonly view: DeviceView | undefined
  readonly record: DeviceRecord | undefined
  readonly alarms: ReadonlyArray<string>
}

/** The name the operator gave, else the one the device wishes for. */
export const deviceName = ({ record, view }: KnownDevice): string => record?.name ?? view?.name ?? "-"

const deviceId = ({ record, view }: KnownDevice): string => record?.device ?? view?.device ?? "-"

export const blockedText = (code: string): string =>
  code in blockedTexts ? blockedTexts[code as keyof typeof blockedTexts] : visible(code)

export const deviceJson = (device: KnownDevice) => ({
  device: deviceId(device),
  name: deviceName(device),
  status: device.view?.status ?? "missing",
  in_device_book: device.record?.status ?? null,
  online: device.view?.online ?? false,
  enrolled_at_ms: device.view?.enrolled_at_ms ?? null,
  last_seen_at_ms: device.view?.last_seen_at_ms ?? null,
  blocked: device.view?.blocked ?? null,
  high_water: device.view?.high_water ?? null,
  last_receipt: device.view?.last_receipt ?? null,
  last_receipt_verified: device.record?.last_receipt?.number ?? null,
  alarms: device.alarms
})

export const deviceTableHeader = ["NAME", "ID", "STATUS", "ONLINE", "SEEN", "TAKES WORK", "RECEIPTS"] as const

export const deviceRow = (device: KnownDevice, nowMs: number): ReadonlyArray<string> => {
  const { record, view } = device
  const seen = view?.last_seen_at_ms
  return [
    visible(deviceName(device)),
    shortId(deviceId(device)),
    view?.status ?? "missing",
    view?.online === true ? "yes" : "no",
    seen === null || seen === undefined ? "never" : showAge(seen, nowMs),
    view?.blocked === null || view === undefined
      ? view?.status === "accepted"
        ? "yes"
        : "no"
      : visible(view.blocked),
    `${record?.last_receipt?.number ?? 0}/${view?.last_receipt ?? 0}`
  ]
}

const figure = (value: number | null, show: (value: number) => string): string =>
  value === null ? "unknown" : show(value)

/** A health report as lines. */
export const healthLines = (
  report: HealthReport,
  nowMs: number
): ReadonlyArray<readonly [string, string]> => [
  ["reported", showAge(report.at_ms, nowMs)],
  ["host", visible(`${report.hostname}, ${report.kernel}, ${report.architecture}`)],
  ["software", visible(`${report.software}, Node ${report.node}`)],
  [
    "up",
    `${figure(report.uptime_s, (seconds) => showDuration(seconds * 1000))}, program ${showDuration(report.process_uptime_s * 1000)}`
  ],
  ["load", figure(report.load_1m, (load) => load.toFixed(2))],
  [
    "memory",
    `${figure(report.memory_available_bytes, showSize)} free of ${figure(report.memory_total_bytes, showSize)}, program ${showSize(report.process_memory_bytes)}`
  ],
  [
    "disk",
    `${figure(report.disk_free_bytes, showSize)} free of ${figure(report.disk_total_bytes, showSize)}`
  ],
  ["temperature", figure(report.temperature_celsius, (degrees) => `${degrees.toFixed(1)} °C`)],
  [
    "work",
    `${report.work.succeeded} succeeded, ${report.work.failed} failed, ${report.work.rejected} rejected`
  ],
  ["outbox", `${report.work.outbox_items} items, ${showSize(report.work.outbox_bytes)}`],
  ...report.degraded.map((entry) => ["degraded", visible(conditionLine(entry))] as const)
]
