import { readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { canRename, installRenameProgram } from "../archive/rename-program.ts";
import { archiveCommandLine, restoreCommandLine } from "../archive/setup-lines.ts";
import { canLinkServer } from "../archive/server-link.ts";
import { spoolDirectory } from "../archive/spool-directory.ts";
import { isSecretText } from "../config/setting.ts";
import { SettingIndex } from "../config/settings.ts";
import { RefusedError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import type { Command, Context } from "./command.ts";
import { requireDirectory } from "./data-directory.ts";
import { prefetchSpool } from "./fetch-ahead.ts";
import { requirePositionals } from "./words.ts";

interface Arguments {
  readonly dataDirectory: string | undefined;
  readonly isUnit: boolean;
}

/** `walnut setup`, once, as the owner of the data directory. */
export const setup: Command<Arguments> = {
  name: "setup",
  usage: "setup [<data directory>] [--systemd]",
  summary: "Print the lines of postgresql.conf that archive and restore with these settings.",
  details:
    "With the lines that it prints, PostgreSQL's own shell sees that a file was archived or fetched " +
    "ahead, and calls us for others only. Run it as the owner of the data directory, with the flags " +
    "that the server is to use; settings from the environment have to be in the server's environment, too.",
  flags: [{ name: "systemd", text: "Print a unit for walnut daemon instead." }],
  needsConfig: true,

  parse(words) {
    const [dataDirectory] = requirePositionals(words, ["the data directory"], 1);
    return { dataDirectory, isUnit: words.has("systemd") };
  },

  async run({ dataDirectory, isUnit }, context) {
    const { config, log, self, workingDirectory, write } = context;
    const place = requireDirectory(dataDirectory ?? config.dataDirectory);
    if (self === undefined) throw new RefusedError("setup can't run here");
    warnOfSecrets(self.words, log);
    const directory = resolve(workingDirectory, place);
    if (isUnit) {
      const { systemdUnit, userName } = await import("./daemon-unit.ts");
      const { uid } = await stat(directory);
      const user = userName(uid, await readFile("/etc/passwd", "utf8").catch(() => ""));
      return await write(systemdUnit({ ...self, dataDirectory: directory, user }));
    }
    const spool = await spoolDirectory({
      dataDirectory: directory,
      configured: config.archiveQueue.spoolDirectory,
      cacheDirectory: config.cacheDirectory,
    });
    const isServerLinked = await canLinkServer({ dataDirectory: directory }, spool.path);
    const { configFile } = self;
    const lines = [
      ...((await isRestored(directory)) ? [TRIAL_NOTE] : []),
      "archive_mode = on",
      archiveCommandLine(self.words, { spool, configFile, isServerLinked }),
      await restoreLine(directory, context),
    ];
    await write(`${lines.join("\n")}\n`);
  },
};

/** Every role may ask for archive_command, and every user for the processes with their words. */
function warnOfSecrets(words: readonly string[], log: Log): void {
  const index = new SettingIndex();
  for (const word of words) {
    const [, flag = "", value = ""] = /^--([^=]+)=(.*)$/s.exec(word) ?? [];
    const setting = index.byFlag(flag);
    if (setting === undefined || !isSecretText(setting.type, value)) continue;
    log.warning("a secret stands in these lines, which others may read", {
      flag: `--${flag}`,
      hint: "Write it into a config file that only the server's user may read (mode 0600) instead.",
    });
  }
}

/**
 * In front of what makes a server archive: who pastes all lines into a restore that was to be tried
 * only would archive a timeline that later recoveries follow.
 */
const TRIAL_NOTE =
  "# This directory was restored. In a trial archive_mode must be off instead of the next two lines,\n" +
  "# lest later recoveries follow its timeline; with them it takes the original server's place.";

/**
 * Whether a backup was restored there and no server has recovered it yet. A standby makes no
 * timeline.
 */
async function isRestored(dataDirectory: string): Promise<boolean> {
  const has = async (name: string): Promise<boolean> =>
    await stat(join(dataDirectory, name)).then(
      () => true,
      () => false,
    );
  return (await has("backup_label")) && !(await has("standby.signal"));
}

async function restoreLine(dataDirectory: string, { config, self, log }: Context): Promise<string> {
  const words = self?.words ?? [];
  if (config.prefetch.aheadMax <= 1) return restoreCommandLine(words);
  const spool = await prefetchSpool(dataDirectory, config);
  let renameProgram: string | undefined;
  try {
    await installRenameProgram(spool.renameProgram);
    if (await canRename(spool.renameProgram)) renameProgram = spool.renameProgram;
  } catch (error) {
    log.debug("no program to rename", { reason: String(error) });
  }
  const isServerLinked = await canLinkServer({ dataDirectory }, spool.path);
  const configFile = self?.configFile;
  return restoreCommandLine(words, { spool, renameProgram, configFile, isServerLinked });
}
