import type { Config } from "../config/config.ts";
import type { FoundSettings } from "../config/found-settings.ts";
import type { Command } from "./command.ts";
import {
  clientExitCode,
  type ExitCodeRule,
  restoreExitCode,
  storageToolExitCode,
} from "./exit-codes.ts";

/** What commands about walnut itself may use besides their Context. */
export interface Program {
  readonly commands: Readonly<Record<string, CommandEntry>>;
  readonly versionText: string;
  /** All settings that were given, with their origins. Never rejects for a wrong one. */
  readonly settings: () => Promise<FoundSettings>;
  /** What commands get of them. Throws ConfigError with all that is wrong. */
  readonly configure: (found: FoundSettings) => Config;
  /**
   * The configuration in another file, without what is set for this run; credentials and the like
   * that have no prefix of ours come from the environment, too. Throws ConfigError.
   */
  readonly configureFile: (path: string) => Promise<Config>;
}

/** A command, loaded only when it runs. */
export interface CommandEntry {
  load(program: Program): Promise<Command>;
  /** Its exit code from a failure, where PostgreSQL gives the codes another meaning. */
  readonly exitCode?: ExitCodeRule;
  /** PostgreSQL runs it for every WAL file: what it logs without need fills the server's log. */
  readonly isFrequent?: boolean;
  /** It works until it is stopped, so that a signal to stop is no failure. */
  readonly isEndless?: boolean;
  /** It only tells something: who asks is told soon that the store does not answer. */
  readonly isQuestion?: boolean;
}

/** Every command; guide.ts has the order of the help. */
export const commands: Readonly<Record<string, CommandEntry>> = {
  "wal-push": {
    load: async () => (await import("./wal-push.ts")).walPush,
    isFrequent: true,
  },
  "wal-fetch": {
    load: async () => (await import("./wal-fetch.ts")).walFetch,
    exitCode: restoreExitCode,
    isFrequent: true,
  },
  "wal-prefetch": { load: async () => (await import("./wal-prefetch.ts")).walPrefetch },
  "wal-drain": { load: async () => (await import("./wal-drain.ts")).walDrain },
  "wal-index": { load: async () => (await import("./wal-index.ts")).walIndex },
  "wal-delta": { load: async () => (await import("./wal-delta.ts")).walDelta },
  "gap-backup": { load: async () => (await import("./gap-backup.ts")).gapBackup },
  backfill: { load: async () => (await import("./backfill.ts")).backfillCommand },
  "wal-restore": { load: async () => (await import("./wal-restore.ts")).walRestore },
  "take-over": { load: async () => (await import("./take-over.ts")).takeOver },
  "wal-receive": {
    load: async () => (await import("./wal-receive.ts")).walReceive,
    isEndless: true,
  },
  daemon: { load: async () => (await import("./daemon.ts")).daemon },
  client: {
    load: async () => (await import("./client.ts")).client,
    exitCode: clientExitCode,
  },
  "backup-push": { load: async () => (await import("./backup-push.ts")).backupPush },
  "backup-fetch": { load: async () => (await import("./backup-fetch.ts")).backupFetch },
  "catchup-push": { load: async () => (await import("./catchup-push.ts")).catchUpPush },
  "catchup-fetch": { load: async () => (await import("./catchup-fetch.ts")).catchUpFetch },
  "catchup-list": {
    load: async () => (await import("./catchup-list.ts")).catchUpList,
    isQuestion: true,
  },
  "catchup-send": { load: async () => (await import("./catchup-send.ts")).catchUpSend },
  "catchup-receive": { load: async () => (await import("./catchup-receive.ts")).catchUpReceive },
  "backup-list": {
    load: async () => (await import("./backup-list.ts")).backupList,
    isQuestion: true,
  },
  "backup-merge": { load: async () => (await import("./backup-merge.ts")).backupMerge },
  "backup-mark": { load: async () => (await import("./backup-mark.ts")).backupMark },
  copy: { load: async (program) => (await import("./copy.ts")).copyCommand(program) },
  delete: { load: async () => (await import("./delete.ts")).deleteCommand },
  expire: { load: async () => (await import("./expire.ts")).expire },
  info: { load: async () => (await import("./info.ts")).info, isQuestion: true },
  timeline: { load: async () => (await import("./timeline.ts")).timeline, isQuestion: true },
  find: { load: async () => (await import("./find.ts")).findCommand, isQuestion: true },
  "wal-show": { load: async () => (await import("./wal-show.ts")).walShow, isQuestion: true },
  rekey: { load: async () => (await import("./rekey.ts")).rekeyCommand },
  verify: { load: async () => (await import("./verify.ts")).verify, isQuestion: true },
  "wal-verify": { load: async () => (await import("./wal-verify.ts")).walVerify, isQuestion: true },
  st: {
    load: async (program) => (await import("./st.ts")).storageTools(program),
    exitCode: storageToolExitCode,
    isQuestion: true,
  },
  setup: { load: async () => (await import("./setup.ts")).setup },
  config: { load: async (program) => (await import("./config.ts")).configCommand(program) },
  flags: { load: async () => (await import("./flags.ts")).flagsCommand },
  completion: {
    load: async (program) => (await import("./completion.ts")).completionCommand(program),
  },
  help: { load: async (program) => (await import("./help.ts")).helpCommand(program) },
  version: { load: async (program) => (await import("./version.ts")).versionCommand(program) },
};

/** The entry of a command; `name` may be anything that a user wrote. */
export function commandEntry(name: string | undefined): CommandEntry | undefined {
  return name !== undefined && Object.hasOwn(commands, name) ? commands[name] : undefined;
}
