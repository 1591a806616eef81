import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chownTree, serverUser } from "./server-user.ts";
import { walnutCommand } from "./walnut.ts";

export interface Receiver {
  readonly pid: number | undefined;
  readonly output: () => string;
  /** Kills it. */
  end(): Promise<void>;
}

/** Starts wal-receive as a machine of its own would. */
export async function startReceiver(
  root: string,
  { settings, words }: { settings: Readonly<Record<string, string>>; words: readonly string[] },
): Promise<Receiver> {
  const directory = join(root, "receiver");
  const configFile = join(root, "receiver.json");
  await mkdir(directory, { recursive: true });
  const own = {
    PGHOST: "127.0.0.1",
    PGUSER: "postgres",
    WALNUT_CACHE_DIR: directory,
    WALNUT_RECEIVE_PARTIAL_INTERVAL: "500ms",
  };
  await writeFile(configFile, JSON.stringify({ ...own, ...settings }));
  await chownTree(directory, serverUser());
  const [program = "", ...first] = walnutCommand();
  const child = spawn(program, [...first, "--config", configFile, "wal-receive", ...words], {
    ...serverUser(),
    cwd: directory,
    env: { PATH: process.env["PATH"], HOME: directory, TMPDIR: tmpdir() },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const text = { all: "" };
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => (text.all += chunk));
  const closed = once(child, "close");
  return {
    pid: child.pid,
    output: () => text.all,
    async end() {
      child.kill("SIGKILL");
      await closed;
    },
  };
}
