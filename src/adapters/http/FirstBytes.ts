/** Cutting a stream of bytes. */
import { Stream } from "effect"

/** The first `count` bytes of a stream, at least one; what follows is not asked for any more. */
export const firstBytes = <E, R>(
  bytes: Stream.Stream<Uint8Array, E, R>,
  count: number
): Stream.Stream<Uint8Array, E, R> =>
  bytes.pipe(
    Stream.mapAccum(
      () => count,
      (left, block: Uint8Array) =>
        [
          left - block.length,
          left <= 0 ? [] : [{ block: block.subarray(0, left), isLast: block.length >= left }]
        ] as const
    ),
    Stream.takeUntil(({ isLast }) => isLast),
    Stream.map(({ block }) => block)
  )
