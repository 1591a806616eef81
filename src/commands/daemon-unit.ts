import { confLine, shellWord } from "../archive/setup-lines.ts";

export interface UnitParts {
  /** The words that start walnut. */
  readonly words: readonly string[];
  readonly dataDirectory: string;
  /** Of the owner of the data directory. */
  readonly userId: number;
}

const SOCKET = "/run/walnut/walnut.sock";

/**
 * A systemd unit for the daemon of one data directory, with the lines of postgresql.conf that use
 * it. @source systemd.service(5), systemd.syntax(7), systemd.unit(5)
 */
export function systemdUnit({ words, dataDirectory, userId }: UnitParts): string {
  // The client reads no settings.
  const program = words.filter((word) => !word.startsWith("--"));
  const client = [...program, "client", SOCKET].map(shellWord).join(" ");
  const shell = client.replaceAll("%", "%%");
  return `# /etc/systemd/system/walnut.service
[Unit]
Description=walnut: WAL archive of ${dataDirectory.replaceAll("%", "%%")}
Wants=network-online.target
After=network-online.target
Before=postgresql.service

[Service]
Type=notify
NotifyAccess=main
User=${userId}
RuntimeDirectory=walnut
RuntimeDirectoryMode=0700
Environment=${unitWord(`PGDATA=${dataDirectory}`)}
ExecStart=${[...words, "daemon", SOCKET].map(unitWord).join(" ")}
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=60
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

/** Quotes a word of a unit file; percent and dollar signs have a meaning there, too. */
export function unitWord(word: string): string {
  const escaped = word.replaceAll("%", "%%").replaceAll("$", "$$$$");
  if (/^[\w./:=@,+%$-]+$/.test(escaped)) return escaped;
  return `"${escaped.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}
