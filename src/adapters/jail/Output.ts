/** The output of a job: read from its pipes, counted, cut at the limit, handed on in order. */
import { closeSync, constants, openSync } from "node:fs"
import { Socket } from "node:net"
import type { Scope } from "effect"
import { Effect, Semaphore } from "effect"
import { ScratchError } from "./Scratch.ts"

export type OutputStream = "stdout" | "stderr"

export interface OutputCount {
  readonly seen_bytes: number
  readonly kept_bytes: number
}

export interface OutputSummary {
  readonly stdout: OutputCount
  readonly stderr: OutputCount
  readonly truncated: boolean
  /** The last bytes of stderr as text: where bubblewrap says why it could not begin. */
  readonly lastWords: string
}

export interface OutputReader {
  /** Reads both pipes until nobody can write any more. To be run once. */
  readonly drain: Effect.Effect<OutputSummary>
}

const lastWordsBytes = 512

/** Opens a named pipe for reading without waiting for a writer. */
const openPipe = (path: string): Effect.Effect<Socket, ScratchError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
        try {
          const pipe = new Socket({ fd: descriptor, readable: true, writable: false })
          pipe.pause()
          return pipe
        } catch (error) {
          closeSync(descriptor)
          throw error
        }
      },
      catch: (error) => new ScratchError({ detail: `opening the job's output: ${String(error)}` })
    }),
    (pipe) => Effect.sync(() => pipe.destroy())
  )

/** The next piece, or null at the end (an error of reading is an end too: the pipe is gone). */
const nextPiece = (pipe: Socket): Effect.Effect<Buffer | null> =>
  Effect.callback((resume) => {
    const settle = (piece: Buffer | null) => {
      pipe.off("readable", look)
      pipe.off("end", finish)
      pipe.off("close", finish)
      resume(Effect.succeed(piece))
    }
    const look = () => {
      const piece = pipe.read() as Buffer | null
      if (piece !== null) settle(piece)
    }
    const finish = () => settle(null)
    if (pipe.destroyed || pipe.readableEnded) return finish()
    pipe.on("readable", look)
    pipe.on("end", finish)
    pipe.on("close", finish)
    look()
    return Effect.sync(() => {
      pipe.off("readable", look)
      pipe.off("end", finish)
      pipe.off("close", finish)
    })
  })

interface Tally {
  left: number
  truncated: boolean
}

const pump = (
  stream: OutputStream,
  pipe: Socket,
  tally: Tally,
  hand: (stream: OutputStream, bytes: Uint8Array) => Effect.Effect<void>
): Effect.Effect<OutputCount & { readonly last: Buffer }> =>
  Effect.gen(function* () {
    let seen = 0
    let kept = 0
    let last: Buffer = Buffer.alloc(0)
    for (;;) {
      const piece = yield* nextPiece(pipe)
      if (piece === null) return { seen_bytes: seen, kept_bytes: kept, last }
      seen += piece.length
      last = piece.length >= lastWordsBytes ? piece : Buffer.concat([last, piece])
      last = last.subarray(Math.max(0, last.length - lastWordsBytes))
      const keep = Math.min(piece.length, tally.left)
      tally.left -= keep
      kept += keep
      if (keep < piece.length) tally.truncated = true
      if (keep > 0) yield* hand(stream, new Uint8Array(piece.subarray(0, keep)))
    }
  })

/**
 * Opens the job's two pipes. What comes after `maximumBytes` (of both together) is read and thrown away: a job is
 * neither killed nor stopped for talking too much. Closing the scope lets go of the pipes.
 *
 * @param folder where `stdout` and `stderr` stand
 */
export const openOutput = (
  folder: string,
  maximumBytes: number,
  onOutput: (stream: OutputStream, bytes: Uint8Array) => Effect.Effect<void>
): Effect.Effect<OutputReader, ScratchError, Scope.Scope> =>
  Effect.gen(function* () {
    const stdout = yield* openPipe(`${folder}/stdout`)
    const stderr = yield* openPipe(`${folder}/stderr`)
    for (const pipe of [stdout, stderr]) pipe.on("error", () => undefined)
    const oneAtATime = yield* Semaphore.make(1)
    const tally: Tally = { left: maximumBytes, truncated: false }
    const hand = (stream: OutputStream, bytes: Uint8Array) => oneAtATime.withPermit(onOutput(stream, bytes))
    const drain = Effect.all([pump("stdout", stdout, tally, hand), pump("stderr", stderr, tally, hand)], {
      concurrency: 2
    }).pipe(
      Effect.map(([out, err]) => ({
        stdout: { seen_bytes: out.seen_bytes, kept_bytes: out.kept_bytes },
        stderr: { seen_bytes: err.seen_bytes, kept_bytes: err.kept_bytes },
        truncated: tally.truncated,
        lastWords: err.last.toString("utf8")
      }))
    )
    return { drain }
  })
