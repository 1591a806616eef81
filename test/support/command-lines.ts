import { commandEntry, commands, type Program } from "../../src/commands/index.ts";
import { findCommand, readCommandLine, type SettingFlags } from "../../src/commands/words.ts";
import { FoundSettings } from "../../src/config/found-settings.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { SettingIndex } from "../../src/config/settings.ts";

/** The program as far as commands can be read: no setting is given, and nothing can be done. */
export const listedProgram: Program = {
  commands,
  versionText: "walnut version x\n",
  settings: () => Promise.resolve(new FoundSettings(new Map())),
  configure: () => defaultConfig({ cpuCount: 1 }),
  configureFile: () => Promise.resolve(defaultConfig({ cpuCount: 1 })),
};

/**
 * What the real parser has against a command line, given without the program's name; undefined if
 * nothing. One that is not whole may lack arguments and values.
 */
export async function commandLineProblem(
  line: string,
  { isWhole }: { readonly isWhole: boolean },
): Promise<string | undefined> {
  const words = [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(
    ([, double, single, plain]) => double ?? single ?? plain ?? "",
  );
  const flags = settingFlags(new SettingIndex());
  const { name, rest } = findCommand(words, flags, (word) => commandEntry(word) !== undefined);
  const entry = commandEntry(name);
  if (entry === undefined) return `there is no command ${name}`;
  const command = await entry.load(listedProgram);
  try {
    const read = readCommandLine(rest, flags, command.flags);
    // The client reads its words by itself, before all else.
    if (isWhole && name !== "client") command.parse(read.words);
    return undefined;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return !isWhole && message.endsWith(" needs a value") ? undefined : message;
  }
}

function settingFlags(index: SettingIndex): SettingFlags {
  return {
    find(flag) {
      const setting = index.byFlag(flag);
      return setting === undefined ? undefined : { isSwitch: setting.type.isSwitch };
    },
    names: () => index.flags(),
  };
}
