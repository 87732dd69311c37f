/**
 * `postern completions`: what a shell needs to complete commands and flags, and in bash the names of your devices.
 *
 * @module
 */
import { Argument, Command, Completions } from "effect/cli"
import { out } from "./Screen.ts"

/**
 * Names from the device book, read by the shell itself: starting a program at every touch of Tab would be slow. They are
 * offered where the commands and flags have nothing to say.
 */
const deviceNames = `
_postern__device_names()
{
  local folder="\${POSTERN_HOME:-\${XDG_CONFIG_HOME:-$HOME/.config}/postern}/devices"
  sed -n 's/^ *"name": "\\([a-z0-9-]*\\)",*$/\\1/p' "$folder"/*.json 2>/dev/null
}

_postern__complete()
{
  _postern "$@"
  (( \${#COMPREPLY[@]} == 0 )) || return 0
  [[ "$2" != -* ]] || return 0
  local before=" \${COMP_WORDS[*]:1:COMP_CWORD-1} "
  case "$before" in
    *" -- "*) ;;
    *" run "*|*" devices "*|*" --device "*) COMPREPLY=( $(compgen -W "$(_postern__device_names)" -- "$2") ) ;;
  esac
}
complete -F _postern__complete postern
`

/** The command, for a tree of commands that it is itself a part of. */
export const completionsCommand = (tree: Command.Command.Any) =>
  Command.make("completions", { shell: Argument.Literals("shell", ["bash", "zsh", "fish"]) }, ({ shell }) => {
    const script = Completions.generate("postern", shell, Completions.fromCommand(tree))
    return out(shell === "bash" ? `${script}\n${deviceNames}` : `${script}\n`)
  }).pipe(
    Command.withDescription("Print what a shell needs to complete postern's commands, flags and devices"),
    Command.withExamples([
      {
        command: "postern completions bash > ~/.local/share/bash-completion/completions/postern",
        description: "For bash, from the next shell on"
      },
      { command: "source <(postern completions zsh)", description: "For zsh; put it into ~/.zshrc" },
      {
        command: "postern completions fish > ~/.config/fish/completions/postern.fish",
        description: "For fish"
      }
    ])
  )
