import { resolve } from "node:path";
import type { CallerName } from "../archive/caller-name.ts";
import type { Config } from "../config/config.ts";
import { findSettings } from "../config/find-settings.ts";
import type { FoundSettings } from "../config/found-settings.ts";
import { general } from "../config/general-settings.ts";
import { defaultConfig, makeConfig, settingWarnings } from "../config/load.ts";
import { OUR_PREFIX, type Setting, settingFlagNames } from "../config/setting.ts";
import { SettingIndex } from "../config/settings.ts";
import { ConfigError, InterruptedError, OperationError, UsageError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { startDetached } from "../io/detached.ts";
import type { LogLevel } from "../io/log.ts";
import { type CommandLog, type LogFormat, createLog } from "../io/log-lines.ts";
import { createMask } from "../io/mask.ts";
import type { Audience } from "../storage/open.ts";
import { StorageTraffic } from "../storage/traffic.ts";
import type { Command, Context, Self, Words } from "./command.ts";
import { createContext } from "./context.ts";
import { errorExitCode } from "./exit-codes.ts";
import { formatCommandHelp, formatOverview, unknownCommand } from "./help.ts";
import { type CommandEntry, type Program, commandEntry, commands } from "./index.ts";
import { lazyProgress, logProgress, terminalProgress } from "./progress.ts";
import { settingsFingerprint, settingsWatch } from "./setting-files.ts";
import { Terminal } from "./terminal.ts";
import { formatTraffic, formatTrafficJson } from "./traffic-text.ts";
import { type SettingFlags, findCommand, readCommandLine } from "./words.ts";

/** Standard error of the process. */
export interface Output {
  readonly isTerminal: boolean;
  /** Width of the terminal, where it is one. */
  readonly columns: number;
  /** Never rejects: there is no place left to say why. */
  readonly write: (text: string) => Promise<void>;
}

/** What main.ts gives to a run: all that belongs to the process. */
export interface Machine {
  readonly args: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly homeDirectory?: string;
  readonly workingDirectory: string;
  readonly cpuCount: number;
  /** What `walnut version` prints. */
  readonly versionText: string;
  readonly clock: Clock;
  /** Whether local time is UTC. */
  readonly isUtc: boolean;
  readonly signal: AbortSignal;
  /** To standard output. Resolves also when its reader has gone; throws LocalFileError. */
  readonly writeOutput: (text: string) => Promise<void>;
  /** The same for bytes. */
  readonly writeBytes?: (bytes: Uint8Array) => Promise<void>;
  readonly stderr: Output;
  readonly fileExists: (path: string) => boolean;
  /** Sets a variable that a library reads from the environment. */
  readonly exportVariable: (name: string, value: string) => void;
  /** The words that start this program. */
  readonly programWords: readonly string[];
  /** Appends to a file at once. Throws what the file system throws. */
  readonly appendFile: (path: string, text: string) => void;
  readonly processId: number;
  /** See ready-call.ts. */
  readonly caller?: CallerName | undefined;
  readonly onSignal: NonNullable<Context["onSignal"]>;
}

/** What a failure needs to be told, as far as the run has come. */
interface RunState {
  log: CommandLog;
  positionals: readonly string[];
}

const LOG_LEVELS: Readonly<Record<"NORMAL" | "DEVEL" | "ERROR", LogLevel>> = {
  NORMAL: "info",
  DEVEL: "debug",
  ERROR: "error",
};

/**
 * Runs one command line and answers with the exit code; what failed has been said on standard
 * error. Never rejects.
 */
export async function runProgram(machine: Machine): Promise<number> {
  const terminal = new Terminal(machine.stderr);
  const index = new SettingIndex();
  const { name, rest } = findCommand(machine.args, settingFlags(index), isCommand);
  const entry = commandEntry(name);
  const state: RunState = {
    log: openLog(undefined, machine, terminal),
    positionals: rest.filter((word) => !word.startsWith("-")),
  };
  try {
    const parts = { machine, terminal, state, index };
    if (entry === undefined) await runWithoutCommand(name, parts);
    else await runCommand(entry, rest, parts);
    return 0;
  } catch (error) {
    terminal.clear();
    const isStop = error instanceof InterruptedError && machine.signal.aborted;
    if (isStop && entry?.isEndless === true) state.log.info(error.message);
    else logFailure(state.log, error);
    return (entry?.exitCode ?? errorExitCode)(error, {
      workingDirectory: machine.workingDirectory,
      positionals: state.positionals,
      fileExists: machine.fileExists,
    });
  }
}

interface RunParts {
  readonly machine: Machine;
  readonly terminal: Terminal;
  readonly state: RunState;
  readonly index: SettingIndex;
}

async function runCommand(
  entry: CommandEntry,
  rest: readonly string[],
  parts: RunParts,
): Promise<void> {
  const { machine, terminal, state, index } = parts;
  const flags = new Map<string, string>();
  const program = createProgram(parts, flags);
  const command = await entry.load(program);
  const line = readCommandLine(rest, settingFlags(index), command.flags);
  state.positionals = line.words.positionals;
  for (const [name, value] of line.settings) flags.set(name, value);
  if (line.isHelp) return await machine.writeOutput(await formatCommandHelp(command));

  // As we were started: variables that we set ourselves must not outlive the file they come from.
  const environment = { ...machine.environment };
  const found = await program.settings();
  const log = openLog(found, machine, terminal);
  state.log = log;
  const args = parsed(command, line.words);
  const config = command.needsConfig ? program.configure(found) : defaultConfig(machine);
  for (const [name, value] of found.beside.sdkVariables) machine.exportVariable(name, value);
  const isQuiet = entry.isFrequent === true || !command.needsConfig;
  for (const warning of settingWarnings(found)) log[isQuiet ? "debug" : "warning"](warning);

  const { clock, signal, workingDirectory, writeOutput } = machine;
  const settingWords = [...line.settings].map(([name, value]) => {
    // Who is started again may stand elsewhere.
    const isPath = index.byFlag(name) === general.configFile;
    return `--${name}=${isPath ? resolve(workingDirectory, value) : value}`;
  });
  const reload = async () => {
    const again = await findSettings({ ...sources(machine), environment, flags }, index);
    const config = program.configure(again);
    state.log = openLog(again, machine, terminal);
    for (const [name, value] of again.beside.sdkVariables) machine.exportVariable(name, value);
    for (const warning of settingWarnings(again)) state.log.warning(warning);
    return {
      config,
      log: state.log,
      self: describeSelf(settingWords, { config, found: again }, machine),
    };
  };
  const isText = readOr(found, general.logFormat, "text") === "text";
  const traffic = new StorageTraffic(clock);
  const context = createContext({
    traffic,
    audience: audienceOf(entry, terminal),
    config,
    log,
    clock,
    signal,
    workingDirectory,
    write: writeOutput,
    ...(machine.writeBytes === undefined ? {} : { writeBytes: machine.writeBytes }),
    self: describeSelf(settingWords, { config, found }, machine),
    launch: { processId: machine.processId, environment },
    onSignal: machine.onSignal,
    reload,
    progress: lazyProgress(() =>
      isText && terminal.isTerminal ? terminalProgress(terminal, clock) : logProgress(log, clock),
    ),
  });
  try {
    await command.run(args, context);
  } finally {
    if (readOr(found, general.stats, false)) sayTraffic(traffic, { isText, terminal });
  }
}

function audienceOf(entry: CommandEntry, { isTerminal }: Terminal): Audience | undefined {
  if (entry.isQuestion === true) return "reader";
  return isTerminal && entry.isFrequent !== true ? "watcher" : undefined;
}

/** Who names the words wrongly is told how they should be, where there is no better advice. */
function parsed<Arguments>(command: Command<Arguments>, words: Words): Arguments {
  try {
    return command.parse(words);
  } catch (error) {
    if (!(error instanceof UsageError) || error.hint !== undefined) throw error;
    throw new UsageError(error.message, { hint: `Usage: walnut ${command.usage}`, cause: error });
  }
}

/** Also of a command that failed: then it may tell why. */
function sayTraffic(
  { counts }: StorageTraffic,
  { isText, terminal }: { readonly isText: boolean; readonly terminal: Terminal },
): void {
  terminal.writeLines(isText ? formatTraffic(counts) : formatTrafficJson(counts));
}

function describeSelf(
  settingWords: readonly string[],
  { config, found }: { readonly config: Config; readonly found: FoundSettings },
  machine: Machine,
): Self {
  const { programWords, environment, workingDirectory, versionText } = machine;
  const words = [...programWords, ...settingWords];
  const places = { config, found, environment, workingDirectory };
  const { configFile } = found.beside;
  return {
    words,
    get fingerprint() {
      return settingsFingerprint(versionText, places);
    },
    caller: machine.caller,
    configFile: configFile && resolve(workingDirectory, configFile),
    watchSettings: () => settingsWatch(places),
    startDetached: (more, outputPath, use) =>
      startDetached([...words, ...more], { workingDirectory, environment, outputPath, use }),
  };
}

/** Without a command there is only the help to show. */
async function runWithoutCommand(name: string | undefined, parts: RunParts): Promise<void> {
  const { machine, index } = parts;
  const program = createProgram(parts, new Map());
  if (name !== undefined) throw unknownCommand(name, program);
  const { isHelp } = readCommandLine(machine.args, settingFlags(index), []);
  if (!isHelp && machine.args.length > 0) {
    throw new UsageError("the command is missing", { hint: "`walnut help` lists all commands." });
  }
  await machine.writeOutput(await formatOverview(program));
}

function isCommand(word: string): boolean {
  return commandEntry(word) !== undefined;
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

/** `flags` may be filled until the settings are asked for. */
function createProgram(
  { machine, index }: Pick<RunParts, "machine" | "index">,
  flags: ReadonlyMap<string, string>,
): Program {
  return {
    commands,
    versionText: machine.versionText,
    settings: () => findSettings({ ...sources(machine), flags }, index),
    configure: (found) => makeConfig(found, machine),
    async configureFile(path) {
      const file = new Map([[settingFlagNames(general.configFile)[0] ?? "config", path]]);
      const all = sources(machine);
      const others = Object.entries(all.environment).filter(([name]) => !OUR_PREFIX.test(name));
      const source = { ...all, flags: file, environment: Object.fromEntries(others) };
      return makeConfig(await findSettings(source, index), machine);
    },
  };
}

function sources({ environment, homeDirectory }: Machine) {
  return { environment, ...(homeDirectory === undefined ? {} : { homeDirectory }) };
}

/** The log as it is configured; as far as that is wrong, and before it is read, with defaults. */
function openLog(
  found: FoundSettings | undefined,
  machine: Machine,
  terminal: Terminal,
): CommandLog {
  const destination = readOr(found, general.logDestination, undefined);
  const show = (lines: string) => terminal.writeLines(lines);
  const options = {
    format: readOr<LogFormat>(found, general.logFormat, "text"),
    level: LOG_LEVELS[readOr<keyof typeof LOG_LEVELS>(found, general.logLevel, "NORMAL")],
    clock: machine.clock,
    isUtc: machine.isUtc,
    mask: createMask(found?.beside.secrets ?? []),
  };
  if (destination === undefined || destination === "stderr") {
    return createLog({ ...options, write: show });
  }
  const append = (lines: string): boolean => appends(destination, lines, machine);
  // A log file that can't be written is no reason to stop archiving.
  const log = createLog({ ...options, write: (lines) => void (append(lines) || show(lines)) });
  const both = createLog({
    ...options,
    write(lines) {
      append(lines);
      show(lines);
    },
  });
  return {
    ...log,
    // Who started us, and logs our exit code, has to be told why; but a standby asks for what is not
    // there yet all the time.
    failure: (one) => (one.code === "not-in-archive" ? log : both).failure(one),
  };
}

/** Whether the log file could be written. */
function appends(path: string, lines: string, { appendFile }: Machine): boolean {
  try {
    appendFile(path, lines);
    return true;
  } catch {
    return false;
  }
}

function readOr<T>(found: FoundSettings | undefined, setting: Setting<T>, otherwise: T): T;
function readOr<T>(
  found: FoundSettings | undefined,
  setting: Setting<T>,
  otherwise: undefined,
): T | undefined;
function readOr<T>(
  found: FoundSettings | undefined,
  setting: Setting<T>,
  otherwise: T | undefined,
): T | undefined {
  try {
    return found?.get(setting) ?? otherwise;
  } catch (error) {
    if (error instanceof ConfigError) return otherwise;
    throw error;
  }
}

function logFailure(log: CommandLog, error: unknown): void {
  if (error instanceof OperationError) {
    log.failure({
      message: error.message,
      code: error.code,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    });
    return;
  }
  const stack = error instanceof Error ? error.stack : undefined;
  log.failure({
    message: `a bug in walnut: ${error instanceof Error ? error.message : String(error)}`,
    code: "bug",
    hint: "Please report this, with the lines above and what was run.",
    ...(stack === undefined ? {} : { stack }),
  });
}
