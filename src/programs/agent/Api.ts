/**
 * What a program sees of `postern/agent`. It imports nothing, so that its declarations stand alone.
 *
 * @module
 */

/** Any value of JSON. */
export type Json =
  | null
  | boolean
  | number
  | string
  | ReadonlyArray<Json>
  | { readonly [member: string]: Json }

/**
 * - `public`: neither signed nor sealed; whom it is from is a claim.
 * - `protected`: signed by the sender, verified by broker services; who runs the broker can read it.
 * - `private`: sealed to broker services, which verify it and seal it to each recipient; broker services can read it.
 * - `end_to_end`: sealed to the recipient; broker services verify who sent it and cannot read it. One recipient, which must
 *   have chosen to be visible.
 */
export type Level = "public" | "protected" | "private" | "end_to_end"

/**
 * - `enrolling`: no operator has let this device in yet
 * - `rejected`, `revoked`: an operator decided against it
 * - `no_trust`: the trust root names no broker services
 * - `no_messaging`: the server carries no messages
 * - `offline`, `connecting`, `connected`: on the way to broker services
 * - `waiting`, `refused`: what broker services made of it
 * - `known`: messages come and go
 */
export type StateName =
  | "enrolling"
  | "rejected"
  | "revoked"
  | "no_trust"
  | "no_messaging"
  | "offline"
  | "connecting"
  | "connected"
  | "waiting"
  | "refused"
  | "known"

export interface State {
  readonly state: StateName
  /** The name operators gave; null before they did. */
  readonly name: string | null
  /** Why it is so, for people. */
  readonly detail: string
  /** While enrolling without an invitation: what an operator compares with what `postern devices show` prints. */
  readonly claimCode: string | null
}

/** How good the way to a peer is, by the pings of this life. */
export interface Link {
  readonly agent: string
  readonly pings: number
  readonly lost: number
  readonly lastRttMs: number | null
  /** As RFC 6298 smooths it. */
  readonly smoothedRttMs: number | null
}

export interface Report extends State {
  /** Messages that wait to be sent. */
  readonly queued: number
  /** Messages that came and nobody is done with. */
  readonly waiting: number
  /** What came and was refused, by reason. */
  readonly refused: Readonly<Record<string, number>>
  readonly links: ReadonlyArray<Link>
}

/** Another agent, as the signed list of broker services names it. */
export interface Peer {
  readonly name: string
  readonly device: string
  /** Ed25519, base64. */
  readonly signingKey: string
  /** C: connected. DG: it left and said so. DU: it is gone without a word. */
  readonly status: "C" | "DG" | "DU"
  readonly edgeDevices: ReadonlyArray<string>
}

/** A message to be sent. */
export interface Letter {
  /** Names of agents; one alone where the level is `end_to_end` or `public`. */
  readonly to: string | ReadonlyArray<string>
  /** Default `private`. */
  readonly level?: Level | undefined
  /** At most 128 characters of one line; default empty. */
  readonly subject?: string | undefined
  /** At most 64 KiB of JSON. */
  readonly body: Json
  /** After this nobody takes it any more; default a day, at most 30 days. */
  readonly lifetimeMs?: number | undefined
}

/**
 * The sender's own word, as it signed it: Ed25519 over the canonical form (RFC 8785) of all members but `signature`.
 * Whoever has it can check it, with {@link OriginCheck} or by docs/protocol.md.
 */
export interface SignedMessage {
  readonly type: "postern/message/v1"
  readonly id: string
  readonly level: Exclude<Level, "public">
  readonly from: string
  readonly to: ReadonlyArray<string>
  readonly issued_at_ms: number
  readonly expires_at_ms: number
  readonly subject: string
  readonly body: Json
  /** base64. */
  readonly signing_key: string
  /** base64. */
  readonly signature: string
}

interface Received {
  readonly id: string
  readonly subject: string
  readonly body: Json
  /** By the sender's clock. */
  readonly sentAt: Date
  /** By this device's. */
  readonly receivedAt: Date
  /** Says that it has been dealt with, so that it does not come again. The loop says so too when it asks for the next. */
  readonly done: () => Promise<void>
}

/** A message whose sender is proved. */
export interface SecureMessage extends Received {
  readonly level: Exclude<Level, "public">
  readonly from: string
  readonly to: ReadonlyArray<string>
  readonly expiresAt: Date
  /** For third parties. */
  readonly proof: SignedMessage
}

/** A message that anybody may have written. */
export interface PublicMessage extends Received {
  readonly level: "public"
  readonly from: null
  readonly claimedFrom: string
  readonly proof: null
}

export type Message = SecureMessage | PublicMessage

