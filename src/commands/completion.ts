import { allSettings } from "../config/settings.ts";
import { settingFlagNames } from "../config/setting.ts";
import { UsageError } from "../errors.ts";
import type { Command } from "./command.ts";
import type { Program } from "./index.ts";
import { requirePositionals } from "./words.ts";

type Shell = "bash" | "zsh";

/** `walnut completion bash|zsh`: a script that knows every command and flag of this version. */
export function completionCommand(program: Program): Command<Shell> {
  return {
    name: "completion",
    usage: "completion <bash | zsh>",
    summary: "Print a completion script for a shell.",
    details:
      "bash: walnut completion bash > /etc/bash_completion.d/walnut\n" +
      'zsh:  walnut completion zsh > "${fpath[1]}/_walnut"',
    flags: [],
    needsConfig: false,

    parse(words) {
      const [shell] = requirePositionals(words, ["the shell (bash or zsh)"]);
      if (shell !== "bash" && shell !== "zsh") {
        throw new UsageError(`unknown shell ${JSON.stringify(shell)}`, {
          hint: "It is bash or zsh.",
        });
      }
      return shell;
    },

    async run(shell, { write }) {
      const entries = Object.values(program.commands);
      const commands = await Promise.all(entries.map((entry) => entry.load(program)));
      await write(shell === "bash" ? bashScript(commands) : zshScript(commands));
    },
  };
}

function flagWords({ flags }: Command): string {
  return [...flags.map(({ name }) => `--${name}`), "--help"].join(" ");
}

/** The shortest name of each setting; nobody completes all four. */
function settingWords(): string {
  return allSettings.map((setting) => `--${settingFlagNames(setting)[0] ?? ""}`).join(" ");
}

function bashScript(commands: readonly Command[]): string {
  const cases = commands.map((command) => `    ${command.name}) flags="${flagWords(command)}" ;;`);
  return `# bash completion for walnut
_walnut() {
  local word command="" flags=""
  local current="\${COMP_WORDS[COMP_CWORD]}"
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    [[ $word != -* ]] && command="$word" && break
  done
  case "$command" in
${cases.join("\n")}
  esac
  if [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$flags ${settingWords()}" -- "$current"))
  elif [[ -z $command ]]; then
    COMPREPLY=($(compgen -W "${commands.map(({ name }) => name).join(" ")}" -- "$current"))
  fi
}
complete -o default -F _walnut walnut
`;
}

function zshScript(commands: readonly Command[]): string {
  const described = commands.map(({ name, summary }) => `    ${zshWord(`${name}:${summary}`)}`);
  const cases = commands.map((command) => `    ${command.name}) flags=(${flagWords(command)}) ;;`);
  return `#compdef walnut
_walnut() {
  local -a commands flags settings
  commands=(
${described.join("\n")}
  )
  settings=(${settingWords()})
  case "$words[2]" in
${cases.join("\n")}
  esac
  if [[ $words[CURRENT] == -* ]]; then
    compadd -- $flags $settings
  elif (( CURRENT == 2 )); then
    _describe command commands
  else
    _files
  fi
}
_walnut "$@"
`;
}

function zshWord(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
