import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { scratchDirectory } from "./support/scratch-directory.ts";
import { chownTree } from "./support/server-user.ts";
import { runWalnut, shellWord, walnutCommand, walnutShellCommand } from "./support/walnut.ts";

const TIME = "\\d{4}/\\d\\d/\\d\\d \\d\\d:\\d\\d:\\d\\d\\.\\d{6}";
const SEGMENT = "000000010000000000000001";

test("prints its version, whichever way it is asked", async () => {
  for (const words of [["--version"], ["-v"], ["version"], ["--log-level", "DEVEL", "version"]]) {
    const { code, stdout, stderr } = await runWalnut(words);
    assert.match(stdout, /^walnut version \S+\t\S+\t(bun|node) \d+\.\S+\tPostgreSQL 13-18\n$/);
    assert.deepEqual([code, stderr], [0, ""]);
  }
});

test("shows the help on standard output", async () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [[], /^walnut archives .*\n\nUsage: walnut <command>/],
    [["--help"], /^walnut archives /],
    [["-h"], /^walnut archives /],
    [["help"], /^walnut archives /],
    [["help", "wal-fetch"], /^Usage: walnut wal-fetch <name> <destination>/],
    [["wal-fetch", "--help"], /^Usage: walnut wal-fetch /],
    [["wal-fetch", "-h", "a", "b", "c"], /^Usage: walnut wal-fetch /],
    [["help", "exit-codes"], /^Exit codes:\n {2}0 /],
    [["flags"], /^General:\n\n {2}--config <path>\n/],
    [["completion", "bash"], /^# bash completion/],
  ];
  for (const [words, expected] of cases) {
    // A broken configuration must not be in the way of the help.
    const { code, stdout, stderr } = await runWalnut(words, { env: { WALG_S3_PREFX: "x" } });
    assert.match(stdout, expected);
    assert.deepEqual([code, stderr], [0, ""], words.join(" "));
  }
});

test("archives for a user who has neither a name nor a home directory", async () => {
  using directory = scratchDirectory();
  const user = process.getuid?.() === 0 ? { uid: 54_321, gid: 54_321 } : undefined;
  const data = join(directory.path, "data");
  const store = join(directory.path, "store");
  const status = join(data, "pg_wal", "archive_status");
  for (const path of [status, store]) mkdirSync(path, { recursive: true });
  const history = "1\t0/3000000\tno recovery target specified\n";
  writeFileSync(join(data, "pg_wal", "00000002.history"), history);
  writeFileSync(join(status, "00000002.history.ready"), "");
  await chownTree(directory.path, user);

  const words = ["wal-push", "pg_wal/00000002.history", `--file-prefix=${store}`];
  const env = { HOME: undefined, TMPDIR: directory.path };
  const { code, stderr } = await runWalnut(words, { cwd: data, env, user });
  assert.equal(code, 0, stderr);
  if (user === undefined) return;
  const cache = join(directory.path, `walnut-cache-${user.uid}`);
  assert.equal(statSync(cache).mode & 0o777, 0o700);

  // Whoever can write there could make us believe that a segment is archived.
  chmodSync(cache, 0o777);
  const refused = await runWalnut(words, { cwd: data, env, user });
  assert.equal(refused.code, 3);
  assert.match(refused.stderr, /no directory of our own .*\nHINT: .* set WALNUT_CACHE_DIR\.\n$/);
  assert.equal((await runWalnut(["help"], { env, user })).code, 0);
});

test("says on standard error what is wrong, and how to go on", async () => {
  const cases: readonly (readonly [readonly string[], number, string])[] = [
    [["wal-psh"], 2, `unknown command "wal-psh"\nHINT: Did you mean wal-push\\? .*`],
    [["help", "wal-psh"], 2, `unknown command "wal-psh"\nHINT: Did you mean wal-push\\? .*`],
    [["restore"], 2, 'unknown command "restore"\nHINT: Did you mean backup-fetch\\? .*'],
    [["--turbo"], 2, "the command is missing\nHINT: `walnut help` lists all commands\\."],
    [["--frobnicate"], 2, "unknown flag --frobnicate"],
    [["wal-push"], 2, "the WAL file is missing\nHINT: Usage: walnut wal-push <path>"],
    [["wal-push", "a", "b"], 2, 'surplus argument "b"\nHINT: Usage: .*'],
    [["wal-push", "a", "--lgo-level=x"], 2, "unknown flag --lgo-level\nHINT: Did you mean .*"],
    [["wal-push", "a"], 3, "no storage is configured\nHINT: Set .*"],
    [["wal-push", "a", "--walg-s3-prefx=x"], 3, "unknown setting --walg-s3-prefx .*\nHINT: .*"],
    [["wal-push", "a", "--log-level=x"], 3, '--log-level = "x" from the command line .*\nHINT: .*'],
    [
      ["wal-push", "a", "--config=/no/such.json"],
      3,
      "config file /no/such\\.json does not exist\nHINT: .* --config or .*",
    ],
  ];
  for (const [words, expectedCode, message] of cases) {
    const { code, stdout, stderr } = await runWalnut(words);
    assert.match(stderr, new RegExp(`^ERROR: ${TIME} ${message}\n$`));
    assert.deepEqual([code, stdout], [expectedCode, ""], words.join(" "));
  }
});

