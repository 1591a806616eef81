import { preferredName } from "../config/setting.ts";
import { allSettings } from "../config/settings.ts";
import type { Command } from "./command.ts";
import type { Program } from "./index.ts";
import { requirePositionals } from "./words.ts";

/** `walnut config`: every effective setting with its origin. */
export function configCommand(program: Pick<Program, "settings">): Command<undefined> {
  return {
    name: "config",
    usage: "config",
    summary: "Print every effective setting and where it comes from; secrets are masked.",
    flags: [],
    needsConfig: false,

    parse(words) {
      requirePositionals(words, []);
      return undefined;
    },

    async run(_, { write }) {
      const found = await program.settings();
      const lines = allSettings.flatMap((setting) => {
        const origin = found.origin(setting);
        const text = origin?.text ?? setting.default;
        if (text === undefined) return [];
        const shown = setting.type.isSecret ? "***" : text;
        return [`${preferredName(setting)} = ${shown} (${origin?.source ?? "default"})\n`];
      });
      await write(lines.join(""));
    },
  };
}
