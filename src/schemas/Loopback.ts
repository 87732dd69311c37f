/** Addresses that mean the machine that uses them, so that no other machine gets anywhere by them. */

const loopback = /^https?:\/\/(127(\.\d{1,3}){3}|localhost|[a-z0-9.-]+\.localhost|\[::1\])(:\d{1,5})?$/

/** Whether a server's address (scheme, host, port) is one of these. */
export const isLoopback = (address: string): boolean => loopback.test(address)

/** What is to be said of an invitation with these addresses; undefined where another machine can use it. */
export const loopbackWarning = (addresses: ReadonlyArray<string>): string | undefined =>
  addresses.every(isLoopback)
    ? `The trust root says that the server is at ${addresses.join(", ")}: only that very machine can use this invitation. For other devices, let the server be reached from outside (host or addresses in its configuration; docs/first-device.md), then: postern keys root draft next.json --address URL, postern keys root sign next.json, and postern keys root publish next.json`
    : undefined
