/**
 * Reads a tar archive piece by piece, however it is cut, and strictly: see `TarHeader`. Pure; holds one block.
 *
 * @module
 */
import { concatBytes } from "../../crypto/Bytes.ts"
import {
  readPaxPath,
  readTarHeader,
  type TarEntry,
  TarRefused,
  tarBlockBytes,
  tarPadding
} from "./TarHeader.ts"

/** What comes out, in the archive's order: an entry, then its data in pieces, then its end. */
export type TarEvent =
  | { readonly _tag: "Entry"; readonly entry: TarEntry }
  | { readonly _tag: "Data"; readonly bytes: Uint8Array }
  | { readonly _tag: "EntryEnd" }

export interface TarReader {
  /**
   * Takes bytes of the archive, gives what they complete. Data are views of the input.
   *
   * @throws TarRefused
   */
  readonly push: (bytes: Uint8Array) => ReadonlyArray<TarEvent>
  /** Whether the archive has come to its end; false means it was cut off. */
  readonly isComplete: () => boolean
}

/** Writers fill up the last record with zeros: 20 blocks is what everybody writes. */
const maximumTrailingBytes = 20 * tarBlockBytes

const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)

/** Where in the archive the reader is. `missing` bytes of the current part are still to come. */
type State =
  | { readonly _tag: "Header" }
  | { readonly _tag: "Content"; missing: number; readonly padding: number }
  | { readonly _tag: "Padding"; missing: number }
  | { readonly _tag: "PaxContent"; missing: number; readonly padding: number }
  | { readonly _tag: "End"; seen: number }

const nothing: Uint8Array = new Uint8Array(0)

const afterContent = (padding: number): State =>
  padding === 0 ? { _tag: "Header" } : { _tag: "Padding", missing: padding }

class Reader implements TarReader {
  private state: State = { _tag: "Header" }
  /** Of a header that was cut in two. */
  private held = nothing
  private pax = nothing
  private paxPath: string | undefined = undefined
  private isAfterPax = false

  push(bytes: Uint8Array): ReadonlyArray<TarEvent> {
    const events: Array<TarEvent> = []
    let offset = 0
    while (offset < bytes.length) offset += this.step(bytes.subarray(offset), events)
    return events
  }

  isComplete(): boolean {
    const { state } = this
    return state._tag === "End" && state.seen >= 2 * tarBlockBytes && state.seen % tarBlockBytes === 0
  }

  /** Handles what it can at the start of `bytes`; gives how many it used. */
  private step(bytes: Uint8Array, events: Array<TarEvent>): number {
    const { state } = this
    switch (state._tag) {
      case "Header":
        return this.collectHeader(bytes, events)
      case "End":
        state.seen += bytes.length
        if (!isZero(bytes) || state.seen > maximumTrailingBytes) {
          throw new TarRefused("there are bytes behind the end")
        }
        return bytes.length
      default: {
        const part = bytes.subarray(0, state.missing)
        state.missing -= part.length
        this.takePart(state, part, events)
        return part.length
      }
    }
  }

  private collectHeader(bytes: Uint8Array, events: Array<TarEvent>): number {
    const used = tarBlockBytes - this.held.length
    if (bytes.length < used) {
      this.held = concatBytes(this.held, bytes)
      return bytes.length
    }
    const part = bytes.subarray(0, used)
    const block = this.held.length === 0 ? part : concatBytes(this.held, part)
    this.held = nothing
    this.takeHeader(block, events)
    return used
  }

  private takeHeader(block: Uint8Array, events: Array<TarEvent>): void {
    if (isZero(block)) {
      if (this.isAfterPax) throw new TarRefused("a pax header stands before the end")
      this.state = { _tag: "End", seen: tarBlockBytes }
      return
    }
    const header = readTarHeader(block, this.paxPath)
    const padding = tarPadding(header.sizeBytes)
    if (header._tag === "Pax") {
      if (this.isAfterPax) throw new TarRefused("a pax header follows another")
      this.pax = nothing
      this.state = { _tag: "PaxContent", missing: header.sizeBytes, padding }
      return
    }
    this.paxPath = undefined
    this.isAfterPax = false
    events.push({ _tag: "Entry", entry: header })
    if (header.sizeBytes > 0) this.state = { _tag: "Content", missing: header.sizeBytes, padding }
    else events.push({ _tag: "EntryEnd" })
  }

  private takePart(
    state: Extract<State, { missing: number }>,
    part: Uint8Array,
    events: Array<TarEvent>
  ): void {
    const isDone = state.missing === 0
    switch (state._tag) {
      case "Content":
        events.push({ _tag: "Data", bytes: part })
        if (!isDone) return
        events.push({ _tag: "EntryEnd" })
        this.state = afterContent(state.padding)
        return
      case "PaxContent":
        this.pax = concatBytes(this.pax, part)
        if (!isDone) return
        this.paxPath = readPaxPath(this.pax)
        this.isAfterPax = true
        this.state = afterContent(state.padding)
        return
      case "Padding":
        if (!isZero(part)) throw new TarRefused("there are bytes between two entries")
        if (isDone) this.state = { _tag: "Header" }
    }
  }
}

/** Begins to read an archive. */
export const tarReader = (): TarReader => new Reader()
