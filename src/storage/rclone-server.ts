import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StorageError, systemErrorCode } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import type { Clock } from "../io/clock.ts";
import { randomHex } from "../io/random.ts";
import { Watchdog } from "../io/watchdog.ts";
import type { RcloneConfig } from "./rclone-config.ts";

export interface RcloneServerOptions {
  readonly clock: Clock;
  /** For its start. */
  readonly timeoutMs: number;
}

/**
 * Replaces itself by the program, in a process group of its own. What it leaves behind in the
 * group reads the pipe from us; when we are gone, however we ended, it removes the directory ($0)
 * and ends the group.
 */
const GUARDED = `
exec 3<&0
(cat <&3 >/dev/null 2>&1; rm -rf "$0"; kill -KILL 0) 2>/dev/null &
exec 3<&-
exec "$@" </dev/null
`;
const LISTENING = /Serving remote control on (http:\/\/127\.0\.0\.1:\d+)/;
const STOP_TIMEOUT_MS = 3_000;
const KEPT_OUTPUT = 4096;
const USER = "walnut";

/**
 * One rclone that serves its remote control on a port of the loopback, with a random password, for
 * as long as we live.
 */
export class RcloneServer {
  readonly origin: string;
  readonly authorization: string;
  readonly #child: ChildProcess;
  readonly #directory: string;
  readonly #ended: Promise<void>;
  #isEnded = false;

  private constructor(
    child: ChildProcess,
    directory: string,
    access: { readonly origin: string; readonly authorization: string },
  ) {
    this.#child = child;
    this.#directory = directory;
    this.origin = access.origin;
    this.authorization = access.authorization;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#ended = promise;
    const end = () => {
      this.#isEnded = true;
      endGroup(child);
      resolve();
    };
    if (child.exitCode === null && child.signalCode === null) child.once("exit", end);
    else end();
  }

  static async start(
    config: RcloneConfig,
    { clock, timeoutMs }: RcloneServerOptions,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<RcloneServer> {
    const directory = await mkdtemp(join(tmpdir(), "walnut-rclone-"));
    const onTimeout = () =>
      new StorageError(`rclone did not start within ${timeoutMs / 1000} s`, { isRetryable: true });
    using watchdog = new Watchdog({ signal, timeoutMs, clock, onTimeout });
    let child: ChildProcess | undefined;
    try {
      const password = randomHex(16);
      child = await launch(config, directory, password);
      const origin = await untilAborted(listening(child, config), watchdog.signal);
      const basic = Buffer.from(`${USER}:${password}`).toString("base64");
      return new RcloneServer(child, directory, { origin, authorization: `Basic ${basic}` });
    } catch (error) {
      if (child !== undefined) endGroup(child);
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** Keys of remotes need not lie on the disk once rclone has read them. */
  async forgetConfig(): Promise<void> {
    await rm(join(this.#directory, CONFIG_NAME), { force: true });
  }

  async stop(): Promise<void> {
    if (!this.#isEnded) {
      const timer = setTimeout(() => endGroup(this.#child), STOP_TIMEOUT_MS);
      this.#child.kill("SIGTERM");
      await this.#ended;
      clearTimeout(timer);
    }
    await rm(this.#directory, { recursive: true, force: true });
  }
}

const CONFIG_NAME = "rclone.conf";

async function launch(
  config: RcloneConfig,
  directory: string,
  password: string,
): Promise<ChildProcess> {
  const passwords = join(directory, "passwords");
  const sum = createHash("sha1").update(password).digest("base64");
  // Not on the command line and not in the environment, which others may see.
  await writeFile(passwords, `${USER}:{SHA}${sum}\n`, { mode: 0o600 });
  const words = ["rcd", "--rc-addr", "127.0.0.1:0", "--rc-serve", "--rc-htpasswd", passwords];
  if (config.configText !== undefined) {
    const path = join(directory, CONFIG_NAME);
    await writeFile(path, config.configText, { mode: 0o600 });
    words.push("--config", path);
  } else if (config.configFile !== undefined) {
    words.push("--config", config.configFile);
  }
  return spawn("/bin/sh", ["-c", GUARDED, directory, config.program, ...words], {
    detached: true,
    stdio: ["pipe", "ignore", "pipe"],
  });
}

async function listening(child: ChildProcess, { program }: RcloneConfig): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let output = "";
  child.stdin?.on("error", () => {});
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    output = (output + text).slice(-KEPT_OUTPUT);
    const [, origin] = LISTENING.exec(output) ?? [];
    if (origin !== undefined) resolve(origin);
  });
  child.once("error", (error) => reject(notStarted(program, systemErrorCode(error) ?? `${error}`)));
  child.once("close", (code) => {
    const [line] = output.trim().split("\n").slice(-1);
    reject(notStarted(program, line === undefined || line === "" ? `it ended with ${code}` : line));
  });
  child.once("exit", () => endGroup(child));
  return await promise;
}

function notStarted(program: string, reason: string): StorageError {
  const isMissing = /not found|No such file/.test(reason);
  return new StorageError(`${program} does not start: ${reason}`, {
    isRetryable: false,
    hint: isMissing
      ? "Install rclone, or set WALNUT_RCLONE_PROGRAM to its path."
      : "Try the remote with rclone itself: rclone lsd remote:path.",
  });
}

/** The one that watches us is in the group, so that its number can't be another's by now. */
function endGroup({ pid, stdin }: ChildProcess): void {
  if (pid === undefined || stdin?.destroyed === true) return;
  // It reads the end of this pipe and then ends the group, itself included.
  stdin?.destroy();
}
