/**
 * What commands show of devices and jobs, as JSON and as lines. Text from devices and servers is escaped here.
 *
 * @module
 */
import type { DeviceRecord } from "../../adapters/operator/Records.ts"
import type { DeviceView } from "../../schemas/ManagementApi.ts"
import { blockedTexts } from "../../schemas/Refusals.ts"
import { shortId, showAge, visible } from "./Text.ts"

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
  degraded: device.view?.degraded ?? [],
  high_water: device.view?.high_water ?? null,
  key_version: device.record?.key_version ?? 1,
  last_receipt: device.view?.last_receipt ?? null,
  last_receipt_verified: device.record?.last_receipt?.number ?? null,
  alarms: device.alarms
})

export const deviceTableHeader = [
  "NAME",
  "ID",
  "STATUS",
  "ONLINE",
  "SEEN",
  "TAKES WORK",
  "RECEIPTS",
  "DEGRADED"
] as const

/** What a device says is weaker than it should be, beyond what keeps it from taking work. */
export const degradedCodes = ({ view }: KnownDevice): ReadonlyArray<string> =>
  (view?.degraded ?? []).filter((code) => code !== view?.blocked)

/** Whether a device that says nothing of being blocked takes work; one that was never heard has not said anything. */
export const takesWork = (view: Pick<DeviceView, "status" | "last_seen_at_ms"> | undefined): string =>
  view?.status !== "accepted" ? "no" : view.last_seen_at_ms === null ? "unknown" : "yes"

export const deviceRow = (device: KnownDevice, nowMs: number): ReadonlyArray<string> => {
  const { record, view } = device
  const seen = view?.last_seen_at_ms
  return [
    visible(deviceName(device)),
    shortId(deviceId(device)),
    view?.status ?? "missing",
    view?.online === true ? "yes" : "no",
    seen === null || seen === undefined ? "never" : showAge(seen, nowMs),
    view === undefined || view.blocked === null ? takesWork(view) : visible(view.blocked),
    `${record?.last_receipt?.number ?? 0}/${view?.last_receipt ?? 0}`,
    visible(degradedCodes(device).join(" ")) || "-"
  ]
}
