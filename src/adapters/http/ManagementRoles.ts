/**
 * Which role each endpoint of the management API takes, all in one place. An endpoint without an entry does not compile.
 */
import type { HttpApi } from "effect/http-api"
import type { ManagementApi, Role } from "../../schemas/ManagementApi.ts"

type GroupOf<Api> = Api extends HttpApi.HttpApi<infer _, infer Group> ? Group : never
type KeyOf<Group> = Group extends {
  readonly identifier: infer Name extends string
  readonly endpoints: infer Endpoints
}
  ? `${Name}.${Extract<keyof Endpoints, string>}`
  : never

/** By the group's and the endpoint's identifiers, as the API declares them. */
const roles: Readonly<Record<KeyOf<GroupOf<typeof ManagementApi>>, Role>> = {
  "server.status": "viewer",
  "server.actors": "viewer",
  "server.roots": "viewer",
  "server.publishRoot": "admin",
  "server.laggards": "viewer",
  "server.audit": "viewer",
  "server.metrics": "viewer",
  "server.tokens": "admin",
  "server.createToken": "admin",
  "server.rotateToken": "admin",
  "server.revokeToken": "admin",
  "devices.invite": "admin",
  "devices.preauthorise": "operator",
  "devices.list": "viewer",
  "devices.show": "viewer",
  "devices.admit": "operator",
  "devices.sequence": "viewer",
  "devices.receipts": "viewer",
  "devices.health": "viewer",
  "devices.series": "viewer",
  "rollouts.open": "operator",
  "rollouts.list": "viewer",
  "rollouts.show": "viewer",
  "rollouts.jobs": "viewer",
  "rollouts.control": "operator",
  "messaging.status": "viewer",
  "messaging.agents": "viewer",
  "messaging.agent": "viewer",
  "messaging.refusals": "viewer",
  "jobs.uploadPayload": "operator",
  "jobs.submit": "operator",
  "jobs.list": "viewer",
  "jobs.show": "viewer",
  "jobs.output": "viewer",
  "jobs.artifacts": "viewer",
  "jobs.cancel": "operator",
  "jobs.stop": "operator"
}

export const endpointRoles: Readonly<Record<string, Role>> = roles

const rank: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 }

/** Whether a role includes another. */
export const includes = (role: Role, needed: Role): boolean => rank[role] >= rank[needed]
