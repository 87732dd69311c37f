/**
 * How hard to try: `usual` in `npm test`, `long` in `npm run proof`, `short` in continuous integration, which runs
 * the proofs at a reduced size.
 */
export const proofSize: "usual" | "short" | "long" =
  process.env["POSTERN_PROOF"] === "long" || process.env["POSTERN_PROOF"] === "short"
    ? process.env["POSTERN_PROOF"]
    : "usual"

/**
 * Scales a number of property runs, seeds or virtual days to the present size: unchanged in `npm test`, twice as many
 * in continuous integration, fifty times as many in a long proof.
 */
export const scaled = (usual: number): number => usual * { usual: 1, short: 2, long: 50 }[proofSize]
