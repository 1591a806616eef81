import { tmpdir } from "node:os";
import type { Command, Context } from "../../src/commands/command.ts";
import { readCommandLine } from "../../src/commands/words.ts";
import type { Config } from "../../src/config/config.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { type Clock, systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
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
  const { failure, ...run } = await runCommandToEnd(command, storage, args, config);
  if (failure !== undefined) throw failure.error;
  return run;
}

/** The same for a command that may fail when it has written all. */
export async function runCommandToEnd<Arguments>(
  command: Command<Arguments>,
  storage: Storage,
  args: readonly string[],
  config: Partial<Config> = {},
): Promise<CommandRun & { readonly failure: { readonly error: unknown } | undefined }> {
  const log = collectingLog();
  let stdout = "";
  let failure: { readonly error: unknown } | undefined;
  const context: Context = {
    ...commandContext(storage, config),
    log,
    write: async (text) => {
      stdout += text;
    },
  };
  try {
    const program = { names: () => [], find: () => undefined };
    const { words } = readCommandLine(args, program, command.flags);
    await command.run(command.parse(words), context);
  } catch (error) {
    failure = { error };
  }
  return { stdout, log: log.lines, failure };
}

/** What a command is given that runs in this process. */
export function commandContext(
  storage: Storage,
  config: Partial<Config>,
  clock: Clock = systemClock,
): Context {
  return {
    config: { ...defaultConfig({ cpuCount: 2 }), ...config },
    log: silentLog,
    clock,
    signal: AbortSignal.timeout(600_000),
    workingDirectory: tmpdir(),
    write: async () => {},
    progress: { update: () => {}, end: () => {} },
    openStorage: async () => storage,
  };
}
