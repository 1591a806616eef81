/** One line of a password file; "*" matches everything. */
export interface PasswordEntry {
  readonly host: string;
  readonly port: string;
  readonly database: string;
  readonly user: string;
  readonly password: string;
}

/** Whom a password is wanted for; `host` is "localhost" for the socket in its usual place. */
export interface PasswordRequest {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
}

/**
 * Reads a password file: `host:port:database:user:password`, with `\` before a colon or backslash
 * that is meant as such. Comments, empty and incomplete lines are passed over, as libpq does.
 *
 * @source passwordFromFile, src/interfaces/libpq/fe-connect.c
 */
export function parsePasswordFile(text: string): PasswordEntry[] {
  return text.split("\n").flatMap((line) => {
    if (line.startsWith("#")) return [];
    const [host, port, database, user, password] = splitFields(line.replace(/\r$/, ""));
    if (host === undefined || port === undefined || database === undefined) return [];
    if (user === undefined || password === undefined) return [];
    return [{ host, port, database, user, password }];
  });
}

/** Password of the first entry that matches; undefined if none does. */
export function findPassword(
  entries: readonly PasswordEntry[],
  { host, port, database, user }: PasswordRequest,
): string | undefined {
  return entries.find(
    (entry) =>
      matches(entry.host, host) &&
      matches(entry.port, String(port)) &&
      matches(entry.database, database) &&
      matches(entry.user, user),
  )?.password;
}

function matches(pattern: string, value: string): boolean {
  return pattern === "*" || pattern === value;
}

/** The fifth field goes to the end of the line. */
function splitFields(line: string): string[] {
  const fields = [""];
  for (let index = 0; index < line.length; index += 1) {
    const character = line.charAt(index);
    if (character === ":" && fields.length < 5) {
      fields.push("");
      continue;
    }
    if (character === "\\" && index + 1 < line.length) index += 1;
    fields[fields.length - 1] += line.charAt(index);
  }
  return fields;
}
