import { sha256Hex } from "../io/runtime.ts";
import { COMING_SUFFIX } from "./prefetch-directory.ts";
import { SERVER_LINK } from "./server-link.ts";
import type { Spool } from "./spool-directory.ts";

/** What setup knows of the machine when it writes the archive_command. */
export interface ArchiveSetup {
  readonly spool: Spool;
  /** Where the settings come from: notes from before it changed do not count. */
  readonly configFile: string | undefined;
  /** Whether server-link.ts can tie the notes to one start of the server. */
  readonly isServerLinked: boolean;
}

/**
 * `archive_command`: the shell itself finds out that a file was archived ahead, and starts us only
 * for others. docs/decisions/0040 tells why it may. `program` are the words that start us.
 */
export function archiveCommandLine(
  program: readonly string[],
  { spool, configFile, isServerLinked }: ArchiveSetup,
): string {
  const walnut = shellCommand(program);
  // Times of two file systems come from two clocks, if one of them is on another machine.
  if (!spool.isOnWalFileSystem) {
    return confLine("archive_command", `exec ${escaped(walnut)} wal-push "%p"`);
  }
  const archiver = `"$PPID"-${lineHash(program)}`;
  const older = ['"%p"', "postmaster.pid", ...configWords(configFile)];
  const notes = escaped(shellWord(spool.notes));
  const tests = shellTests('"$n"', { older, link: isServerLinked ? notes : undefined });
  return confLine(
    "archive_command",
    `n=${notes}/${archiver}/%f; ${tests} || ` +
      `exec ${escaped(walnut)} wal-push --archiver ${archiver} "%p"`,
  );
}

/** That a file is newer than the `older` ones, and the directory `link` tied to this server. */
function shellTests(
  file: string,
  { older, link }: { readonly older: readonly string[]; readonly link: string | undefined },
): string {
  const ages = older.map((path) => `[ ${file} -nt ${path} ]`);
  const server = link === undefined ? [] : [`[ ${link}/${SERVER_LINK} -ef postmaster.pid ]`];
  return [...ages, ...server].join(" && ");
}

/** Another line, with other flags, has another one. */
function lineHash(program: readonly string[]): string {
  return sha256Hex(program.join("\0")).slice(0, 8);
}

function configWords(configFile: string | undefined): readonly string[] {
  return configFile === undefined ? [] : [escaped(shellWord(configFile))];
}

/** What setup knows of the machine when it writes the restore_command. */
export interface RestoreSetup {
  /** Where segments are fetched ahead to. */
  readonly spool: Spool;
  /** The installed program of rename-program.ts; absent where it does not run. */
  readonly renameProgram: string | undefined;
  /** Where the settings come from: what was fetched before it changed does not count. */
  readonly configFile: string | undefined;
  /** Whether server-link.ts can tie segments to one start of the server. */
  readonly isServerLinked: boolean;
}

/** `restore_command` that starts us for every file, for a person's eyes. */
export function plainRestoreCommandLine(program: readonly string[]): string {
  return confLine("restore_command", plainRestoreCommand(program));
}

/**
 * The value of that line. Without "exec" dash starts a process, and where it can't it ends with 2:
 * to PostgreSQL the end of the archive.
 */
export function plainRestoreCommand(program: readonly string[]): string {
  return `exec ${escaped(shellCommand(program))} wal-fetch "%f" "%p"`;
}

/**
 * `restore_command`: the shell itself renames a segment that was fetched ahead into its place, and
 * starts us only for others. docs/decisions/0041 tells why it may. Without `setup` none is fetched
 * ahead.
 */
export function restoreCommandLine(program: readonly string[], setup?: RestoreSetup): string {
  const walnut = escaped(shellCommand(program));
  if (setup?.spool.isOnWalFileSystem !== true) {
    const steps = [TRAP, `set -- ${walnut} wal-fetch "%f" "%p"`, CALL];
    return confLine("restore_command", steps.join("; "));
  }
  const { spool, renameProgram, configFile, isServerLinked } = setup;
  const recovery = `"$PPID"-${lineHash(program)}`;
  const older = ["postmaster.pid", ...configWords(configFile)];
  const tests = shellTests('"$f"', { older, link: isServerLinked ? '"$d"' : undefined });
  const steps = [
    TRAP,
    `set -- ${walnut} wal-fetch --recovery ${recovery} "%f" "%p"`,
    `c='${TRAP}; ${CALL}'`,
    `d=${escaped(shellWord(spool.prefetch))}/${recovery}`,
    `f=$d/%f`,
    ...takingSteps(renameProgram, tests),
    `eval "$c"`,
  ];
  return confLine("restore_command", steps.join("; "));
}

/**
 * What a shell must not end with of itself: dash ends with 2 where it can't start a program, and
 * PostgreSQL takes 1 to 125 for the end of the archive.
 */
const FAILED_STATUS = 255;
/** What wal-fetch ends with at the end of the archive: exit-codes.ts. */
export const END_STATUS = 74;
/** What it ends with on a standby, which asks again then: with any other failure it would end. */
export const AGAIN_STATUS = 75;
const TRAP = `trap "exit ${FAILED_STATUS}" 0`;

/**
 * Ends as walnut does, but for what it never ends with and PostgreSQL would take for the end of the
 * archive: the runtime ends with 1 where the executable is truncated.
 */
const CALL =
  `"$@"; r=$?; [ $r = 0 ] || [ $r = ${END_STATUS} ] || [ $r = ${AGAIN_STATUS} ] || [ $r -gt 125 ] ` +
  `&& trap - 0; exit $r`;

function takingSteps(renameProgram: string | undefined, tests: string): readonly string[] {
  if (renameProgram === undefined) {
    return [`${tests} && mv -f "$f" "%p" 2>/dev/null && trap - 0 && exit`];
  }
  const take = escaped(shellWord(renameProgram));
  return [
    // One that is under way comes sooner than walnut could start and ask for it.
    `[ -e "$f" ] || [ ! -e "$f"${COMING_SUFFIX} ] || ${take} "$f" "$f"${COMING_SUFFIX} 2>/dev/null`,
    `${tests} && [ -x ${take} ] && exec ${take} "$f" "%p" /bin/sh -c "$c" sh "$@"`,
  ];
}

/** A line of postgresql.conf with a text value. @source guc-file.l: quotes and backslashes */
export function confLine(name: string, value: string): string {
  return `${name} = '${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
}

/** The words of a command, quoted for a POSIX shell. */
export function shellCommand(words: readonly string[]): string {
  return words.map(shellWord).join(" ");
}

/** Quotes one word for a POSIX shell. */
export function shellWord(word: string): string {
  return /^[\w./:=@,+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** PostgreSQL replaces %f and %p; a percent sign of its own is doubled. */
function escaped(shellText: string): string {
  return shellText.replaceAll("%", "%%");
}
