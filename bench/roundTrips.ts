/** Plain HTTP over loopback with another process, as a peer of everything that speaks HTTP. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { Agent, get } from "node:http"

const server = `
const server = require("node:http").createServer((request, response) => response.end('{"ok":true}'))
process.stdin.resume().on("end", () => process.exit())
server.listen(0, "127.0.0.1", () => console.log(server.address().port))
`

const roundTrip = (agent: Agent, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    get({ agent, port, host: "127.0.0.1", path: "/" }, (response) => {
      response.resume().once("end", resolve).once("error", reject)
    }).once("error", reject)
  })

/** Starts a server of node:http in a process of its own, which ends with this one; `run` asks it `count` times over one kept connection. */
export const openRoundTrips = async () => {
  const child = spawn(process.execPath, ["-e", server], { stdio: ["pipe", "pipe", "inherit"] })
  const [line] = await once(child.stdout, "data")
  const port = Number(String(line))
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  return {
    run: async (count: number): Promise<void> => {
      for (let done = 0; done < count; done++) await roundTrip(agent, port)
    },
    close: (): void => {
      agent.destroy()
      child.kill()
    }
  }
}
