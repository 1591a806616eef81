import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ObjectExistsError } from "../../src/errors.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { OpenOptions } from "../../src/storage/open.ts";
import type { RcloneConfig } from "../../src/storage/rclone-config.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { patternSource, sha256 } from "../support/bodies.ts";
import { TcpFaultProxy } from "../support/fault-proxy.ts";
import type { TcpFault } from "../support/fault-proxy.ts";
import { leaveOut } from "../support/left-out.ts";
import { isRcloneAvailable, localRemote } from "../support/rclone.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { isSshServerAvailable, startSshServer } from "../support/ssh-server.ts";
import { assertHalfWrittenIsTold, keysOf, text, textOf } from "./contract-lists.ts";
import { until } from "../support/until.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const policy = { attempts: 6, baseMs: 1, capMs: 5, totalMs: 60_000 };

interface Bench {
  readonly directory: string;
  readonly store: string;
  /** Notes each of its starts, and then becomes rclone. */
  readonly program: string;
  /** "pid words" of each start. */
  readonly starts: () => Promise<readonly string[]>;
}

async function withBench(body: (bench: Bench) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "walnut-rclone-test-"));
  try {
    const store = join(directory, "store");
    await mkdir(store);
    const program = join(directory, "noting");
    const note = join(directory, "starts");
    await writeFile(program, `#!/bin/sh\necho "$$ $*" >> '${note}'\nexec rclone "$@"\n`, {
      mode: 0o755,
    });
    const starts = async () =>
      existsSync(note) ? (await readFile(note, "utf8")).trim().split("\n") : [];
    await body({ directory, store, program, starts });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function open(config: RcloneConfig, options: Partial<OpenOptions> = {}): Promise<Storage> {
  return await openStorage(config, {
    signal,
    requestTimeoutMs: 20_000,
    uploadConcurrency: 3,
    retryPolicy: policy,
    ...options,
  });
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function ended(pid: number): Promise<void> {
  await until(`process ${pid} has ended`, () => !isRunning(pid));
}

function pidOf(start: string | undefined): number {
  return Number(start?.split(" ", 1)[0]);
}

function rcloneTest(title: string, body: (bench: Bench) => Promise<void>): void {
  test(`rclone: ${title}`, async () => await withBench(body));
}

function describeProcess(): void {
  rcloneTest("one process serves all objects, and ends with the store", async (bench) => {
    const storage = await open(localRemote(bench.store, { program: bench.program }));
    assert.deepEqual(await bench.starts(), [], "not before the first call");
    const keys = Array.from({ length: 12 }, (_, index) => `a/${String(index).padStart(2, "0")}`);
    await Promise.all(keys.map((key) => storage.put(key, text(key), { signal, ifAbsent: true })));
    assert.deepEqual(await keysOf(storage, ""), keys);
    const starts = await bench.starts();
    assert.equal(starts.length, 1);
    const [, configPath = ""] = /--config (\S+)/.exec(starts[0] ?? "") ?? [];
    assert.match(configPath, /rclone\.conf$/);
    assert.ok(!existsSync(configPath), "keys of remotes do not stay on the disk");
    assert.ok(isRunning(pidOf(starts[0])));
    await storage[Symbol.asyncDispose]();
    await ended(pidOf(starts[0]));
    assert.ok(!existsSync(join(configPath, "..")));
  });

  rcloneTest("it ends with us even when we are killed", async ({ store, program, starts }) => {
    const script = join(import.meta.dirname, "rclone-program.ts");
    const child = spawn(process.execPath, [script, store, program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout, "data");
    const [start] = await starts();
    const pid = pidOf(start);
    assert.ok(isRunning(pid));
    child.kill("SIGKILL");
    await ended(pid);
    const [, directory = ""] = /--rc-htpasswd (\S+)\/passwords/.exec(start ?? "") ?? [];
    assert.ok(directory !== "" && !existsSync(directory), directory);
  });

  rcloneTest("one that was killed is started again", async ({ store, program, starts }) => {
    await using storage = await open(localRemote(store, { program }));
    await storage.put("a", text("x"), { signal });
    process.kill(pidOf((await starts())[0]), "SIGKILL");
    await storage.put("b", text("y"), { signal });
    assert.equal(await textOf(storage, "a"), "x");
    assert.equal((await starts()).length, 2);
  });

  rcloneTest("one that is killed in the middle of a put: stored whole", async (bench) => {
    await using storage = await open(localRemote(bench.store, { program: bench.program }));
    await storage.put("a", text("x"), { signal });
    const pid = pidOf((await bench.starts())[0]);
    let isFirst = true;
    const source = patternSource(8 * MIB);
    const body = {
      isReopenable: true,
      open: async function* () {
        let sentBytes = 0;
        for await (const chunk of source.open()) {
          yield chunk;
          sentBytes += chunk.length;
          if (isFirst && sentBytes > 4 * MIB) process.kill(pid, "SIGKILL");
          if (sentBytes > 4 * MIB) isFirst = false;
        }
      },
    };
    await storage.put("b", body, { signal, ifAbsent: true });
    const stored = await sha256(storage.get("b", { signal }));
    assert.equal(stored, await sha256(patternSource(8 * MIB).open()));
    assert.deepEqual(await keysOf(storage, ""), ["a", "b"]);
  });

  rcloneTest(
    "one that falls silent ends every call in time",
    async ({ store, program, starts }) => {
      const limits = { requestTimeoutMs: 5_000, callTimeoutMs: 150 };
      await using storage = await open(localRemote(store, { program }), limits);
      await using other = await open(localRemote(store));
      await other.put("a", text("x"), { signal });
      while ((await starts()).length === 0) await keysOf(storage, "").catch(() => {});
      const pid = pidOf((await starts())[0]);
      process.kill(pid, "SIGSTOP");
      const calls = [
        () => storage.put("b", patternSource(8 * MIB), { signal }),
        () => storage.stat("a", { signal }),
        () => textOf(storage, "a"),
        () => keysOf(storage, ""),
      ];
      for (const call of calls) await assert.rejects(call(), { name: "DeadlineError" });
      process.kill(pid, "SIGCONT");
      assert.deepEqual(await keysOf(other, ""), ["a"]);
    },
  );

  rcloneTest("a program that is missing, or a remote, is named", async ({ store }) => {
    await using none = await open(localRemote(store, { program: "no-such-rclone" }));
    await assert.rejects(none.stat("a", { signal }), (error: Error) => {
      assert.match(error.message, /^no-such-rclone does not start: .*not found$/);
      assert.match("hint" in error ? String(error.hint) : "", /^Install rclone/);
      return true;
    });
    await using other = await open(localRemote(store, { remote: "other:x" }));
    await assert.rejects(other.put("a", text("x"), { signal }), {
      name: "StorageError",
      isRetryable: false,
      message: /in rclone:other:x: rclone says didn't find section in config file$/,
    });
  });
}

function describeFiles(): void {
  rcloneTest("a root that is missing is an error, never an empty store", async ({ directory }) => {
    await using storage = await open(localRemote(join(directory, "none")));
    const message = /^storage directory rclone:here:.*\/none does not exist$/;
    const calls = [
      () => textOf(storage, "a"),
      () => storage.stat("a", { signal }),
      () => keysOf(storage, ""),
    ];
    for (const call of calls) await assert.rejects(call(), { name: "StorageError", message });
  });

  rcloneTest("half-written files are told, and removed", async ({ store }) => {
    await using storage = await open(localRemote(store));
    await assertHalfWrittenIsTold(storage, store);
  });

  rcloneTest("an object of the same length replaces the old one", async ({ store }) => {
    await using storage = await open(localRemote(store));
    await storage.put("a", text("first"), { signal });
    await storage.put("a", text("other"), { signal });
    assert.equal(await textOf(storage, "a"), "other");
    assert.deepEqual(await readdir(store), ["a"]);
  });
}

/** To an SFTP server: what passes is checked, so a wrong bit ends a connection, too. */
const LINE_FAULTS: readonly TcpFault[] = [
  { cutAfterBytes: 300_000 },
  { cutAnswersAfterBytes: 6000 },
  { corruptByte: 250_000 },
  { cutAnswersAfterBytes: 400_000 },
];

function describeLine(): void {
  rcloneTest("a remote behind a bad line: stored whole, read whole", async () => {
    await using server = await startSshServer();
    const path = join(server.stores, "far");
    await mkdir(path);
    await chownTree(path, serverUser());
    await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: server.port });
    let faultCount = 0;
    proxy.rule = (connection) =>
      connection % 2 === 1 ? LINE_FAULTS[faultCount++ % LINE_FAULTS.length] : undefined;
    const lines = [
      "[far]",
      "type = sftp",
      "host = 127.0.0.1",
      `port = ${proxy.port}`,
      `user = ${server.username}`,
      `key_file = ${join(server.directory, "ed25519")}`,
      "shell_type = unix",
      "disable_hashcheck = true",
    ];
    const config = { ...localRemote(path), remote: `far:${path}`, configText: lines.join("\n") };
    const keys = ["a/0", "a/1", "b/2", "b/3"];
    const sizeBytes = 600_000;
    for (const key of keys) {
      // A process of its own begins with a connection of its own, as each command does.
      await using storage = await open(config, { retryPolicy: { ...policy, attempts: 20 } });
      const put = storage.put(key, patternSource(sizeBytes), { signal, ifAbsent: true });
      await put.catch((error: unknown) => {
        // Its own, whose answer was lost: what it holds is looked at below.
        if (!(error instanceof ObjectExistsError)) throw error;
      });
    }
    const expected = await sha256(patternSource(sizeBytes).open());
    await using storage = await open(config, { retryPolicy: { ...policy, attempts: 20 } });
    assert.deepEqual(await keysOf(storage, ""), keys);
    for (const key of keys) assert.equal(await sha256(storage.get(key, { signal })), expected, key);
    await using straight = await open(localRemote(path));
    assert.deepEqual(await keysOf(straight, ""), keys);
    for (const key of keys) {
      assert.equal(await sha256(straight.get(key, { signal })), expected, key);
    }
    assert.ok(faultCount >= LINE_FAULTS.length, `${faultCount} faults`);
  });
}

if (isRcloneAvailable()) {
  describeProcess();
  if (isSshServerAvailable()) describeLine();
  else leaveOut("rclone behind a bad line", "OpenSSH's server is not installed");
  describeFiles();
} else {
  leaveOut("rclone store's process", "rclone is not installed");
}
