/**
 * The torrc of each part of a private Tor network, as lines.
 *
 * What makes such a network start quickly and stay up: the authority's first vote is parked until every relay has
 * announced itself; no relay ever publishes a bandwidth of its own, so that none is preferred and chosen twice for one
 * path; and the plain scheduler, because the usual one holds cells back for tens of milliseconds, which on loopback is
 * all the time there is. The last two are for networks of this kind only.
 *
 * @module
 */

/** Where the others of the network find a relay. */
export interface RelayPlace {
  readonly nickname: string
  readonly address: string
  readonly orPort: number
}

/** The one directory authority: what every tor of the network must know of it. */
export interface Authority extends RelayPlace {
  readonly dirPort: number
  /** Of its relay identity: 40 hexadecimal digits. */
  readonly fingerprint: string
  /** Of its authority identity: 40 hexadecimal digits. */
  readonly authorityFingerprint: string
}

/** What a relay may be beside a relay. */
export type RelayRole = "relay" | "exit" | "bridge"

const authorityLine = (authority: Authority): string =>
  [
    `DirAuthority ${authority.nickname} orport=${authority.orPort} no-v2`,
    `v3ident=${authority.authorityFingerprint} ${authority.address}:${authority.dirPort} ${authority.fingerprint}`
  ].join(" ")

/** The lines that make any tor a part of the network: a server's, a device's. */
export const memberLines = (authority: Authority): ReadonlyArray<string> => [
  "TestingTorNetwork 1",
  authorityLine(authority),
  "Schedulers Vanilla"
]

const relayLines = (place: RelayPlace, nameServers: string): ReadonlyArray<string> => [
  `Nickname ${place.nickname}`,
  `Address ${place.address}`,
  `ORPort ${place.address}:${place.orPort} IPv4Only`,
  "SocksPort 0",
  "ContactInfo lab@invalid",
  "AssumeReachable 1",
  "AddressDisableIPv6 1",
  "TestingMinTimeToReportBandwidth 1 day",
  // Nobody outside is asked for a name, not even to learn whether the name servers here lie.
  `ServerDNSResolvConfFile ${nameServers}`,
  "ServerDNSDetectHijacking 0",
  "ServerDNSAllowBrokenConfig 1"
]

/** Lines of the authority, which is the first relay too. Its first vote waits to be told (see `votingLine`). */
export const authorityLines = (
  authority: Authority,
  nameServers: string,
  hasExit: boolean
): ReadonlyArray<string> => [
  ...memberLines(authority),
  ...relayLines(authority, nameServers),
  `DirPort ${authority.address}:${authority.dirPort}`,
  "ExitPolicy reject *:*",
  "AuthoritativeDirectory 1",
  "V3AuthoritativeDirectory 1",
  "TestingV3AuthInitialVotingInterval 1800",
  "TestingV3AuthInitialVoteDelay 2",
  "TestingV3AuthInitialDistDelay 2",
  "V3AuthVotingInterval 1800",
  "V3AuthVoteDelay 2",
  "V3AuthDistDelay 2",
  "TestingDirAuthVoteGuard *",
  "TestingDirAuthVoteHSDir *",
  ...(hasExit ? ["TestingDirAuthVoteExit *"] : [])
]

/** Told to the authority when all relays are known to it: it votes at the next multiple of five seconds. */
export const votingLine = "SETCONF TestingV3AuthInitialVotingInterval=5"

const roleLines: Readonly<Record<RelayRole, ReadonlyArray<string>>> = {
  relay: ["ExitRelay 0"],
  exit: ["ExitRelay 1", "ExitPolicyRejectPrivate 0", "ExitPolicy accept *:*"],
  bridge: ["ExitRelay 0", "BridgeRelay 1", "PublishServerDescriptor 0", "ExtORPort auto"]
}

/** The transport of a bridge: the program that speaks obfs4, and where it listens. */
export interface BridgeTransport {
  readonly program: string
  readonly port: number
}

/** Lines of a relay, an exit or a bridge. */
export const relayNodeLines = (
  authority: Authority,
  place: RelayPlace,
  nameServers: string,
  role: RelayRole,
  transport?: BridgeTransport
): ReadonlyArray<string> => [
  ...memberLines(authority),
  ...relayLines(place, nameServers),
  ...roleLines[role],
  ...(transport === undefined
    ? []
    : [
        `ServerTransportPlugin obfs4 exec ${transport.program}`,
        `ServerTransportListenAddr obfs4 ${place.address}:${transport.port}`
      ])
]
