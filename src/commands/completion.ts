import type { Command } from "./command.ts";
import type { Program } from "./index.ts";
import { requirePositionals } from "./words.ts";

/** `walnut completion bash|zsh`. */
export function completionCommand(program: Pick<Program, "commands">): Command<string> {
  return {
    name: "completion",
    usage: "completion <bash | zsh>",
    summary: "Print a completion script for a shell.",
    flags: [],
    needsConfig: false,
    parse: (words) => requirePositionals(words, ["the shell"])[0] ?? "",
    run: (_, { write }) => write(`${Object.keys(program.commands).join(" ")}\n`),
  };
}
