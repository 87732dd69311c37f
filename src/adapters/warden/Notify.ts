/**
 * Word to systemd, through `systemd-notify`: Node has no Unix datagram sockets. Without `NOTIFY_SOCKET` nobody waits for
 * word and nothing is done. The unit needs `Type=notify` and `NotifyAccess=all`, since the word comes from a child.
 */
import { execFile } from "node:child_process"

const timeoutMs = 5_000
/** Alive is told at most this often, however often it is asked for. */
const aliveEveryMs = 1_000

/** Words to one service manager, one at a time. */
export class Notifier {
  private readonly socket: string
  private readonly complain: (problem: string) => void
  private complained = false
  private busy = false
  private aliveAt = Number.NEGATIVE_INFINITY
  private readonly waiting: Array<string> = []

  /** @param complain hears once, when systemd cannot be told */
  constructor(environment: NodeJS.ProcessEnv, complain: (problem: string) => void) {
    this.socket = environment["NOTIFY_SOCKET"] ?? ""
    this.complain = complain
  }

  /** READY=1, STOPPING=1 and their like. */
  tell(word: string): void {
    if (this.socket === "") return
    if (this.waiting.length < 8) this.waiting.push(word)
    this.next()
  }

  /** A fresh sign of life; dropped while another word is on its way. */
  alive(): void {
    const now = performance.now()
    if (this.busy || this.socket === "" || now - this.aliveAt < aliveEveryMs) return
    this.aliveAt = now
    this.tell("WATCHDOG=1")
  }

  private next(): void {
    if (this.busy) return
    const word = this.waiting.shift()
    if (word === undefined) return
    this.busy = true
    const environment = { PATH: process.env["PATH"] ?? "", NOTIFY_SOCKET: this.socket }
    execFile(
      "systemd-notify",
      [word],
      { timeout: timeoutMs, killSignal: "SIGKILL", env: environment },
      (error) => {
        this.busy = false
        if (error !== null && !this.complained) {
          this.complained = true
          this.complain(error.message.trim())
        }
        this.next()
      }
    )
  }
}
