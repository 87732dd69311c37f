import { execFileSync } from "node:child_process"
import { join } from "node:path"
import { expect, it } from "vitest"
import { describeWith } from "../support/requires.ts"

const root = join(import.meta.dirname, "../..")

const run = (script: string): unknown =>
  JSON.parse(
    execFileSync("/usr/bin/python3", [
      "-B",
      "-W",
      "error",
      join(root, "test/support", script),
      join(root, "examples/python")
    ]).toString()
  )

describeWith(["python3", "python3-paho-mqtt", "python3-cryptography"], "the example in Python", () => {
  it("shakes hands until it is known, believes no other answer to the same, no list of long ago, and none by a key that is gone", () => {
    expect(run("shakingAgent.py")).toEqual({
      heard: ["refused", "replayed", "known", "replayed", "expired", "peers"],
      differ: true,
      more: 0,
      may_send: true,
      // Of the keys that may have signed the list, one was added, and then one was gone.
      peers: [["bob"], []]
    })
  })

  it("tells what is no letter, sends what is one once, and goes on", () => {
    expect(run("oddLetters.py")).toEqual({
      published: ["A", "B", "C"],
      told: Array.from({ length: 7 }, () => "trouble"),
      waits: 1
    })
  })
})
