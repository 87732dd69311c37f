/** Files to pack: seven of eight are lines of a sensor's log, one is noise that does not compress, as pictures are. */
import { randomFillSync } from "node:crypto"
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs"
import { join } from "node:path"

export const mebibyte = 1024 * 1024
const fileMiB = 4

/** A mebibyte of lines; figures and times differ from line to line. */
const logLines = (seed: number): Buffer => {
  const block = Buffer.alloc(mebibyte)
  let state = seed + 1
  const chance = (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  let at = 0
  for (let line = 0; at < block.length; line++) {
    const time = new Date(1_790_000_000_000 + seed * 1e9 + line * 250 + chance(200)).toISOString()
    const reading = `temperature=${(15 + chance(1_000) / 100).toFixed(2)} humidity=${chance(100)}`
    at += block.write(`${time} sensor-${chance(16)} ${reading} battery=${chance(100)} ok\n`, at)
  }
  return block
}

/** Fills a folder with so many MiB in files of 4 MiB each. */
export const writeContent = (folder: string, sizeMiB: number): void => {
  mkdirSync(folder, { recursive: true })
  const noise = Buffer.alloc(mebibyte)
  for (let file = 0; file < sizeMiB / fileMiB; file++) {
    const handle = openSync(join(folder, `file-${String(file).padStart(4, "0")}`), "w")
    for (let part = 0; part < fileMiB; part++) {
      const isNoise = file % 8 === 7
      writeSync(handle, isNoise ? randomFillSync(noise) : logLines(file * fileMiB + part))
    }
    closeSync(handle)
  }
}
