import type { CallerName } from "../archive/caller-name.ts";
import type { Config } from "../config/config.ts";
import type { Launch } from "../daemon/service.ts";
import type { Clock } from "../io/clock.ts";
import type { DetachedUse } from "../io/detached.ts";
import type { Log } from "../io/log.ts";
import type { Audience } from "../storage/open.ts";
import type { StorageUse } from "../storage/failover-open.ts";
import type { Storage } from "../storage/storage.ts";
import type { StorageTraffic } from "../storage/traffic.ts";

/** What a command may use of the world. Made in main.ts; tests make their own. */
export interface Context {
  readonly config: Config;
  readonly log: Log;
  readonly clock: Clock;
  /** Aborted by SIGTERM, SIGINT and SIGHUP, with an InterruptedError as its reason. */
  readonly signal: AbortSignal;
  /** The directory that we were started in: PGDATA, when PostgreSQL starts us. */
  readonly workingDirectory: string;
  /** Standard output: data for the user or another program, never progress. */
  readonly write: (text: string) => Promise<void>;
  /** The same for what is no text; absent where nothing takes it. */
  readonly writeBytes?: (bytes: Uint8Array) => Promise<void>;
  /** Shows where a long job stands: one rewritten line on a terminal, a line a minute in a log. */
  readonly progress: ProgressSink;
  /**
   * The configured storage with all its wrappers. Throws ConfigError if there is none. With
   * fail-over storages, all of them as one: what for is said by `use`, "all" unless given.
   */
  readonly openStorage: (use?: StorageUse) => Promise<Storage>;
  /** The same without encryption: objects as they are stored; absent where there is none. */
  readonly openStored?: () => Promise<Storage>;
  /** Who waits for what the command says; absent where that is a server, or nobody. */
  readonly audience?: Audience | undefined;
  /** What all storages of this process share; absent: each that is opened has its own. */
  readonly traffic?: StorageTraffic;
  /**
   * This program, for other processes that have to find it; absent where nothing may be started.
   */
  readonly self?: Self;
  /** What this process was given by whoever started it; absent where it is none of its own. */
  readonly launch?: Launch;
  /** From now on the signal calls the listener and does nothing else. */
  readonly onSignal?: (signal: TakenSignal, listener: () => void) => void;
  /** Reads all settings once more. Rejects with ConfigError, and then nothing has changed. */
  readonly reload?: () => Promise<Reloaded>;
}

/** Signals that a process which stays may use for itself. */
export type TakenSignal = "SIGHUP" | "SIGUSR1";

/** What depends on settings. */
export type Reloaded = Pick<Context, "config" | "log" | "self">;

/** How to start this program again. */
export interface Self {
  /** The words that start it, with all settings that were flags. */
  readonly words: readonly string[];
  /**
   * Of the program, its settings and the files that they name: another one must not answer in its
   * place.
   */
  readonly fingerprint: string;
  /** Who called, where a server did; see ready-call.ts. */
  readonly caller?: CallerName | undefined;
  /** The file that settings were read from, if there was one: an absolute path. */
  readonly configFile?: string | undefined;
  /**
   * Begins to watch: the answer tells, whenever it is asked, whether that file is as it was read
   * and those that settings name (keys, certificates) are as they are now. Absent where a change
   * counts from a reload on only.
   */
  readonly watchSettings?: () => () => boolean;
  /**
   * Starts a command with the same settings that outlives us; its output is appended to the file.
   * Throws what the file system throws for that.
   */
  readonly startDetached: (words: readonly string[], outputPath: string, use?: DetachedUse) => void;
}

export interface ProgressState {
  /** "backing up", "restoring". */
  readonly activity: string;
  readonly doneBytes: number;
  /** Absent while it is not known. */
  readonly totalBytes?: number;
}

export interface ProgressSink {
  update(state: ProgressState): void;
  /** Takes the line off the terminal. */
  end(): void;
}

/** A flag of one command. Settings are flags of every command and stand in config/settings.ts. */
export interface Flag {
  /** Without dashes: "pretty". */
  readonly name: string;
  readonly short?: string;
  /** Name of the value in the help ("<name>"); absent for a switch. */
  readonly value?: string;
  readonly text: string;
  /** A value flag that may be given several times. */
  readonly isRepeatable?: boolean;
}

/** The words of a command line, after settings and the command's name were taken out. */
export interface Words {
  readonly positionals: readonly string[];
  /** Switches that were given. */
  has(flag: string): boolean;
  /** Value of a flag, the last one if repeated. */
  value(flag: string): string | undefined;
  values(flag: string): readonly string[];
}

/**
 * One command. `parse` is pure and throws UsageError; `run` reads top to bottom: check, open, do,
 * say. A command that fails throws; the exit code follows from the error by the table in
 * exit-codes.ts, and for what PostgreSQL calls by the rule of its entry in index.ts.
 */
export interface Command<Arguments = unknown> {
  readonly name: string;
  /** After the program's name: "wal-push <wal-file>". */
  readonly usage: string;
  readonly summary: string;
  /** Further paragraphs of the help. */
  readonly details?: string;
  readonly flags: readonly Flag[];
  /** Commands that need no readable configuration, such as help. */
  readonly needsConfig: boolean;

  parse(words: Words): Arguments;
  run(args: Arguments, context: Context): Promise<void>;
}
