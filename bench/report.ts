/** Results as people read them: aligned, each peer with its ratio, each aim with whether this run met it. */
import type { Aim, Peer, Result } from "./measure.ts"

/** Whether a ratio is as it should be. */
export const isMet = (ratio: number, aim: Aim): boolean =>
  "atLeast" in aim ? ratio >= aim.atLeast : ratio <= aim.atMost

/** Three digits for small figures, whole numbers for large ones. */
const figure = (value: number): string =>
  Math.abs(value) < 1000
    ? value.toLocaleString("en", { maximumSignificantDigits: 3 })
    : Math.round(value).toLocaleString("en")

/** A peer's aim in words. */
export const aimText = (aim: Aim): string =>
  "atLeast" in aim ? `at least ${figure(aim.atLeast)}` : `at most ${figure(aim.atMost)}`

type Row = readonly [name: string, value: string, unit: string, note: string]

const aimNote = ({ aim, ratio }: Peer): string =>
  aim === undefined ? "" : `   aim: ${aimText(aim)}, ${isMet(ratio, aim) ? "met" : "not met"}`

const rowsOf = (result: Result): ReadonlyArray<Row> => [
  [result.name, figure(result.value), result.unit, `(${result.better} is better)`],
  ...result.peers.map(
    (peer): Row => [
      `  ${peer.name}`,
      figure(peer.value),
      result.unit,
      `ratio ${peer.ratio.toFixed(2).padStart(6)}${aimNote(peer)}`
    ]
  ),
  ...(result.parts ?? []).map(
    (part): Row => [
      `  of it: ${part.name}`,
      figure(part.value),
      result.unit,
      `${Math.round((part.value / result.value) * 100)} %`.padStart("ratio 123.45".length)
    ]
  )
]

/** All figures of a bench. */
export const table = (results: ReadonlyArray<Result>): string => {
  const rows = results.flatMap(rowsOf)
  const width = (column: number) => Math.max(...rows.map((row) => row[column]?.length ?? 0))
  const [names, values, units] = [width(0), width(1), width(2)]
  return rows
    .map(([name, value, unit, note]) =>
      `${name.padEnd(names)}  ${value.padStart(values)} ${unit.padEnd(units)}  ${note}`.trimEnd()
    )
    .join("\n")
}

/** One line on all aims of a run; those missed are named. Noise misses an aim now and then, so it is no failure. */
export const aimsSummary = (results: ReadonlyArray<Result>): string => {
  const aims = results.flatMap((result) =>
    result.peers.flatMap(({ aim, name, ratio }) =>
      aim === undefined
        ? []
        : [
            {
              met: isMet(ratio, aim),
              text: `${result.name}: ${ratio.toFixed(2)} x ${name}, wanted ${aimText(aim)}`
            }
          ]
    )
  )
  if (aims.length === 0) return "no aims were measured"
  const missed = aims.filter(({ met }) => !met)
  const head = `${aims.length - missed.length} of ${aims.length} aims met in this run`
  return missed.length === 0
    ? head
    : [`${head}; not met:`, ...missed.map(({ text }) => `  ${text}`)].join("\n")
}
