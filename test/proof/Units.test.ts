import { copyFileSync, existsSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { Machine } from "../support/Machines.ts"
import { waitUntil } from "../support/Program.ts"
import { describeWith } from "../support/requires.ts"

const repository = join(import.meta.dirname, "../..")
const systemd = "/lib/systemd/systemd"
const patienceMs = 120_000

/** The machine's first process becomes systemd, with nothing to start. Its own services alone are looked at. */
const becomesSystemd = `
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /opt
mkdir -p /run/systemd/system /run/lock
printf '[Unit]\\nDefaultDependencies=no\\n' >/run/systemd/system/nothing.target
cat >/run/systemd/system/trial.service <<U
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/true
ProtectSystem=strict
PrivateDevices=yes
SystemCallFilter=@system-service
U
for unit in client server; do
  mkdir -p "/run/systemd/system/postern-$unit.service.d"
  # The rest of a machine's start is none of ours, and a test need not wait long between two lives.
  printf '[Unit]\\nDefaultDependencies=no\\nWants=\\n[Service]\\nRestartSec=1\\n' >"/run/systemd/system/postern-$unit.service.d/trial.conf"
done
echo ready
exec env container=trial ${systemd} --system --log-target=null --show-status=no --unit=nothing.target
`

describeWith(["root", "jail", "ip", "nsenter"], "the units under a real systemd", () => {
  let machine: Machine
  let whyNot: string | undefined

  beforeAll(async () => {
    if (!existsSync(systemd)) {
      whyNot = `there is no ${systemd}`
      return
    }
    machine = await Machine.start("postern-units", becomesSystemd)
    const boots = async () => (await machine.run("systemctl start trial.service", 20_000)).code === 0
    whyNot = await waitUntil("systemd", boots, 20_000).then(
      () => undefined,
      () => "systemd does not run in namespaces here"
    )
    for (const name of ["server.js", "cli.js", "client.js"])
      copyFileSync(join(repository, "dist", name), join(machine.home, name))
  })

  afterAll(() => machine?.stop())

  const run = async (script: string): Promise<string> => {
    const { code, stderr, stdout } = await machine.run(script, patienceMs)
    if (code !== 0) {
      const status = await machine.run("systemctl --no-pager --full status 'postern-*'")
      throw new Error(`${script} ended with ${code}:\n${stdout}${stderr}\n${status.stdout}`)
    }
    return stdout
  }

  it("install, start, hold a job in the jail, come back after a crash, and stop", async (context) => {
    if (whyNot !== undefined) return context.skip(`skipped, because ${whyNot}`)
    const install = join(repository, "deploy/install.sh")
    // The unit is for a Node of the whole machine; a Node below a home folder is no matter here.
    await run(`mkdir -p /opt/node && cp "$(readlink -f "$(command -v node)")" /opt/node/node`)
    for (const program of ["server", "client"])
      await run(`PATH=/opt/node:$PATH sh ${install} ${program} ${program}.js`)
    await run(`echo 'server = "http://127.0.0.1:8470"\nname = "unit-pi"' >/etc/postern/client.toml`)
    await run("systemctl start postern-server")
    const asServer = "runuser -u postern-server -- /opt/node/node /opt/postern/server.js"
    await run(`${asServer} token create alice --role admin --state /var/lib/postern-server >token`)
    await run("node cli.js keys init --server http://127.0.0.1:8470 --token-file token --yes --no-passphrase")
    const invited = await run("node cli.js invite --name unit-pi --preauthorise 2>/dev/null")
    const invitation = /POSTERN_INVITATION=\S+/.exec(invited)?.[0]
    await run(`umask 077; echo '${invitation}' >/etc/postern/client.env`)
    await run("systemctl start postern-client")

    const takesWork = async () => {
      const { stdout } = await machine.run("node cli.js devices show unit-pi --json")
      const shown = stdout === "" ? undefined : JSON.parse(stdout)
      return shown?.blocked === null && shown.last_seen_at_ms !== null
    }
    const status = async () => (await machine.run("systemctl --no-pager --full status 'postern-*'")).stdout
    await waitUntil("the device to take work", takesWork, patienceMs)
    expect(await run("node cli.js run unit-pi -- id -u")).toContain("1000")

    const doctor = async () => {
      const { findings } = JSON.parse(await run("node client.js doctor --json")).programs[0]
      return (id: string) => findings.find((finding: { readonly id: string }) => finding.id === id)
    }
    const found = await doctor()
    expect(found("jail.isolation")).toMatchObject({ state: "ok", reason: "isolation: separate-uid" })
    expect(found("service.systemd")).toMatchObject({
      state: "ok",
      reason: "started as postern-client.service, with a watchdog"
    })
    for (const id of ["user", "no_new_privs", "umask", "core_dumps"])
      expect(found(`defence.${id}`), id).toMatchObject({ state: "ok" })

    const mainPid = async () => (await run("systemctl show -p MainPID --value postern-client")).trim()
    const before = await mainPid()
    await run(`kill -9 ${before}`)
    const isBack = async () => !["0", before].includes(await mainPid())
    await waitUntil("systemd to start the client again", isBack, patienceMs)
    await waitUntil("the device to take work again", takesWork, patienceMs, () => "")
    expect(await run("node cli.js run unit-pi -- id -u")).toContain("1000")
    await run("systemctl stop postern-client")

    // The same with no root at all, by the drop-in.
    const dropIns = "/etc/systemd/system/postern-client.service.d"
    await run(`mkdir -p ${dropIns} && cp ${repository}/deploy/postern-client-unprivileged.conf ${dropIns}/`)
    await run("systemctl daemon-reload && systemctl start postern-client")
    await waitUntil("the device without root to take work", takesWork, patienceMs)
    expect(await run("node cli.js run unit-pi -- id -u")).toContain("1000")
    expect((await doctor())("jail.isolation").reason).toContain("isolation: same-uid")
    await run("systemctl stop postern-client postern-server")
    expect(await status()).not.toMatch(/Active: (active|failed)/)
  })
})
