/**
 * Cuts connections whose own address this machine no longer has. Nobody else would: after a change of network the
 * system goes on sending from the old address, hears nothing, and gives up after a quarter of an hour.
 *
 * @module
 */
import { networkInterfaces } from "node:os"
import type { Duplex } from "node:stream"

/** How often the machine's addresses are looked at, as long as there are connections. */
const lookMs = 2_000

export interface AddressWatch {
  /** Watches a connection until it closes. */
  readonly watch: (socket: Duplex) => void
  readonly stop: () => void
}

export interface AddressWatchOptions {
  /** The machine's addresses at this moment; undefined where they cannot be told. */
  readonly addresses?: () => ReadonlySet<string> | undefined
  readonly intervalMs?: number
}

/** An address without the name of its interface. */
const bare = (address: string): string => address.replace(/%.*$/, "")

const ownAddresses = (): ReadonlySet<string> | undefined => {
  try {
    return new Set(
      Object.values(networkInterfaces()).flatMap((of = []) => of.map(({ address }) => bare(address)))
    )
  } catch {
    // A sandbox may forbid to look; other limits still end dead connections, only later.
    return undefined
  }
}

const localAddress = (socket: Duplex): string | undefined => {
  const address = "localAddress" in socket ? socket.localAddress : undefined
  return typeof address === "string" ? bare(address) : undefined
}

/**
 * Makes a watch. A connection is cut when its address is missing twice in a row, because an interface without a carrier
 * for a moment seems to have none.
 */
export const makeAddressWatch = (options: AddressWatchOptions = {}): AddressWatch => {
  const { addresses = ownAddresses, intervalMs = lookMs } = options
  /** The connections, and whether their address was missing the last time. */
  const watched = new Map<Duplex, boolean>()
  let timer: NodeJS.Timeout | undefined

  const stop = (): void => {
    clearInterval(timer)
    timer = undefined
  }

  const look = (): void => {
    const own = addresses()
    if (own === undefined) return
    for (const [socket, wasMissing] of watched) {
      const address = localAddress(socket)
      const isMissing = address !== undefined && !own.has(address)
      watched.set(socket, isMissing)
      if (isMissing && wasMissing)
        socket.destroy(
          new Error(`this machine no longer has the address ${address}, which it was reached from`)
        )
    }
  }

  return {
    watch: (socket) => {
      if (socket.destroyed || watched.has(socket)) return
      watched.set(socket, false)
      socket.once("close", () => {
        watched.delete(socket)
        if (watched.size === 0) stop()
      })
      timer ??= setInterval(look, intervalMs).unref()
    },
    stop: () => {
      stop()
      watched.clear()
    }
  }
}
