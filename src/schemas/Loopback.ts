/** Addresses that mean the machine that uses them, so that no other machine gets anywhere by them. */

const loopback = /^https?:\/\/(127(\.\d{1,3}){3}|localhost|[a-z0-9.-]+\.localhost|\[::1\])(:\d{1,5})?$/

/** Whether a server's address (scheme, host, port) is one of these. */
export const isLoopback = (address: string): boolean => loopback.test(address)

/** How the addresses in the trust root are changed. */
const change = (address: string): string =>
  `postern keys root draft next.json --address ${address}, postern keys root sign next.json, and postern keys root publish next.json`

/**
 * What is to be said of an invitation with these addresses; undefined where another machine can use it. `known` are the
 * addresses that the server itself says it has.
 */
export const loopbackWarning = (
  addresses: ReadonlyArray<string>,
  known: ReadonlyArray<string> = []
): string | undefined => {
  if (!addresses.every(isLoopback)) return undefined
  const better = known.find((address) => !isLoopback(address))
  const mend =
    better === undefined
      ? `let the server be reached from outside (--onion, or host or addresses in its configuration; docs/first-device.md), then: ${change("URL")}`
      : `put its other address into the root: ${change(better)}`
  return `The trust root says that the server is at ${addresses.join(", ")}: only that very machine can use this invitation. For other devices, ${mend}`
}
