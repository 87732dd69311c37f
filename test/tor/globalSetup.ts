/** Starts the Tor network of this folder's tests, before the first of them and beside whatever else runs. */
import type { TestProject } from "vitest/node"
import { obstacles } from "../support/requires.ts"
import { announceTorNetwork } from "../support/torNetwork.ts"

export const setup = async (project: TestProject): Promise<(() => Promise<void>) | undefined> => {
  // The tests themselves say what is missing, and fail for it where they must.
  if (obstacles(["tor", "tor-gencert"]).length > 0) {
    project.provide("torNetwork", "")
    return undefined
  }
  const { file, stop } = await announceTorNetwork()
  project.provide("torNetwork", file)
  return stop
}
