import { FormatError, TruncatedError } from "../errors.ts";

/** One line of tablespace_map: recovery makes the symlink pg_tblspc/<oid> to `path`. */
export interface TablespaceLocation {
  readonly oid: number;
  /** Absolute path of the tablespace on the server that was backed up. */
  readonly path: string;
}

/** 13 writes a backslash as it is; later releases put another before it. */
const BACKSLASH_ESCAPED_SINCE = 14;
const OID_AND_PATH = /^([1-9][0-9]{0,9}) ([^]+)$/;
const OID_MAX = 0xffff_ffff;

/**
 * Reads tablespace_map as the server of `majorVersion` would. Throws FormatError for a line that is
 * no number and path, TruncatedError when the last line has no end.
 *
 * @source read_tablespace_map, src/backend/access/transam/xlogrecovery.c (xlog.c before 15)
 */
export function parseTablespaceMap(text: string, majorVersion: number): TablespaceLocation[] {
  const split = majorVersion >= BACKSLASH_ESCAPED_SINCE ? splitLines : splitLinesOf13;
  const { lines, rest } = split(text);
  if (rest !== "") {
    throw new TruncatedError(`tablespace_map is cut off: it ends with ${JSON.stringify(rest)}`);
  }
  return lines.map((line) => {
    const [, oid = "", path = ""] = OID_AND_PATH.exec(line) ?? [];
    if (path === "" || Number(oid) > OID_MAX) {
      throw new FormatError(`not a line of tablespace_map: ${JSON.stringify(line)}`);
    }
    return { oid: Number(oid), path };
  });
}

/**
 * Writes tablespace_map for a server of `majorVersion`. Throws FormatError for a path that 13 could
 * not read back: one with a backslash at its end or before a line break.
 *
 * @source do_pg_backup_start, src/backend/access/transam/xlog.c
 */
export function formatTablespaceMap(
  locations: readonly TablespaceLocation[],
  majorVersion: number,
): string {
  const isEscaped = majorVersion >= BACKSLASH_ESCAPED_SINCE;
  return locations
    .map(({ oid, path }) => {
      if (!isEscaped && /\\[\r\n]|\\$/.test(path)) {
        throw new FormatError(
          `tablespace_map of PostgreSQL ${majorVersion} can't hold the path ` +
            JSON.stringify(path),
        );
      }
      return `${oid} ${path.replaceAll(isEscaped ? /[\\\r\n]/g : /[\r\n]/g, "\\$&")}\n`;
    })
    .join("");
}

interface Split {
  readonly lines: string[];
  /** What stands behind the last line break, as it is in the text. */
  readonly rest: string;
}

/** A backslash takes its meaning from the next character; empty lines do not count. */
function splitLines(text: string): Split {
  const lines: string[] = [];
  let line = "";
  let lineStart = 0;
  for (let i = 0; i < text.length; i += 1) {
    const character = text.charAt(i);
    if (character === "\\" && i + 1 < text.length) {
      i += 1;
      line += text.charAt(i);
    } else if (character === "\n" || character === "\r") {
      if (line !== "") lines.push(line);
      line = "";
      lineStart = i + 1;
    } else {
      line += character;
    }
  }
  return { lines, rest: text.slice(lineStart) };
}

/** A backslash counts only before a line break, whatever stands before the backslash. */
function splitLinesOf13(text: string): Split {
  const parts = text.split(/(?<!\\)[\r\n]/);
  const rest = parts.at(-1) ?? "";
  const lines = parts
    .slice(0, -1)
    .filter((line) => line !== "")
    .map((line) => line.replaceAll(/\\([\r\n])/g, "$1"));
  return { lines, rest };
}