test("logs in JSON, to a file, and as little as the level says", async () => {
  using directory = scratchDirectory();
  const file = join(directory.path, "walnut.log");
  const failing = ["wal-push", "a"];

  const json = await runWalnut([...failing, "--log-format=json"]);
  const entry: unknown = JSON.parse(json.stderr);
  assert.match(JSON.stringify(entry), /"level":"error","text":"no storage is .*"code":"config"/);
  assert.equal(json.stderr.split("\n").length, 2);

  const toFile = await runWalnut(failing, { env: { WALG_LOG_DESTINATION: file } });
  // Else PostgreSQL's log would have nothing but an exit code.
  assert.equal(toFile.stderr, readFileSync(file, "utf8"));
  assert.match(toFile.stderr, /^ERROR: .* no storage is configured\nHINT: .*\n$/);

  const toNowhere = await runWalnut(failing, { env: { WALG_LOG_DESTINATION: "/no/such/file" } });
  assert.match(toNowhere.stderr, /^ERROR: .* no storage is configured\nHINT: .*\n$/);

  // A standby asks for the next segment all the time.
  const repository = join(directory.path, "repository");
  mkdirSync(join(repository, "wal_005"), { recursive: true });
  writeFileSync(join(repository, "wal_005", SEGMENT), "");
  const env = { WALG_LOG_DESTINATION: file, WALG_FILE_PREFIX: repository };
  const absent = await runWalnut(["wal-fetch", "00000002.history", join(directory.path, "x")], {
    env,
  });
  assert.deepEqual([absent.code, absent.stderr], [74, ""]);
  assert.match(readFileSync(file, "utf8"), /ERROR: .*00000002\.history is not in the archive/);
});

test("logs in local time", async () => {
  const nowMs = Date.now();
  const cases = [
    ["UTC", 0],
    ["Etc/UTC", 0],
    ["", 0],
    ["Asia/Kathmandu", 345],
    ["America/St_Johns", -210],
  ] as const;
  for (const [zone, offsetMinutes] of cases) {
    const { stderr } = await runWalnut(["wal-push", "a"], { env: { TZ: zone } });
    const [, date = "", time = ""] = /^ERROR: (\S+) (\S+)\d{3} /.exec(stderr) ?? [];
    const loggedMs = Date.parse(`${date.replaceAll("/", "-")}T${time}Z`) - offsetMinutes * 60_000;
    assert.ok(Math.abs(loggedMs - nowMs) < 60_000, `${zone}: ${stderr}`);
  }
});

test("shows no secret, at the highest level either", async () => {
  using directory = scratchDirectory();
  const file = join(directory.path, "walg.json");
  writeFileSync(
    file,
    JSON.stringify({ PGPASSWORD: "file-geheim", WALG_FILE_PREFIX: "/no/env-geheim" }),
  );
  const env = {
    WALG_LOG_LEVEL: "DEVEL",
    AWS_ACCESS_KEY_ID: "id",
    AWS_SECRET_ACCESS_KEY: "env-geheim",
    SSH_PASSWORD: "ssh-geheim",
    AWS_ENDPOINT: "http://user:url-geheim@localhost:1",
  };
  for (const words of [
    ["config"],
    ["config", "--json"],
    ["config", "check"],
    ["wal-push", "env-geheim"],
  ]) {
    const { stdout, stderr } = await runWalnut(["--config", file, ...words], { env });
    assert.ok(!`${stdout}${stderr}`.includes("geheim"), `${stdout}${stderr}`);
    assert.ok(`${stdout}${stderr}`.includes("***"));
  }
});

test("config prints origins, and fails if the settings do not fit together", async () => {
  using directory = scratchDirectory();
  const file = join(directory.path, ".walg.json");
  writeFileSync(file, '{"WALG_COMPRESSION_METHOD": "lz4", "WALG_PG_WAL_SIZE": 16}');
  const options = { cwd: directory.path, env: { WALE_S3_PREFIX: "s3://b/f" } };
  const good = await runWalnut(["config", "--upload-concurrency=3", "--json"], options);
  assert.equal(good.code, 0, good.stderr);
  const printed: unknown = JSON.parse(good.stdout);
  assert.ok(Array.isArray(printed));
  const byName = new Map(printed.map((one: { name: string }) => [one.name, one]));
  assert.deepEqual(byName.get("WALG_COMPRESSION_METHOD"), {
    name: "WALG_COMPRESSION_METHOD",
    value: "lz4",
    origin: file,
  });
  assert.deepEqual(byName.get("WALE_S3_PREFIX"), {
    name: "WALE_S3_PREFIX",
    value: "s3://b/f",
    origin: "the environment",
  });
  assert.deepEqual(byName.get("--upload-concurrency"), {
    name: "--upload-concurrency",
    value: "3",
    origin: "the command line",
  });
  assert.deepEqual(byName.get("WALNUT_WAL_TIMEOUT"), {
    name: "WALNUT_WAL_TIMEOUT",
    value: "60s",
    origin: "default",
  });
  assert.match(JSON.stringify(byName.get("WALG_PG_WAL_SIZE")), /"note":"no effect: walnut reads/);

  const lines = await runWalnut(["config"], options);
  assert.match(lines.stdout, /^WALE_S3_PREFIX += s3:\/\/b\/f {2}\(the environment\)$/m);
  assert.match(lines.stdout, /^WALG_PG_WAL_SIZE += 16 {2}\(.*\.walg\.json; no effect: /m);

  const bad = await runWalnut(["config", "--file-prefix=/tmp"], options);
  assert.equal(bad.code, 3);
  assert.match(bad.stdout, /^--file-prefix += \/tmp/m);
  assert.match(bad.stderr, /two stores are configured: --file-prefix from the command line, and/);
});

test("config check goes through the store and leaves nothing behind (P31)", async () => {
  using directory = scratchDirectory();
  const env = { WALG_FILE_PREFIX: directory.path };
  const { code, stderr } = await runWalnut(["config", "check"], { env });
  assert.equal(code, 0, stderr);
  assert.match(stderr, /the store takes, gives, lists and deletes objects storage=/);
  assert.deepEqual(await listNames(directory.path), []);

  const absent = await runWalnut(["config", "check"], {
    env: { WALG_FILE_PREFIX: join(directory.path, "absent") },
  });
  assert.notEqual(absent.code, 0);
  assert.match(absent.stderr, /^ERROR: .*absent/);
});

async function listNames(path: string): Promise<readonly string[]> {
  const { readdir } = await import("node:fs/promises");
  return await readdir(path);
}

/** Ways in which wal-fetch can fail before and while it runs. */
const fetchFailures: Readonly<
  Record<string, readonly [readonly string[], Record<string, string>]>
> = {
  "unknown flag": [["--frobnicate", SEGMENT, "pg_wal/RECOVERYXLOG"], {}],
  "missing argument": [[SEGMENT], {}],
  "no storage": [[SEGMENT, "pg_wal/RECOVERYXLOG"], {}],
  "misspelt setting": [[SEGMENT, "pg_wal/RECOVERYXLOG"], { WALG_S3_PREFX: "x" }],
  "missing config file": [[SEGMENT, "pg_wal/RECOVERYXLOG"], { WALG_CONFIG_PATH: "/no/such.json" }],
  "broken config file": [[SEGMENT, "pg_wal/RECOVERYXLOG"], { WALG_CONFIG_PATH: "broken.json" }],
  "missing directory": [[SEGMENT, "pg_wal/RECOVERYXLOG"], { WALG_FILE_PREFIX: "/no/such" }],
  encryption: [
    [SEGMENT, "pg_wal/RECOVERYXLOG"],
    { WALG_FILE_PREFIX: "/tmp", WALG_LIBSODIUM_KEY: "k" },
  ],
};

for (const [name, [words, env]] of Object.entries(fetchFailures)) {
  test(`wal-fetch, ${name}: 200 stops the server, 75 lets a standby ask again`, async () => {
    using directory = scratchDirectory();
    writeFileSync(join(directory.path, "broken.json"), "{");
    const run = async () => {
      const result = await runWalnut(["wal-fetch", ...words], { cwd: directory.path, env });
      assert.match(result.stderr, /^ERROR: /);
      return result.code;
    };
    assert.equal(await run(), 200);
    writeFileSync(join(directory.path, "recovery.signal"), "");
    assert.equal(await run(), 200);
    writeFileSync(join(directory.path, "standby.signal"), "");
    assert.equal(await run(), 75);
  });
}

test("wal-fetch finds the standby by its destination, behind flags with values", async () => {
  using directory = scratchDirectory();
  writeFileSync(join(directory.path, "standby.signal"), "");
  const destination = join(directory.path, "pg_wal", "RECOVERYXLOG");
  const words = ["wal-fetch", "--log-level", "NORMAL", SEGMENT, destination];
  assert.equal((await runWalnut(words, { cwd: "/" })).code, 75);
});

test("wal-fetch answers 74 where there is a repository, and fails where there is none", async () => {
  using directory = scratchDirectory();
  const store = join(directory.path, "store");
  mkdirSync(store);
  const run = () =>
    runWalnut(["wal-fetch", SEGMENT, "out"], {
      cwd: directory.path,
      env: { WALG_FILE_PREFIX: store },
    });
  const empty = await run();
  assert.equal(empty.code, 200, "an empty directory may be one that is not mounted");
  assert.match(empty.stderr, /holds no repository/);

  mkdirSync(join(store, "wal_005"));
  writeFileSync(join(store, "wal_005", "00000002.history.zst"), "");
  assert.equal((await run()).code, 74);
});

/** An S3 endpoint that accepts and never answers, and a wal-fetch that waits for it. */
async function startStalled(): Promise<
  AsyncDisposable & { readonly child: ChildProcess; readonly stderr: () => string }
> {
  const sockets = new Set<{ destroy(): void }>();
  const server = createServer((socket) => void sockets.add(socket.on("error", () => {})));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" ? (address?.port ?? 0) : 0;
  const [program = "", ...rest] = walnutCommand();
  const connected = once(server, "connection");
  const child = spawn(program, [...rest, "wal-fetch", SEGMENT, "/tmp/walnut-none/out"], {
    env: {
      PATH: process.env["PATH"],
      WALG_S3_PREFIX: "s3://bucket/folder",
      AWS_ENDPOINT: `http://127.0.0.1:${port}`,
      AWS_S3_FORCE_PATH_STYLE: "true",
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "id",
      AWS_SECRET_ACCESS_KEY: "secret",
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  await Promise.race([connected, once(child, "close")]);
  return {
    child,
    stderr: () => stderr,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
  test(`${signal} stops a run that waits, and the process ends by it`, async () => {
    await using stalled = await startStalled();
    const { child } = stalled;
    const closed = once(child, "close");
    child.kill(signal);
    await closed;
    assert.deepEqual([child.exitCode, child.signalCode], [null, signal], stalled.stderr());
    assert.match(stalled.stderr(), new RegExp(`^ERROR: ${TIME} stopped by ${signal}\n$`));
  });
}

test("writes all of a long output to a slow reader, and ends by itself", async () => {
  const flags = await runWalnut(["flags"]);
  const command = `${walnutShellCommand()} flags | { sleep 0.3; cat; }`;
  const child = spawn("sh", ["-c", command], { stdio: ["ignore", "pipe", "inherit"] });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  await once(child, "close");
  assert.equal(stdout, flags.stdout);
});

test("a reader that goes away is no failure", async () => {
  const [program = "", ...rest] = walnutCommand();
  const child = spawn(program, [...rest, "flags"], { stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.destroy();
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  await once(child, "close");
  assert.deepEqual([child.exitCode, stderr], [0, ""]);
});

test("an output that can't be written is a failure", async () => {
  const full = openSync("/dev/full", "w");
  try {
    const [program = "", ...rest] = walnutCommand();
    const child = spawn(program, [...rest, "flags"], { stdio: ["ignore", full, "pipe"] });
    let stderr = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    await once(child, "close");
    assert.equal(child.exitCode, 32, stderr);
    assert.match(stderr, /standard output can't be written: ENOSPC/);
  } finally {
    closeSync(full);
  }
});

test("closed standard streams do not change what wal-fetch answers", async () => {
  for (const redirect of [">&-", "2>&-", ">&- 2>&- <&-", "2>/dev/full"]) {
    const command = `${walnutShellCommand()} wal-fetch ${shellWord(SEGMENT)} out ${redirect}`;
    using directory = scratchDirectory();
    const env = { PATH: process.env["PATH"] };
    const child = spawn("sh", ["-c", command], { cwd: directory.path, env, stdio: "ignore" });
    await once(child, "close");
    assert.equal(child.exitCode, 200, redirect);
  }
});
