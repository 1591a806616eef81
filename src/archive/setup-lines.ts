import { sha256Hex } from "../io/runtime.ts";
import { COMING_SUFFIX } from "./prefetch-directory.ts";
import type { Spool } from "./spool-directory.ts";

/**
 * `archive_command`: the shell itself finds out that a file was archived ahead, and starts us only
 * for others. docs/decisions/0040 tells why it may. `program` are the words that start us.
 */
export function archiveCommandLine(program: readonly string[], spool: Spool): string {
  const walnut = program.map(shellWord).join(" ");
  // Times of two file systems come from two clocks, if one of them is on another machine.
  if (!spool.isOnWalFileSystem) {
    return confLine("archive_command", `exec ${escaped(walnut)} wal-push "%p"`);
  }
  const note = `${escaped(shellWord(spool.notes))}/"$PPID"/%f`;
  return confLine(
    "archive_command",
    `[ ${note} -nt "%p" ] && [ ${note} -nt postmaster.pid ] || ` +
      `exec ${escaped(walnut)} wal-push --archiver "$PPID" "%p"`,
  );
}

/** What setup knows of the machine when it writes the restore_command. */
export interface RestoreSetup {
  /** Where segments are fetched ahead to; absent if none are. */
  readonly spool: Spool | undefined;
  /** The installed program of rename-program.ts; absent where it does not run. */
  readonly renameProgram: string | undefined;
  /** Where the settings come from: what was fetched before it changed does not count. */
  readonly configFile: string | undefined;
}

/** `restore_command` that starts us for every file. */
export function plainRestoreCommandLine(program: readonly string[]): string {
  const walnut = escaped(program.map(shellWord).join(" "));
  return confLine("restore_command", `exec ${walnut} wal-fetch "%f" "%p"`);
}

/**
 * `restore_command`: the shell itself renames a segment that was fetched ahead into its place, and
 * starts us only for others. docs/decisions/0041 tells why it may.
 */
export function restoreCommandLine(
  program: readonly string[],
  { spool, renameProgram, configFile }: RestoreSetup,
): string {
  if (spool?.isOnWalFileSystem !== true) return plainRestoreCommandLine(program);
  const walnut = escaped(program.map(shellWord).join(" "));
  const hash = sha256Hex(program.join("\0")).slice(0, 8);
  const recovery = `"$PPID"-${hash}`;
  const tests = ['[ "$f" -nt postmaster.pid ]'];
  if (configFile !== undefined) tests.push(`[ "$f" -nt ${escaped(shellWord(configFile))} ]`);
  const take = renameProgram === undefined ? "mv -f" : escaped(shellWord(renameProgram));
  // One that is under way comes sooner than walnut could start and ask for it.
  const wait =
    renameProgram === undefined
      ? ""
      : `[ -e "$f" ] || ${take} wait "$f" "$f"${COMING_SUFFIX} 2>/dev/null; `;
  return confLine(
    "restore_command",
    `f=${escaped(shellWord(spool.prefetch))}/${recovery}/%f; ${wait}${tests.join(" && ")} && ` +
      `${take} "$f" "%p" 2>/dev/null || ` +
      `exec ${walnut} wal-fetch --recovery ${recovery} "%f" "%p"`,
  );
}

/** A line of postgresql.conf with a text value. @source guc-file.l: quotes and backslashes */
export function confLine(name: string, value: string): string {
  return `${name} = '${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
}

/** Quotes one word for a POSIX shell. */
export function shellWord(word: string): string {
  return /^[\w./:=@,+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** PostgreSQL replaces %f and %p; a percent sign of its own is doubled. */
function escaped(shellText: string): string {
  return shellText.replaceAll("%", "%%");
}
