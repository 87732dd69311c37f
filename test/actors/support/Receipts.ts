/** What others compute from receipts. */
import { canonicalBytes } from "../../../src/crypto/CanonicalJson.ts"
import { digestOf } from "../../../src/crypto/Documents.ts"
import type { Receipt } from "../../../src/schemas/Receipt.ts"
import { engine } from "./Parties.ts"

/** The digest the next receipt names as its predecessor. */
export const digestOfReceipt = (receipt: Receipt) => digestOf(engine, canonicalBytes(receipt))
