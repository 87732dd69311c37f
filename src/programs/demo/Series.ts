/**
 * The demo's sensor series: generated, or read from a file; and the script that computes its daily statistics in the jail.
 * All pure.
 *
 * @module
 */
import { Schema } from "effect"

/** A row is not `unix_seconds,value`. */
export class BadRow extends Schema.TaggedError<BadRow>()("BadRow", {
  line: Schema.Finite,
  text: Schema.String
}) {
  override get message(): string {
    return this.text === ""
      ? `there are no rows: give one \`unix_seconds,value\` per line`
      : `line ${this.line} is not \`unix_seconds,value\`: ${JSON.stringify(this.text.slice(0, 60))}`
  }
}

/** The largest series that the demo takes, in bytes. */
export const seriesBytes = 64 * 1024 * 1024

const row = /^-?[0-9]{1,12},-?[0-9]{1,15}(?:\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,3})?$/

/** Checks every row; gives how many there are. Line ends may be `\n` or `\r\n`; the last line may be empty. */
export const checkSeries = (text: string): number | BadRow => {
  const lines = text.split("\n")
  if (lines.at(-1) === "") lines.pop()
  for (const [index, line] of lines.entries()) {
    if (!row.test(line.replace(/\r$/, "")))
      return new BadRow({ line: index + 1, text: line === "" ? "(empty)" : line })
  }
  return lines.length === 0 ? new BadRow({ line: 1, text: "" }) : lines.length
}

const intervalSeconds = 300
const days = 5
/** 2026-03-02 00:00 UTC, a Monday. */
const beginsAtSeconds = 1_772_409_600

/** A small generator of noise in -1 … 1 (xorshift), the same on every machine. */
const noise = (seed: number) => {
  let state = seed
  return (): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 31 - 1
  }
}

/** Five days of a room's temperature every five minutes: cool nights, warm afternoons, a window opened in the morning. */
export const generatedSeries = (): string => {
  const next = noise(0x9e3779b9)
  const perDay = 86_400 / intervalSeconds
  let text = ""
  for (let index = 0; index < days * perDay; index++) {
    const hour = ((index % perDay) * 24) / perDay
    const sun = 3.5 * Math.sin(((hour - 9) * Math.PI) / 12)
    const window = hour >= 8 && hour < 8.5 ? -2.5 : 0
    const drift = 0.4 * Math.floor(index / perDay)
    const value = 19.5 + drift + sun + window + 0.3 * next()
    text += `${beginsAtSeconds + index * intervalSeconds},${value.toFixed(2)}\n`
  }
  return text
}

/**
 * Daily statistics with nothing but sh and awk, which every Debian has. Days are those of UTC; the deviation is computed
 * as the rows go by (Welford), so large values lose nothing. A line per day goes to stdout as it is done.
 */
export const statisticsScript = `#!/bin/sh
set -eu
echo "reading $(wc -l < /package/series.csv) rows"
awk -F, '
  function date(day,    z, era, doe, yoe, doy, mp, d, m, y) {
    z = day + 719468; era = int((z >= 0 ? z : z - 146096) / 146097); doe = z - era * 146097
    yoe = int((doe - int(doe / 1460) + int(doe / 36524) - int(doe / 146096)) / 365)
    doy = doe - (365 * yoe + int(yoe / 4) - int(yoe / 100)); mp = int((5 * doy + 2) / 153)
    d = doy - int((153 * mp + 2) / 5) + 1; m = mp < 10 ? mp + 3 : mp - 9; y = yoe + era * 400 + (m <= 2)
    return sprintf("%04d-%02d-%02d", y, m, d)
  }
  { sub(/\\r$/, ""); value = $2 + 0; day = int($1 / 86400); if (day * 86400 > $1) day--
    if (!(day in count) || value < least[day]) least[day] = value
    if (!(day in count) || value > most[day]) most[day] = value
    count[day]++; delta = value - mean[day]; mean[day] += delta / count[day]; square[day] += delta * (value - mean[day]) }
  END { for (day in count) printf "%s,%d,%.3f,%.3f,%.3f,%.3f\\n", date(day), count[day], least[day], mean[day], most[day], sqrt(square[day] / count[day]) }
' /package/series.csv | sort > days
{ echo "day,rows,minimum,mean,maximum,standard_deviation"; cat days; } > /work/out/statistics.csv
while IFS=, read -r day rows least mean most deviation; do
  echo "$day: $rows rows, $least to $most, mean $mean"
done < days
`

/** What the package's folder says of itself. */
export const packageDescription = {
  name: "daily statistics",
  command: ["sh", "/package/statistics.sh"],
  idempotent: true,
  limits: { timeout_ms: 60_000, memory_bytes: 128 * 1024 * 1024 },
  artifacts: ["statistics.csv"]
}
