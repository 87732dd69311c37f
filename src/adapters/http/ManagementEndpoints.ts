/** The management API's endpoints as a list, read off its declaration. */
import { ManagementApi } from "../../schemas/ManagementApi.ts"

export interface ManagementEndpoint {
  /** Group and endpoint, as in the table of roles. */
  readonly key: string
  readonly method: string
  /** With its parameters as `:name`. */
  readonly path: string
}

/** Every endpoint, in the order of declaration. */
export const managementEndpoints: ReadonlyArray<ManagementEndpoint> = Object.values(
  ManagementApi.groups
).flatMap((group) =>
  Object.values(group.endpoints).map(({ identifier, method, path }) => ({
    key: `${group.identifier}.${identifier}`,
    method,
    path
  }))
)

const patterns = managementEndpoints.map(({ method, path }) => ({
  method,
  path,
  pattern: new RegExp(`^${path.replace(/:[a-z_]+/g, "[^/]+")}$`)
}))

/** The declared path that a request's path is one of, or null. */
export const declaredPath = (method: string, path: string): string | null =>
  patterns.find((each) => each.method === method && each.pattern.test(path))?.path ?? null
