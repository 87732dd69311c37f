/** A person at a terminal: runs a command on a pty (Python makes it) and answers its questions as they come. */
import { spawn } from "node:child_process"

/** Opens a pty, runs the command on it, and copies both ways until it ends; exits with its code. */
const driver = `
import os, pty, select, sys
pid, master = pty.fork()
if pid == 0:
    os.execvpe(sys.argv[1], sys.argv[1:], os.environ)
inputs = [master, 0]
while True:
    ready, _, _ = select.select(inputs, [], [])
    if 0 in ready:
        typed = os.read(0, 4096)
        if typed: os.write(master, typed)
        else: inputs.remove(0)
    if master in ready:
        try: shown = os.read(master, 65536)
        except OSError: break
        if not shown: break
        os.write(1, shown)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status) % 256)
`

export interface Dialogue {
  readonly code: number
  /** Everything that stood on the screen. */
  readonly screen: string
}

/** Types each answer once its question is on the screen (behind the one before it). */
export const atTerminal = (
  command: ReadonlyArray<string>,
  env: Readonly<Record<string, string>>,
  answers: ReadonlyArray<readonly [question: string, answer: string]>,
  timeoutMs = 90_000
): Promise<Dialogue> =>
  new Promise((resolve, reject) => {
    const child = spawn("python3", ["-c", driver, ...command], {
      env: { ...env, TERM: "xterm" },
      stdio: ["pipe", "pipe", "inherit"]
    })
    let screen = ""
    let seen = 0
    let next = 0
    const timer = setTimeout(() => {
      child.kill("SIGKILL")
      reject(new Error(`the dialogue hangs at question ${next + 1}:\n${screen}`))
    }, timeoutMs)
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      screen += text
      for (let question = answers[next]; question !== undefined; question = answers[next]) {
        const at = screen.indexOf(question[0], seen)
        if (at === -1) return
        seen = at + question[0].length
        next++
        child.stdin.write(question[1])
      }
    })
    child.once("error", reject)
    child.once("close", (code) => {
      clearTimeout(timer)
      resolve({ code: code ?? -1, screen })
    })
  })
