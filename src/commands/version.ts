import type { Command } from "./command.ts";
import type { Program } from "./index.ts";
import { requirePositionals } from "./words.ts";

/** `walnut version`, the same as `walnut --version`. */
export function versionCommand(program: Pick<Program, "versionText">): Command<undefined> {
  return {
    name: "version",
    usage: "version",
    summary: "Print version, commit, runtime and the supported PostgreSQL releases.",
    flags: [],
    needsConfig: false,

    parse(words) {
      requirePositionals(words, []);
      return undefined;
    },

    run: (_, { write }) => write(program.versionText),
  };
}
