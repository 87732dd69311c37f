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

type State =
  | { readonly _tag: "Header" }
  | { readonly _tag: "Content"; missing: number; readonly padding: number }
  | { readonly _tag: "Padding"; missing: number }
  | { readonly _tag: "PaxContent"; missing: number; readonly padding: number }
  | { readonly _tag: "End"; seen: number }

/** Begins to read an archive. */
export const tarReader = (): TarReader => {
  let state: State = { _tag: "Header" }
  let held = new Uint8Array(0)
  let pax: Uint8Array = new Uint8Array(0)
  let paxPath: string | undefined
  let afterPax = false

  const afterContent = (padding: number): State =>
    padding === 0 ? { _tag: "Header" } : { _tag: "Padding", missing: padding }

  const takeHeader = (block: Uint8Array, events: Array<TarEvent>): void => {
    if (isZero(block)) {
      if (afterPax) throw new TarRefused("a pax header stands before the end")
      state = { _tag: "End", seen: tarBlockBytes }
      return
    }
    const header = readTarHeader(block, paxPath)
    if (header._tag === "Pax") {
      if (afterPax) throw new TarRefused("a pax header follows another")
      pax = new Uint8Array(0)
      state = { _tag: "PaxContent", missing: header.sizeBytes, padding: tarPadding(header.sizeBytes) }
      return
    }
    paxPath = undefined
    afterPax = false
    events.push({ _tag: "Entry", entry: header })
    if (header.sizeBytes > 0) {
      state = { _tag: "Content", missing: header.sizeBytes, padding: tarPadding(header.sizeBytes) }
    } else {
      events.push({ _tag: "EntryEnd" })
    }
  }

  /** Handles what it can at the start of `bytes`; gives how many it used. */
  const step = (bytes: Uint8Array, events: Array<TarEvent>): number => {
    switch (state._tag) {
      case "Header": {
        if (held.length + bytes.length < tarBlockBytes) {
          held = concatBytes(held, bytes) as Uint8Array<ArrayBuffer>
          return bytes.length
        }
        const used = tarBlockBytes - held.length
        const block = held.length === 0 ? bytes.subarray(0, used) : concatBytes(held, bytes.subarray(0, used))
        held = new Uint8Array(0)
        takeHeader(block, events)
        return used
      }
      case "Content": {
        const data = bytes.subarray(0, state.missing)
        events.push({ _tag: "Data", bytes: data })
        state.missing -= data.length
        if (state.missing === 0) {
          events.push({ _tag: "EntryEnd" })
          state = afterContent(state.padding)
        }
        return data.length
      }
      case "PaxContent": {
        const data = bytes.subarray(0, state.missing)
        pax = concatBytes(pax, data)
        state.missing -= data.length
        if (state.missing === 0) {
          paxPath = readPaxPath(pax)
          afterPax = true
          state = afterContent(state.padding)
        }
        return data.length
      }
      case "Padding": {
        const data = bytes.subarray(0, state.missing)
        if (!isZero(data)) throw new TarRefused("there are bytes between two entries")
        state.missing -= data.length
        if (state.missing === 0) state = { _tag: "Header" }
        return data.length
      }
      case "End": {
        state.seen += bytes.length
        if (!isZero(bytes) || state.seen > maximumTrailingBytes)
          throw new TarRefused("there are bytes behind the end")
        return bytes.length
      }
    }
  }

  return {
    push: (bytes) => {
      const events: Array<TarEvent> = []
      let offset = 0
      while (offset < bytes.length) offset += step(bytes.subarray(offset), events)
      return events
    },
    isComplete: () =>
      state._tag === "End" && state.seen >= 2 * tarBlockBytes && state.seen % tarBlockBytes === 0
  }
}
