/** Cutting a stream of bytes. */
import { Stream } from "effect"

/**
 * The first `count` bytes of a stream. It is cut only when more comes: one that ends by itself is read to its end, so that a
 * connection it came over can serve again.
 */
export const firstBytes = <E, R>(
  bytes: Stream.Stream<Uint8Array, E, R>,
  count: number
): Stream.Stream<Uint8Array, E, R> =>
  bytes.pipe(
    Stream.mapAccum(
      () => count,
      (left, block: Uint8Array) =>
        [
          Math.max(left - block.length, 0),
          [{ block: block.subarray(0, left), isOver: block.length > left }]
        ] as const
    ),
    Stream.takeUntil(({ isOver }) => isOver),
    Stream.map(({ block }) => block)
  )
