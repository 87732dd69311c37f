import { writeFileSync } from "node:fs"
import { relative } from "node:path"
import type { Reporter, TestModule } from "vitest/node"

const count = (modules: ReadonlyArray<TestModule>) => {
  const counts = { passed: 0, failed: 0, skipped: 0 }
  for (const module of modules) {
    let tests = 0
    for (const test of module.children.allTests()) {
      tests += 1
      const { state } = test.result()
      if (state === "passed") counts.passed += 1
      else if (state === "skipped") counts.skipped += 1
      else counts.failed += 1
    }
    // A file that cannot be loaded, or whose hooks fail, has no failed test of its own.
    const suites = [module, ...module.children.allSuites()]
    if (suites.some((suite) => suite.errors().length > 0) || (tests === 0 && !module.ok())) counts.failed += 1
  }
  return counts
}

/** How long vitest may take to end after its last test. */
const endMs = 60_000

/** vitest waits without an end for a process that a test has left alive and that holds our output open. */
const endInTime = (): void => {
  const timer = setTimeout(() => {
    process.stderr.write(
      `the tests have ended, and something that one of them started has not: it is not waited for\n`
    )
    process.exit(process.exitCode || 1)
  }, endMs)
  timer.unref()
}

/**
 * Writes `{ passed, failed, skipped, failedFiles, unhandled }` to the file that POSTERN_SUMMARY_FILE names. Files that fail
 * outside a test and unhandled errors count as one failure each; an unhandled error may belong to no file.
 */
export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>, unhandledErrors: ReadonlyArray<unknown>): void {
    const path = process.env["POSTERN_SUMMARY_FILE"]
    if (path === undefined) return
    endInTime()
    const counts = count(modules)
    const failed = counts.failed + unhandledErrors.length
    const failedFiles = modules
      .filter((module) => !module.ok())
      .map(({ moduleId }) => relative(".", moduleId))
    const unhandled = unhandledErrors.length
    writeFileSync(path, JSON.stringify({ ...counts, failed, failedFiles: failedFiles.toSorted(), unhandled }))
  }
}
