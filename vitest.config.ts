import { configDefaults, defineConfig } from "vitest/config"

/**
 * POSTERN_PROOF=long|short runs the proofs alone: test/proof, which runs nowhere else, and the property tests and
 * simulations, whose sizes follow from that variable (test/support/proof.ts). Without it everything else runs.
 */
const proof = process.env["POSTERN_PROOF"]

const common = {
  exclude: [...configDefaults.exclude, "test/runtimes/**"],
  testTimeout: { long: 1_800_000, short: 300_000 }[proof ?? ""] ?? 120_000,
  hookTimeout: 180_000
}

const tests = {
  ...common,
  name: "tests",
  include: ["test/**/*.test.ts"],
  exclude: [...common.exclude, "test/proof/**", "test/e2e/**", "test/tor/**"],
  sequence: { groupOrder: 0 }
}

/** The built programs, apart from all others: they start many processes, and mostly wait for them. */
const endToEnd = {
  ...common,
  name: "e2e",
  include: ["test/e2e/**/*.test.ts"],
  maxWorkers: 3,
  testTimeout: 240_000,
  sequence: { groupOrder: 1 }
}

/** What goes through a private Tor network, which starts with the first project and stands when this one's turn comes. */
const throughTor = {
  ...endToEnd,
  name: "tor",
  include: ["test/tor/**/*.test.ts"],
  globalSetup: "./test/tor/globalSetup.ts"
}

const proofs = {
  ...common,
  name: "proof",
  include: ["test/{proof,property,sim}/**/*.test.ts"]
}

export default defineConfig({
  test: {
    reporters: ["default", "./scripts/summary-reporter.ts"],
    projects: (proof === undefined ? [tests, endToEnd, throughTor] : [proofs]).map((test) => ({ test }))
  }
})
