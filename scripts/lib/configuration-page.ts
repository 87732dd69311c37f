// The page docs/configuration.md, made of the programs' schemas.

import { ClientConfig } from "../../src/schemas/ClientConfig.ts"
import { ServerConfig } from "../../src/schemas/ServerConfig.ts"
import { type Setting, settingsOf } from "../../src/schemas/Setting.ts"
import { fallbackText, formOf } from "../../src/schemas/SettingText.ts"

const introduction = `<!-- Made of src/schemas/ClientConfig.ts and ServerConfig.ts by: node scripts/configuration.ts -->

# Configuration

Both programs work without any configuration. Each setting has one name everywhere:

| where | how |
|---|---|
| flag | the few that have one; \`--help\` lists them |
| environment | \`POSTERN_\` and the key in capitals, with \`_\` between a table and its key: \`POSTERN_JOB_LIMITS_TIMEOUT_MS\` |
| file | TOML, named by \`--config FILE\` or \`$POSTERN_CONFIG\`; the client makes one where there is none, see [health.md](health.md) |

A flag counts before the environment, the environment before the file, the file before the default. Texts stand in the
environment as they are, everything else as in TOML (\`POSTERN_ADDRESSES='["https://postern.example"]'\`); an empty variable
counts as not set. In a file, keys of a table stand below its name in brackets (\`[job_limits]\`).

    node client.js config              # every setting in force, and where it was said
    node client.js config --example    # a commented file with every setting
    node server.js config              # likewise for the server

A key that does not exist, or a value that is not as it must be, stops the program at its start (exit code 78). It names
everything that is wrong at once, each with file, line, key and reason:

    postern: the client cannot run:
      - /etc/postern/client.toml:3: health_intervall_ms: there is no such key; did you mean health_interval_ms?
      - POSTERN_LONG_POLL_MS: long_poll_ms: it must be a whole number from 0 to 60000 (milliseconds), not "soon"

Variables that begin with \`POSTERN_\` and are no setting are left alone, unless they are nearly the name of one.

What is no setting, because it is said once or is secret, has variables of its own: \`POSTERN_INVITATION\` (what
\`postern invite\` printed, for the client's first start), and for the operator's \`postern\`: \`POSTERN_HOME\` (the operator's
folder), \`POSTERN_PASSPHRASE_FILE\` (a file with the passphrase), \`POSTERN_TOKEN_FILE\` (a file with the API token).
`

const entry = (setting: Setting): string => {
  const { environment, isTable, key, notes } = setting
  if (isTable) return `### \`[${key}]\`\n\n${notes.description}\n`
  const further = [notes.alias, notes.flag].flatMap((name) => (name === undefined ? [] : `, \`${name}\``))
  const fallback = setting.fallback === undefined ? fallbackText(setting) : `\`${fallbackText(setting)}\``
  const form = formOf(setting)
  const value = `${form.charAt(0).toUpperCase()}${form.slice(1)}`
  return `**\`${key}\`** · \`${environment}\`${further.join("")}\\\n${notes.description}\\\n${value}. Default: ${fallback}.\n`
}

const program = (title: string, schema: Parameters<typeof settingsOf>[0]): string => {
  const settings = settingsOf(schema)
  const isInTable = (one: Setting) => one.isTable || one.path.length > 1
  const ordered = [...settings.filter((one) => !isInTable(one)), ...settings.filter(isInTable)]
  return [`## ${title}\n`, ...ordered.map(entry)].join("\n")
}

/** The whole page. */
export const configurationPage = (): string =>
  [
    introduction,
    program("The client, `client.js`", ClientConfig),
    program("The server, `server.js`", ServerConfig)
  ].join("\n")
