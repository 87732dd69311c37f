/**
 * The files by which a tor of our own knows its services: a folder for each with its key, and one file for each client that
 * may reach it. tor takes a service whose list of clients is empty for one that is open to all, so the lists are written
 * before tor is told of the service, are never empty, and are held against what they must be again and again.
 *
 * Nothing here is flushed to the disk: what a power cut leaves is held against the same before tor reads it.
 *
 * @module
 */
import { readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { Redacted } from "effect"
import { concatBytes, utf8 } from "../../crypto/Bytes.ts"
import type { OnionServiceKey } from "../../crypto/OnionAddress.ts"
import type { OnionClientKey } from "../../schemas/Onion.ts"
import { requirePrivateFolder } from "../files/AtomicFile.ts"
import { holdsContent, putFile } from "./PutFile.ts"

const keyFile = "hs_ed25519_secret_key"
/** What tor itself makes of the key, once. */
const derivedFiles = ["hs_ed25519_public_key", "hostname"]
const clientsFolder = "authorized_clients"

/** tor's tag of a secret key file: 32 bytes, the rest zeros. */
const keyTag = (() => {
  const tag = new Uint8Array(32)
  tag.set(utf8("== ed25519v1-secret: type0 =="))
  return tag
})()

/** Writes a service's key; gives whether it was not there. What belonged to another key is removed. */
const putKey = (folder: string, key: OnionServiceKey): boolean => {
  requirePrivateFolder(folder)
  const isNew = putFile(join(folder, keyFile), concatBytes(keyTag, Redacted.value(key.expanded)))
  if (isNew) for (const name of derivedFiles) rmSync(join(folder, name), { force: true })
  return isNew
}

/**
 * Makes the list of clients what it must be. Those who go are removed before those who come are written, so that a full
 * disk keeps nobody in; but one who stays must be there first, so that the list is never empty. Gives whether it was
 * otherwise.
 */
const putClients = (folder: string, clients: ReadonlySet<OnionClientKey>): boolean => {
  const list = join(folder, clientsFolder)
  requirePrivateFolder(list)
  const wanted = [...clients].map((client) => ({
    name: `${client.toLowerCase()}.auth`,
    content: utf8(`descriptor:x25519:${client}\n`)
  }))
  const names = new Set(wanted.map(({ name }) => name))
  let isChanged = false
  const write = ({ content, name }: (typeof wanted)[number]): void => {
    isChanged = putFile(join(list, name), content) || isChanged
  }
  const staying = wanted.find(({ content, name }) => holdsContent(join(list, name), content)) ?? wanted[0]
  if (staying !== undefined) write(staying)
  for (const name of readdirSync(list)) {
    if (names.has(name)) continue
    rmSync(join(list, name), { recursive: true, force: true })
    isChanged = true
  }
  for (const each of wanted) write(each)
  return isChanged
}

/**
 * Makes a service's folder what it must be, and gives whether it was otherwise. `clients` is null for a service that is
 * open to everybody, and never empty.
 *
 * @throws what the file system refuses, before tor may be told of the service
 */
export const putService = (
  folder: string,
  key: OnionServiceKey,
  clients: ReadonlySet<OnionClientKey> | null
): boolean => {
  if (clients?.size === 0) throw new RangeError("a list of no clients would open the service to all")
  // The list first: a crash in between leaves a service without a key, never one without a list.
  requirePrivateFolder(folder)
  const isOtherList = clients !== null && putClients(folder, clients)
  return putKey(folder, key) || isOtherList
}
