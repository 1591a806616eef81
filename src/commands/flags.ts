import { settingGroups } from "../config/settings.ts";
import { type Setting, settingFlagNames, settingNames } from "../config/setting.ts";
import type { Command } from "./command.ts";
import { requirePositionals } from "./words.ts";

/** `walnut flags`: every setting, as a flag of every command. */
export const flagsCommand: Command<undefined> = {
  name: "flags",
  usage: "flags",
  summary: "List all settings, which every command takes as flags.",
  flags: [],
  needsConfig: false,

  parse(words) {
    requirePositionals(words, []);
    return undefined;
  },

  run: (_, { write }) => write(formatSettings()),
};

/** Name, other names, default and text of every setting. */
export function formatSettings(): string {
  const groups = settingGroups.map(
    ({ title, settings }) => `${title}:\n\n${settings.map(formatSetting).join("\n")}`,
  );
  return groups.join("\n");
}

function formatSetting(setting: Setting): string {
  const [flag = ""] = settingFlagNames(setting);
  const value = setting.type.isSwitch ? "" : ` <${setting.type.name}>`;
  const about = [
    setting.text,
    ...(setting.effect.kind === "used" ? [] : [`Without effect: ${setting.effect.reason}.`]),
    ...(setting.default === undefined ? [] : [`Default: ${setting.default}.`]),
  ];
  const lines = [`  --${flag}${value}`, settingNames(setting).join(", "), about.join(" "), ""];
  return lines.join("\n      ").trimEnd().concat("\n");
}
