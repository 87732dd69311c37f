/**
 * What tor tells of the descriptors of our services (control-spec, 4.1.25, HS_DESC) and of their circuits (4.1.1): whether
 * clients can find them, and how many are there.
 *
 * @module
 */
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
  /** Uploads of which tor has not told the end. */
  readonly open: number
}

const unpublished: Track = { state: "off", uploads: 0, failures: 0, uploadedAtMs: null, open: 0 }

/** After an upload failed: nothing is lost while one stands, and nothing decided while another is under way. */
const afterFailure = (track: Track): DescriptorState =>
  track.state === "published" ? "published" : track.open > 1 ? "uploading" : "failed"

const afterUpload = (track: Track, action: string, nowMs: number): Track => {
  if (track.state === "off") return track
  switch (action) {
    case "UPLOAD":
      return {
        ...track,
        open: track.open + 1,
        state: track.state === "published" ? "published" : "uploading"
      }
    case "UPLOADED":
      return {
        open: Math.max(0, track.open - 1),
        state: "published",
        uploads: track.uploads + 1,
        failures: track.failures,
        uploadedAtMs: nowMs
      }
    case "FAILED":
      return {
        ...track,
        open: Math.max(0, track.open - 1),
        state: afterFailure(track),
        failures: track.failures + 1
      }
    default:
      return track
  }
}

/** Follows the descriptors of the services with these hosts. */
export class Descriptors {
  private readonly tracks = new Map<string, Track>()
  private readonly nowMs: () => number

  constructor(hosts: ReadonlyArray<string>, nowMs: () => number) {
    this.nowMs = nowMs
    for (const host of hosts) this.tracks.set(host, unpublished)
  }

  /** The text of an HS_DESC event. Those of other services are not ours to count. */
  take(text: string): void {
    const [action = "", address = ""] = controlWords(text).words
    const host = `${address}.onion`
    const track = this.tracks.get(host)
    if (track !== undefined) this.tracks.set(host, afterUpload(track, action, this.nowMs()))
  }

  /** tor was told to publish a service, or not to. */
  wanted(host: string, isWanted: boolean): void {
    const track = this.tracks.get(host)
    if (track === undefined || (track.state !== "off") === isWanted) return
    this.tracks.set(host, { ...track, open: 0, state: isWanted ? "waiting" : "off" })
  }

  of(host: string): DescriptorFigures {
    return this.tracks.get(host) ?? unpublished
  }
}

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
