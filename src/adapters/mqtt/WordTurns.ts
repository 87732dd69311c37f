/**
 * Fairness between connections: what they tell broker services of themselves (handshakes, status, questions) costs
 * signatures and is judged for all of them in one place. So each has one word in hand there, and so many a minute; strangers
 * have so many together as well, since a new connection costs them a new key and no more. What a stranger asks for or may not
 * say costs it one too: to refuse is work, and who is refused all the time need not stay.
 *
 * @module
 */
import type { Client } from "aedes"
import { Limits } from "../../schemas/Limits.ts"
import type { TopicRole } from "../../schemas/TopicRights.ts"

/** So many at once, and then so many a minute. */
interface Allowance {
  readonly burst: number
  readonly perMinute: number
}

/** Holds back what is more than its allowance. */
class Bucket {
  private readonly allowance: Allowance
  private left: number
  private atMs: number

  constructor(allowance: Allowance, nowMs: number) {
    this.allowance = allowance
    this.left = allowance.burst
    this.atMs = nowMs
  }

  take(nowMs: number): boolean {
    const { burst, perMinute } = this.allowance
    this.left = Math.min(burst, this.left + ((nowMs - this.atMs) * perMinute) / 60_000)
    this.atMs = nowMs
    if (this.left < 1) return false
    this.left -= 1
    return true
  }
}

const {
  messagingHandshakes: handshakes,
  messagingStrangerWords: strangersWords,
  messagingWords: words
} = Limits

/** The words of all connections. */
export class WordTurns {
  private readonly handshakes = new WeakMap<Client, Bucket>()
  private readonly words = new WeakMap<Client, Bucket>()
  private readonly strangers = new Bucket(strangersWords, performance.now())
  private readonly last = new WeakMap<Client, Promise<void>>()

  /** Takes one of all that a stranger may do, permitted or not; false where nothing is left of it. */
  spend(client: Client): boolean {
    return this.take(client, true)
  }

  /** Whether a connection may say one more. Strangers have them together; what each may do is {@link spend}'s. */
  may(client: Client, role: TopicRole, isHandshake: boolean): boolean {
    return role === "stranger" ? this.strangers.take(performance.now()) : this.take(client, isHandshake)
  }

  private take(client: Client, isCostly: boolean): boolean {
    const buckets = isCostly ? this.handshakes : this.words
    const nowMs = performance.now()
    const bucket = buckets.get(client) ?? new Bucket(isCostly ? handshakes : words, nowMs)
    buckets.set(client, bucket)
    return bucket.take(nowMs)
  }

  /** Says a word when the connection's last one is done, however that ended. */
  inTurn(client: Client, say: () => Promise<void>): Promise<void> {
    const turn = (this.last.get(client) ?? Promise.resolve()).then(say, say)
    this.last.set(client, turn)
    return turn
  }
}
