import { confLine, shellCommand } from "../archive/setup-lines.ts";

export interface UnitParts {
  /** The words that start walnut. */
  readonly words: readonly string[];
  readonly dataDirectory: string;
  /** The owner of the data directory: a name, or a number that has none. */
  readonly user: string;
}

const SOCKET = "/run/walnut/walnut.sock";

/**
 * A systemd unit for the daemon of one data directory, with the lines of postgresql.conf that use
 * it. @source systemd.service(5), systemd.syntax(7), systemd.unit(5)
 */
export function systemdUnit({ words, dataDirectory, user }: UnitParts): string {
  // The client reads no settings.
  const program = words.filter((word) => !word.startsWith("--"));
  const client = shellCommand([...program, "client", SOCKET]);
  const shell = client.replaceAll("%", "%%");
  return `# /etc/systemd/system/walnut.service
[Unit]
Description=walnut: WAL archive of ${dataDirectory.replaceAll("%", "%%")}
Wants=network-online.target
After=network-online.target
Before=postgresql.service
# However often it ends, it is started again: pg_wal grows as long as it is away.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
User=${user}
RuntimeDirectory=walnut
RuntimeDirectoryMode=0700
Environment=${unitWord(`PGDATA=${dataDirectory}`)}
ExecStart=${[...words, "daemon", SOCKET].map(unitWord).join(" ")}
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=60
WatchdogSignal=SIGKILL
TimeoutStopSec=40
Restart=always
RestartSec=1
NoNewPrivileges=true

[Install]
WantedBy=multi-user.target

# postgresql.conf
# ${confLine("archive_command", `${shell} wal-push %f`)}
# ${confLine("restore_command", `exec ${shell} wal-fetch %f %p`)}
`;
}

/**
 * The name of a user, or the number where the file of passwd(5) does not have it (a directory
 * service may).
 */
export function userName(userId: number, passwd: string): string {
  const fields = passwd.split("\n").map((line) => line.split(":"));
  return fields.find(([, , id]) => id === String(userId))?.[0] ?? String(userId);
}

/** Quotes a word of a unit file; percent and dollar signs have a meaning there, too. */
export function unitWord(word: string): string {
  const escaped = word.replaceAll("%", "%%").replaceAll("$", "$$$$");
  if (/^[\w./:=@,+%$-]+$/.test(escaped)) return escaped;
  return `"${escaped.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}
