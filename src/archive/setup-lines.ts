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
