import { execFileSync } from "node:child_process"
import { join } from "node:path"
import { expect, it } from "vitest"
import { describeWith } from "../support/requires.ts"

const root = join(import.meta.dirname, "../..")

describeWith(["python3", "python3-paho-mqtt", "python3-cryptography"], "the example in Python", () => {
  it("shakes hands until it is known, believes no other answer to the same, no list of long ago, and none by a key that is gone", () => {
    const script = join(root, "test/support/shakingAgent.py")
    const said = execFileSync("/usr/bin/python3", [
      "-B",
      "-W",
      "error",
      script,
      join(root, "examples/python")
    ])
    expect(JSON.parse(said.toString())).toEqual({
      heard: ["refused", "replayed", "known", "replayed", "expired", "peers"],
      differ: true,
      more: 0,
      may_send: true,
      // Of the keys that may have signed the list, one was added, and then one was gone.
      peers: [["bob"], []]
    })
  })
})
