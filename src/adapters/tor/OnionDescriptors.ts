/**
 * What tor tells of the descriptors of our services (control-spec, 4.1.25, HS_DESC) and of their circuits (4.1.1): whether
 * clients can find them, and how many are there.
 *
 * @module
 */
import { Effect } from "effect"
import type { DescriptorState } from "../../schemas/OnionStatus.ts"
import { controlWords } from "./ControlReplies.ts"

/** How the descriptor of one service is. */
export interface DescriptorFigures {
  readonly state: DescriptorState
  /** Confirmed and failed since this tor was taken up. */
  readonly uploads: number
  readonly failures: number
  readonly uploadedAtMs: number | null
}

interface Track extends DescriptorFigures {
  /** Uploads of which tor has not told the end, and how many of the same go were confirmed. */
  readonly open: number
  readonly confirmed: number
}

const unpublished: Track = {
  state: "off",
  uploads: 0,
  failures: 0,
  uploadedAtMs: null,
  open: 0,
  confirmed: 0
}

/** A go ends with the last of its uploads: it failed when none was confirmed, whatever stands from an earlier one. */
const afterEnd = (track: Track): Track =>
  track.open > 0 ? track : { ...track, state: track.confirmed > 0 ? "published" : "failed" }

const afterEvent = (track: Track, action: string, nowMs: number): Track => {
  if (track.state === "off") return track
  const open = Math.max(0, track.open - 1)
  switch (action) {
    case "UPLOAD":
      return {
        ...track,
        open: track.open + 1,
        confirmed: track.open === 0 ? 0 : track.confirmed,
        state: track.state === "published" ? "published" : "uploading"
      }
    case "UPLOADED":
      return {
        open,
        confirmed: track.confirmed + 1,
        state: "published",
        uploads: track.uploads + 1,
        failures: track.failures,
        uploadedAtMs: nowMs
      }
    case "FAILED":
      return afterEnd({ ...track, open, failures: track.failures + 1 })
    default:
      return track
  }
}

/**
 * A descriptor's revision counts seconds. Directories refuse a second one within the same second, and tor does not try that
 * one again for an hour: so nothing is changed before this long after an upload has begun.
 */
const betweenUploadsMs = 1_500

/** Follows the descriptors of the services with these hosts. */
export class Descriptors {
  private readonly tracks = new Map<string, Track>()
  private uploadedAt = Number.NEGATIVE_INFINITY

  constructor(hosts: ReadonlyArray<string>) {
    for (const host of hosts) this.tracks.set(host, unpublished)
  }

  /** The text of an HS_DESC event. Those of other services are not ours to count. Gives the host whose go has failed. */
  take(text: string): string | null {
    const [action = "", address = ""] = controlWords(text).words
    const host = `${address}.onion`
    const before = this.tracks.get(host)
    if (before === undefined) return null
    if (action === "UPLOAD") this.uploadedAt = performance.now()
    const track = afterEvent(before, action, Date.now())
    this.tracks.set(host, track)
    return action === "FAILED" && track.state === "failed" ? host : null
  }

  /** tor was told to publish a service, or not to. */
  wanted(host: string, isWanted: boolean): void {
    const track = this.tracks.get(host)
    if (track === undefined || (track.state !== "off") === isWanted) return
    this.tracks.set(host, { ...track, open: 0, confirmed: 0, state: isWanted ? "waiting" : "off" })
  }

  of(host: string): DescriptorFigures {
    return this.tracks.get(host) ?? unpublished
  }

  /** How long a change has to wait, unless another upload begins meanwhile. */
  get waitMs(): number {
    return Math.max(0, this.uploadedAt + betweenUploadsMs - performance.now())
  }
}

/**
 * Waits until nothing has begun to be uploaded for long enough. What begins meanwhile is waited for as well: the descriptors
 * of this period and of the next are uploaded when each is ready. After so many turns uploads do not end, and a change may
 * be one more.
 */
export const untilQuiet = (descriptors: Descriptors, turns = 8): Effect.Effect<void> =>
  Effect.suspend(() => {
    const waitMs = Math.ceil(descriptors.waitMs)
    return waitMs === 0 || turns === 0
      ? Effect.void
      : Effect.andThen(Effect.sleep(waitMs), untilQuiet(descriptors, turns - 1))
  })

/** Circuits that a service has. */
export interface CircuitFigures {
  readonly introductionPoints: number
  readonly circuits: number
}

/** Counts, in an answer to `GETINFO circuit-status`, the established circuits of each host. */
export const countCircuits = (status: string): ReadonlyMap<string, CircuitFigures> => {
  const counts = new Map<string, { introductionPoints: number; circuits: number }>()
  for (const line of status.split("\n")) {
    const { fields } = controlWords(line)
    const state = fields["HS_STATE"]
    const query = fields["REND_QUERY"]
    if (query === undefined || (state !== "HSSI_ESTABLISHED" && state !== "HSSR_JOINED")) continue
    const host = `${query}.onion`
    const count = counts.get(host) ?? { introductionPoints: 0, circuits: 0 }
    if (state === "HSSI_ESTABLISHED") count.introductionPoints++
    else count.circuits++
    counts.set(host, count)
  }
  return counts
}
