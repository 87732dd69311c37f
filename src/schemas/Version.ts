/** The version of this program, as it stands in package.json. A test holds the two together. */
export const version = "0.1.0"

/** How programs name themselves in receipts, reports and headers. */
export const software = `postern/${version}`
