// The one door to every task of this repository: node scripts/run.mjs <task> [arguments…]
//
// It needs no package and no new Node: it is what installs them. Everything but this check is imported
// lazily, so that a Node too old for the rest still says so in one line.

const major = Number(process.versions.node.split(".")[0])

if (major < 20) {
  process.stderr.write(
    "postern: Node " + process.versions.node + " is too old to set things up. Install Node 20 or newer.\n"
  )
  process.exit(78)
}

import("./lib/main.mjs").then(
  (main) => main.main(process.argv[2], process.argv.slice(3)),
  (error) => {
    process.stderr.write("postern: " + ((error instanceof Error && error.stack) || String(error)) + "\n")
    process.exit(70)
  }
)
