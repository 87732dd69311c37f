// Child processes without a shell.

import { spawn } from "node:child_process"
import { constants } from "node:os"

const KEPT_OUTPUT_BYTES = 64 * 1024

const exitCodeOf = (code, signal) => (signal === null ? code : 128 + (constants.signals[signal] ?? 0))

/**
 * Runs a command with our own stdin, stdout and stderr and resolves with its exit code (128 + n for signal n).
 * SIGTERM and SIGHUP are passed on. So is SIGINT, except on a terminal, which sends it to the child itself.
 */
export const runAttached = (command, args, options = {}) =>
  new Promise((resolve, reject) => {
    const onTerminal = process.stdin.isTTY === true || process.stdout.isTTY === true
    const forward = (signal) => {
      if (signal === "SIGINT" && onTerminal) return
      child.kill(signal)
    }
    // Before the child is there: a signal that came between the two would end us and leave it alone.
    const signals = ["SIGINT", "SIGTERM", "SIGHUP"]
    for (const signal of signals) process.on(signal, forward)
    const child = spawn(command, args, { stdio: "inherit", ...options })
    const settle = (done) => {
      for (const signal of signals) process.off(signal, forward)
      done()
    }
    child.once("error", (error) => settle(() => reject(error)))
    child.once("close", (code, signal) => settle(() => resolve(exitCodeOf(code, signal))))
  })

/** Runs a command quietly and resolves with its exit code and the end of what it printed. */
export const runQuiet = (command, args, options = {}) =>
  new Promise((resolve) => {
    const forward = (signal) => child.kill(signal)
    process.on("SIGTERM", forward)
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options })
    let output = ""
    const keep = (chunk) => {
      output = (output + chunk.toString("utf8")).slice(-KEPT_OUTPUT_BYTES)
    }
    child.stdout.on("data", keep)
    child.stderr.on("data", keep)
    const settle = (result) => {
      process.off("SIGTERM", forward)
      resolve(result)
    }
    child.once("error", (error) => settle({ code: 127, output: `${output}${error.message}\n` }))
    child.once("close", (code, signal) => settle({ code: exitCodeOf(code, signal), output }))
  })
