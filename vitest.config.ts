import { configDefaults, defineConfig } from "vitest/config"

/**
 * POSTERN_PROOF=long|short runs the proofs alone: test/proof and test/tor/thorough, which run nowhere else. The sizes of
 * properties and simulations follow from that variable (test/support/proof.ts). Without it everything else runs.
 */
const proof = process.env["POSTERN_PROOF"]

const common = {
  exclude: [...configDefaults.exclude, "test/runtimes/**"],
  testTimeout: { long: 1_800_000, short: 300_000 }[proof ?? ""] ?? 120_000,
  hookTimeout: 180_000
}

/** Hostile jobs use up what the system gives to a user; all jails take the same ones. */
const jails = "test/adapters/jail/**/*.test.ts"

const tests = {
  ...common,
  name: "tests",
  include: ["test/**/*.test.ts"],
  exclude: [...common.exclude, "test/proof/**", "test/e2e/**", "test/tor/**", jails],
  // One for each of two processors; left to itself, vitest would leave one of them idle.
  maxWorkers: 2,
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

/** One after the other, and beside nothing else. */
const inJail = { ...common, name: "jail", include: [jails], maxWorkers: 1, sequence: { groupOrder: 2 } }

/** What takes longest of it belongs to the proofs. */
const thoroughTor = "test/tor/thorough/**/*.test.ts"

/** What goes through a private Tor network, which starts with the first project and stands when this one's turn comes. */
const throughTor = {
  ...endToEnd,
  name: "tor",
  include: proof === undefined ? ["test/tor/**/*.test.ts"] : [thoroughTor],
  exclude: proof === undefined ? [...common.exclude, thoroughTor] : common.exclude,
  globalSetup: "./test/tor/globalSetup.ts"
}

const proofs = {
  ...common,
  name: "proof",
  include: ["test/proof/**/*.test.ts"]
}

export default defineConfig({
  test: {
    reporters: ["default", "./scripts/summary-reporter.ts"],
    projects: (proof === undefined ? [tests, endToEnd, throughTor, inJail] : [proofs, throughTor]).map(
      (test) => ({
        test
      })
    )
  }
})
