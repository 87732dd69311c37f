import type { RouteFailure } from "../../schemas/RouteFailure.ts"

/** A connection that was not made by the way that was taken: what happened, as it follows the name of the address. */
export class RouteError extends Error {
  /** Which part of the way it was, where that is known. */
  readonly failure: RouteFailure | undefined

  constructor(message: string, failure?: RouteFailure) {
    super(message)
    this.name = "RouteError"
    this.failure = failure
  }
}
