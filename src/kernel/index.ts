/**
 * The kernel's public face: protocols, keys, references, behaviours, supervision, systems, fencing and inspection.
 */
export { ActorKey, DynamicKey } from "./ActorKey.ts"
export type { ActorRef, AskOptions } from "./ActorRef.ts"
export { ActorSystem, type ActorSystemOptions, type Termination } from "./ActorSystem.ts"
export { Backoff, type BackoffOptions, BackoffSpec } from "./Backoff.ts"
export { type ActorContext, Behaviour } from "./Behaviour.ts"
export { type AnySpec, ChildSpec, type DynamicSpec, type SupervisorSpec } from "./ChildSpec.ts"
export type { DeadLetter, DeadLetterReason } from "./DeadLetters.ts"
export {
  ActorCrashed,
  AskCycle,
  AskError,
  AskTimeout,
  BadSpec,
  Evicted,
  Fenced,
  MailboxFull,
  NotFound,
  SendError,
  type SpawnError,
  StartFailed,
  Stopped,
  TooManyChildren
} from "./Errors.ts"
export { Fence } from "./Fence.ts"
export { Inspection, renderAge, renderInspection, SystemInspection } from "./Inspection.ts"
export type { Handlers, Message, Protocol, Request } from "./Protocol.ts"
export { Supervisor } from "./Supervisor.ts"
export type { TraceEvent, TraceOutcome } from "./Trace.ts"
