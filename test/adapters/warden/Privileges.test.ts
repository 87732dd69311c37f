/** Who becomes whom, what is handed over on the way, and which process is to be the warden. */
import { chownSync, lstatSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { CannotDrop, clientUser, handOverState, isOnly } from "../../../src/adapters/warden/Privileges.ts"
import { asksVersion, isWarden, runsClient } from "../../../src/adapters/warden/Role.ts"
import { describeWith } from "../../support/requires.ts"

let folder = ""
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "postern-privileges-"))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

describe("the user that the client becomes", () => {
  const passwd = () => {
    const path = join(folder, "passwd")
    writeFileSync(
      path,
      "root:x:0:0:root:/root:/bin/sh\npostern:x:990:991::/var/lib/postern:/usr/sbin/nologin\nodd:x:zero:1::/:\n"
    )
    return path
  }

  it("is the named one where there is one, else the number", () => {
    expect(clientUser("postern", 63_999, passwd())).toEqual({ uid: 990, gid: 991, shown: "postern" })
    expect(clientUser("nobody-here", 63_999, passwd())).toEqual({
      uid: 63_999,
      gid: 63_999,
      shown: "uid 63999"
    })
  })

  it("is never root, nor one that cannot be read", () => {
    expect(() => clientUser("root", 63_999, passwd())).toThrow(CannotDrop)
    expect(() => clientUser("odd", 63_999, passwd())).toThrow(CannotDrop)
  })
})

describe("whether root is given up", () => {
  const user = { uid: 990, gid: 991, shown: "postern" }
  const thread = (id: string, uid: number, capabilities = "0000000000000000") => {
    mkdirSync(join(folder, id))
    const ids = (name: string, value: number) => `${name}:\t${Array(4).fill(value).join("\t")}\n`
    const capable = `CapPrm:\t${capabilities}\nCapEff:\t${capabilities}\n`
    writeFileSync(join(folder, id, "status"), `${ids("Uid", uid)}${ids("Gid", 991)}${capable}`)
  }

  it("is not doubted for a thread that has ended since the threads were listed", () => {
    thread("7", 990)
    // Listed, but without a word of itself any more.
    mkdirSync(join(folder, "8"))
    expect(isOnly(user, folder)).toBe(true)
  })

  it("is denied by one thread that is still root, or has a capability", () => {
    thread("7", 990)
    thread("8", 0)
    expect(isOnly(user, folder)).toBe(false)
    rmSync(join(folder, "8"), { recursive: true })
    thread("9", 990, "0000000000000080")
    expect(isOnly(user, folder)).toBe(false)
  })
})

describeWith(["root"], "a state folder", () => {
  const user = { uid: 63_999, gid: 63_999, shown: "uid 63999" }
  const state = () => join(folder, "state")

  it("is made for the client where there is none", () => {
    expect(handOverState(state(), user)).toBe(false)
    expect(lstatSync(state())).toMatchObject({ uid: user.uid, gid: user.gid })
    expect(lstatSync(state()).mode & 0o777).toBe(0o700)
    expect(handOverState(state(), user)).toBe(false)
  })

  it("of a client that was root is taken over whole, and links in it are not followed", () => {
    mkdirSync(join(state(), "keys"), { recursive: true, mode: 0o700 })
    writeFileSync(join(state(), "lock.db"), "")
    writeFileSync(join(state(), "keys/device.json"), "secret", { mode: 0o600 })
    writeFileSync(join(folder, "outside"), "not ours")
    symlinkSync(join(folder, "outside"), join(state(), "link"))
    expect(handOverState(state(), user)).toBe(true)
    for (const name of ["", "lock.db", "keys", "keys/device.json", "link"]) {
      expect(lstatSync(join(state(), name)).uid, name).toBe(user.uid)
    }
    expect(lstatSync(join(folder, "outside")).uid).toBe(0)
  })

  it("is refused where it holds something else, is another's, or can be swapped by others", () => {
    mkdirSync(state(), { mode: 0o700 })
    writeFileSync(join(state(), "somebody-else"), "")
    expect(() => handOverState(state(), user)).toThrow(/something else/)
    expect(lstatSync(join(state(), "somebody-else")).uid).toBe(0)
    const theirs = join(folder, "theirs")
    mkdirSync(join(theirs, "state"), { recursive: true, mode: 0o700 })
    writeFileSync(join(theirs, "state/lock.db"), "")
    chownSync(theirs, 4_711, 4_711)
    expect(() => handOverState(join(theirs, "state"), user)).toThrow(/can be changed by others/)
  })
})

describe("the warden", () => {
  it("is the process of the plain command line, and nobody else", () => {
    for (const args of [
      [],
      ["--once"],
      ["--state", "doctor"],
      ["--config", "keys", "--once"],
      ["--no-such-flag"]
    ]) {
      expect(runsClient(args), args.join(" ")).toBe(true)
    }
    for (const args of [
      ["--help"],
      ["--once", "-h"],
      ["--version"],
      ["doctor"],
      ["--state", "x", "keys", "rotate"]
    ]) {
      expect(runsClient(args), args.join(" ")).toBe(false)
    }
    expect(isWarden([], {})).toBe(true)
    expect(isWarden([], { POSTERN_WARDEN: "3" })).toBe(false)
  })

  it("is not asked for by who asks for the version alone", () => {
    for (const args of [["--version"], ["-v"]]) expect(asksVersion(args), args.join(" ")).toBe(true)
    for (const args of [[], ["--version", "--help"], ["--once", "-v"], ["--version=x"], ["-vh"]]) {
      expect(asksVersion(args), args.join(" ")).toBe(false)
    }
  })
})