/** An AbortSignal, or anything of its kind. */
export interface Signal {
  readonly aborted: boolean
  readonly addEventListener: (type: "abort", listener: () => void) => void
  readonly removeEventListener: (type: "abort", listener: () => void) => void
}

export interface LogLine {
  readonly level: "debug" | "info" | "warn" | "error"
  readonly message: string
}

export interface OpenOptions {
  /**
   * The agent's folder: its keys, its messages, and a lock. Made where it is not there. Where a Postern program runs on it
   * already, that one's agent is used, and all but `onState` and `signal` is without effect.
   */
  readonly state: string
  /** What `postern invite` printed; needed once. Without one an operator compares the claim code. */
  readonly invitation?: string | undefined
  /** The server's address, where neither an invitation nor an earlier start tells it. */
  readonly server?: string | undefined
  /** The name to ask for; the operators decide. */
  readonly name?: string | undefined
  /** Whether other agents may be told of this one: needed to be pinged and to get end-to-end messages. Default false. */
  readonly visible?: boolean | undefined
  /** Edge devices it speaks for: at most 32, each once, of at most 64 characters of one line. */
  readonly edgeDevices?: ReadonlyArray<string> | undefined
  /** `http://HOST:PORT` or `socks5h://HOST:PORT`; everything goes through it. */
  readonly proxy?: string | undefined
  /** `auto`, the default: onion addresses go through Tor. `always`: everything does. `never`. */
  readonly tor?: "auto" | "always" | "never" | undefined
  /** Told the state at the start and whenever it changes. */
  readonly onState?: ((state: State) => void) | undefined
  /** Told what happens inside; without it nothing is logged. */
  readonly onLog?: ((line: LogLine) => void) | undefined
  /** Ends the opening, and later the agent. */
  readonly signal?: Signal | undefined
}

/** A running agent. */
export interface SmartAgent {
  /**
   * Keeps a message for sending, and gives its id. It is on disk by then, and goes out when the broker is there. The letter
   * is sent as it is when this is called, whatever becomes of it afterwards.
   */
  readonly send: (letter: Letter) => Promise<string>
  /**
   * What came, oldest first. A message that the loop did not get past (by `break` or an error) comes again, unless its `done`
   * was called: so each is handled at least once, and its `id` tells repetitions. Several loops, or programs on one state
   * folder, share the messages: each goes to one of them.
   */
  readonly messages: AsyncIterable<Message>
  /** Round-trip time to an agent in milliseconds; null where no answer came. */
  readonly ping: (agent: string) => Promise<number | null>
  /** The agents that chose to be visible. */
  readonly peers: () => Promise<ReadonlyArray<Peer>>
  readonly report: () => Promise<Report>
  /** Waits for a state; fails with code `timed_out`. */
  readonly reach: (state: StateName, options?: { readonly timeoutMs?: number | undefined }) => Promise<State>
  /** Changes what others may be told of this agent. */
  readonly show: (appearance: {
    readonly visible: boolean
    readonly edgeDevices?: ReadonlyArray<string> | undefined
  }) => Promise<void>
  /** Leaves the broker, ends all loops over `messages` and lets go of the folder. What was not sent waits there. */
  readonly close: () => Promise<void>
  /** Ends with the agent: after `close`, or with the error that ended it. */
  readonly closed: Promise<void>
}

/** Why something failed: one word for programs, a sentence for people in `message`. */
export class AgentError extends Error {
  override readonly name = "AgentError"
  /**
   * `malformed_letter`, `body_too_large`, `no_json`, `no_recipient`, `too_many_recipients`, `too_long_a_life`, `full`: the
   * message. `malformed`: a name or an appearance that cannot be. `no_broker`, `timed_out`, `gone`, `closed`, `failed`, `too_many_listeners`: the agent. `rejected`, `revoked`: an operator's
   * decision. `in_use`: another program holds the folder and runs no agent. `misconfigured`: the options.
   */
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** What became of a check: the key alone is proved; whose it is, the signed list of agents or the device book says. */
export type OriginCheck =
  | { readonly valid: true; readonly from: string; readonly signingKey: string }
  | { readonly valid: false; readonly reason: string }

/** The library. */
export interface SmartAgents {
  /**
   * Opens an agent: enrols where the folder is new, and waits until an operator has accepted it (with an invitation that
   * was accepted beforehand: at once). An agent that was accepted before opens also without a network.
   */
  readonly open: (options: OpenOptions) => Promise<SmartAgent>
  /** Checks a message's proof of origin, as anybody can; with `signingKey` also that it is this key's. */
  readonly checkOrigin: (proof: unknown, signingKey?: string) => Promise<OriginCheck>
}
