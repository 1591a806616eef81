import { tmpdir } from "node:os";
import type { Command } from "../../src/commands/command.ts";
import { readCommandLine } from "../../src/commands/words.ts";
import type { Config } from "../../src/config/config.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { systemClock } from "../../src/io/clock.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { collectingLog } from "./restoring.ts";

export interface CommandRun {
  readonly stdout: string;
  /** Lines as "warning: text {fields}". */
  readonly log: readonly string[];
}

/** Runs a command in this process on a storage that is there, with these words of its own. */
export async function runCommand<Arguments>(
  command: Command<Arguments>,
  storage: Storage,
  args: readonly string[],
  config: Partial<Config> = {},
): Promise<CommandRun> {
  const log = collectingLog();
  let stdout = "";
  await command.run(
    command.parse(
      readCommandLine(args, { names: () => [], find: () => undefined }, command.flags).words,
    ),
    {
      config: { ...defaultConfig({ cpuCount: 2 }), ...config },
      log,
      clock: systemClock,
      signal: AbortSignal.timeout(600_000),
      workingDirectory: tmpdir(),
      write: async (text) => {
        stdout += text;
      },
      progress: { update: () => {}, end: () => {} },
      openStorage: async () => storage,
    },
  );
  return { stdout, log: log.lines };
}
