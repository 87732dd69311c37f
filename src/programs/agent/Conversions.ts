/** Between what an agent's desk says and what programs see (`Api.ts`). */

import { DateTime, Result } from "effect"
import { bodyCopy } from "../../adapters/agent/LocalChecks.ts"
import type { AgentTrouble, InboxMessage, LocalLetter, LocalReport } from "../../schemas/AgentLocal.ts"
import type { DirectoryEntry } from "../../schemas/Agents.ts"
import type { Json, Letter, Message, Peer, Report, State, StateName } from "./Api.ts"

/** A list as it is now. Whatever else a program without types gives, the desk's checks name. */
export const listOf = (list: unknown): unknown => (Array.isArray(list) ? [...list] : list)

/** A letter as it is now: its program may change it while it is on its way. */
export const letterOf = ({
  body,
  level,
  lifetimeMs,
  subject,
  to
}: Letter): Result.Result<LocalLetter, AgentTrouble> =>
  Result.map(bodyCopy(body), (copy) => ({
    level: level ?? "private",
    to: (typeof to === "string" ? [to] : listOf(to)) as LocalLetter["to"],
    subject: subject ?? "",
    body: copy,
    lifetime_ms: lifetimeMs ?? null
  }))

const stateNameOf = ({ agent, enrolment }: LocalReport): StateName => {
  if (enrolment.phase === "accepted") return agent.state
  return enrolment.phase === "not_enrolled" ? "enrolling" : enrolment.phase
}

export const stateOf = (report: LocalReport): State => {
  const { agent, enrolment } = report
  const isAccepted = enrolment.phase === "accepted"
  return {
    state: stateNameOf(report),
    name: agent.name,
    detail: isAccepted ? agent.detail : enrolment.detail,
    claimCode: enrolment.claim_code
  }
}

export const reportOf = (report: LocalReport): Report => {
  const { links, queued, refused, waiting } = report.agent
  return {
    ...stateOf(report),
    queued,
    waiting,
    refused,
    links: links.map(({ agent, last_rtt_ms, lost, pings, smoothed_rtt_ms }) => ({
      agent,
      pings,
      lost,
      lastRttMs: last_rtt_ms,
      smoothedRttMs: smoothed_rtt_ms
    }))
  }
}

export const peerOf = ({ agent, device, edge_devices, signing_key, status }: DirectoryEntry): Peer => ({
  name: agent,
  device,
  signingKey: signing_key,
  status,
  edgeDevices: edge_devices
})

const dateOf = (ms: number) => DateTime.toDateUtc(DateTime.makeUnsafe(ms))

/** A message as programs see it. */
export const shownMessage = (
  { message, received_at_ms }: InboxMessage,
  done: () => Promise<void>
): Message => {
  const { body, id, issued_at_ms, subject } = message
  const common = {
    id,
    subject,
    body: body as Json,
    sentAt: dateOf(issued_at_ms),
    receivedAt: dateOf(received_at_ms),
    done
  }
  if (message.type === "postern/public/v1")
    return { ...common, level: "public", from: null, claimedFrom: message.claimed_from, proof: null }
  return {
    ...common,
    level: message.level,
    from: message.from,
    to: message.to,
    expiresAt: dateOf(message.expires_at_ms),
    proof: message as Message["proof"] & object
  }
}
