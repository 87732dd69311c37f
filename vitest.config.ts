import { configDefaults, defineConfig } from "vitest/config"

/**
 * POSTERN_PROOF=long|short runs the proofs alone: test/proof/**, whose sizes follow from that variable, and the
 * property tests with more runs each. Without it everything else runs.
 */
const proof = process.env["POSTERN_PROOF"]
const proofs = ["test/proof/**/*.test.ts", "test/property/**/*.test.ts"]

const common = {
  testTimeout: proof === "long" ? 600_000 : 20_000,
  hookTimeout: 60_000
}

export default defineConfig({
  test: {
    reporters: ["default", "./scripts/summary-reporter.ts"],
    projects:
      proof === undefined
        ? [
            {
              test: {
                ...common,
                name: "tests",
                include: ["test/**/*.test.ts"],
                exclude: [...configDefaults.exclude, "test/proof/**", "test/e2e/**", "test/runtimes/**"],
                sequence: { groupOrder: 0 }
              }
            },
            {
              // The built programs, one test file at a time and after all others: they start many processes.
              test: {
                ...common,
                name: "e2e",
                include: ["test/e2e/**/*.test.ts"],
                fileParallelism: false,
                testTimeout: 120_000,
                sequence: { groupOrder: 1 }
              }
            }
          ]
        : [{ test: { ...common, name: "proof", include: proofs, sequence: { groupOrder: 0 } } }]
  }
})
