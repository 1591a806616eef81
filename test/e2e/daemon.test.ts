/** `walnut daemon` and its client as processes: what they answer, and what signals do. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import type { CallResult } from "../../src/daemon/client.ts";
import { type DaemonOptions, type RunningDaemon, startDaemon } from "../support/daemon.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { needsTool } from "../support/tools.ts";
import { SWITCH, writeWal } from "../support/wal-writer.ts";
import { runWalnut, walnutCommand } from "../support/walnut.ts";
import { until } from "../support/until.ts";

const HISTORY = "00000002.history";
const HISTORY_TEXT = "1\t0/3000000\tno recovery target specified\n";
const SEGMENT = "000000010000000000000001";

let directory: ReturnType<typeof scratchDirectory>;
let data: string;
let store: string;
let socketPath: string;
beforeEach(() => {
  directory = scratchDirectory();
  data = join(directory.path, "data");
  store = join(directory.path, "store");
  socketPath = join(directory.path, "walnut.sock");
  mkdirSync(join(data, "pg_wal", "archive_status"), { recursive: true, mode: 0o700 });
  mkdirSync(store);
  writeFileSync(join(data, "pg_wal", HISTORY), HISTORY_TEXT);
});
afterEach(() => directory[Symbol.dispose]());

const environment = () => ({
  WALG_FILE_PREFIX: store,
  WALNUT_CACHE_DIR: join(directory.path, "cache"),
});

const start = (options: Partial<DaemonOptions> = {}): Promise<RunningDaemon> =>
  startDaemon({ dataDirectory: data, socketPath, env: environment(), ...options });

const stored = (name: string) => existsSync(join(store, "wal_005", `${name}.zst`));

test("the client pushes and fetches, with the exit codes that PostgreSQL needs", async () => {
  await using daemon = await start();
  const pushed = await daemon.client("wal-push", HISTORY);
  assert.deepEqual([pushed.code, pushed.stdout, pushed.stderr], [0, "", ""]);
  assert.ok(stored(HISTORY));
  const again = await daemon.client("-timeout", "30s", "wal-push", HISTORY);
  assert.equal(again.code, 0);
  const absent = await daemon.client("wal-push", SEGMENT);
  assert.equal(absent.code, 1);
  assert.match(absent.stderr, /^ERROR: the daemon could not push .*\nHINT: Its log says why\.\n$/);
  assert.match(daemon.log(), /ERROR: .* push failed wal=0{7}1.* code=local-file/);

  const fetched = await daemon.client("wal-fetch", HISTORY, "pg_wal/RECOVERYHISTORY");
  assert.equal(fetched.code, 0, fetched.stderr);
  assert.equal(readFileSync(join(data, "pg_wal", "RECOVERYHISTORY"), "utf8"), HISTORY_TEXT);
  const absolute = join(directory.path, "elsewhere");
  assert.equal((await daemon.client("wal-fetch", HISTORY, absolute)).code, 0);
  assert.equal(readFileSync(absolute, "utf8"), HISTORY_TEXT);
  const missing = await daemon.client("wal-fetch", SEGMENT, "pg_wal/RECOVERYXLOG");
  assert.equal(missing.code, 74, missing.stderr);
  assert.ok(!existsSync(join(data, "pg_wal", "RECOVERYXLOG")));
});

test("what the client is not told is never the end of the archive", async () => {
  const run = (...words: readonly string[]) =>
    runWalnut(["client", ...words, "-connection-timeout=0s"], { cwd: data });
  const fetches = [
    [socketPath, "wal-fetch", SEGMENT, "pg_wal/RECOVERYXLOG"],
    [socketPath, "wal-fetch", SEGMENT],
    [socketPath, "wal-fetch", "a/b", "c"],
    [socketPath, "wal-fetch", SEGMENT, "pg_wal/RECOVERYXLOG", "--frobnicate"],
    [socketPath, "wal-fetch", SEGMENT, "pg_wal/RECOVERYXLOG", "-timeout", "soon"],
  ];
  for (const words of fetches) assert.equal((await run(...words)).code, 200, words.join(" "));
  writeFileSync(join(data, "standby.signal"), "");
  for (const words of fetches) assert.equal((await run(...words)).code, 75, words.join(" "));
  for (const words of [[socketPath, "wal-push", HISTORY], [socketPath, "wal-push"], [socketPath]]) {
    const { code, stderr } = await run(...words);
    assert.equal(code, 1);
    assert.match(stderr, /^ERROR: .+\n/);
  }
  // The same where the daemon takes the call and fails, or ends without a word.
  rmSync(join(data, "standby.signal"));
  for (const answer of ["E", ""]) {
    const fake = createServer((socket) => void socket.on("data", () => socket.end(answer)));
    fake.listen(socketPath);
    await once(fake, "listening");
    assert.equal((await run(...(fetches[0] ?? []))).code, 200);
    fake.close();
  }
});

test("--fallback works without a daemon; the client's own words work without anything", async () => {
  const settings = Object.entries(environment()).map(
    ([name, value]) => `--${name.toLowerCase().replaceAll("_", "-")}=${value}`,
  );
  const run = (...words: readonly string[]) =>
    runWalnut(["client", socketPath, ...words, "--fallback", ...settings], { cwd: data });
  assert.equal((await run("wal-push", HISTORY)).code, 0);
  assert.ok(stored(HISTORY));
  const fetched = await run("wal-fetch", HISTORY, "pg_wal/RECOVERYHISTORY");
  assert.equal(fetched.code, 0, fetched.stderr);
  assert.match(fetched.stderr, /^WARNING: no daemon at /);
  assert.equal((await run("wal-fetch", SEGMENT, "pg_wal/RECOVERYXLOG")).code, 74);
  rmSync(store, { recursive: true });
  assert.equal((await run("wal-fetch", SEGMENT, "pg_wal/RECOVERYXLOG")).code, 200);

  const version = await runWalnut(["client", "--version"]);
  assert.match(version.stdout, /^walnut-client\t\S+\t\S+\t/);
  assert.equal(version.code, 0);
  for (const words of [["client", "--help"], ["client"], ["help", "client"]]) {
    const { stdout, code } = await runWalnut(words);
    assert.match(stdout, /^Usage: walnut client <socket> wal-push/);
    assert.equal(code, 0);
  }
  const late = await runWalnut(["--log-level=NORMAL", "client", socketPath, "wal-fetch", "a", "b"]);
  assert.equal(late.code, 200);
  assert.match(late.stderr, /"client" is to be the first word/);
});

test("survives its store being away, and works again by itself", async () => {
  await using daemon = await start();
  renameSync(store, `${store}-away`);
  assert.deepEqual(await daemon.call({ kind: "push", name: HISTORY }), reply("E"));
  const fetch = { kind: "fetch", name: SEGMENT, destination: "pg_wal/RECOVERYXLOG" } as const;
  assert.deepEqual(await daemon.call(fetch), reply("E"));
  assert.match(daemon.log(), /push failed/);
  renameSync(`${store}-away`, store);
  assert.deepEqual(await daemon.call({ kind: "push", name: HISTORY }), reply("O"));
  assert.deepEqual(await daemon.call(fetch), reply("N"));
});

/** Directories of their own. */
function otherStores(...names: readonly string[]): Record<string, string> {
  const paths = names.map((name) => join(directory.path, name));
  for (const path of paths) mkdirSync(path, { recursive: true });
  return Object.fromEntries(names.map((name, place) => [name, paths[place] ?? ""]));
}

const mirrored = (mirror = "", queue = "") => ({
  WALNUT_MIRROR: JSON.stringify({ second: { WALG_FILE_PREFIX: mirror } }),
  WALNUT_MIRROR_QUEUE_DIRECTORY: queue,
});

/** The mirror has it, and no note says any more that it may lack it. */
async function untilMirrored(
  name: string,
  { mirror, queue }: { readonly mirror: string; readonly queue: string },
  log: () => string,
): Promise<void> {
  const isThere = () =>
    existsSync(join(mirror, "wal_005", `${name}.zst`)) &&
    !/\.(begun|due-\d+|unsure)\b/.test(readdirSync(queue, { recursive: true }).join(" "));
  await until(`the mirror has ${name}`, isThere, log);
}

test("goes on with a store in the first one's place, and carries all into the mirror", async () => {
  const { spare, mirror = "", queue = "" } = otherStores("spare", "mirror", "queue");
  const env = {
    ...environment(),
    ...mirrored(mirror, queue),
    WALG_FAILOVER_STORAGES: JSON.stringify({ spare: { WALG_FILE_PREFIX: spare } }),
    WALG_FAILOVER_STORAGES_CHECK: "false",
  };
  await using daemon = await start({ env });
  const isMirrored = (name: string) => untilMirrored(name, { mirror, queue }, () => daemon.log());
  const [first = "", later = ""] = [6n, 7n].map((firstSegment) => {
    const [segment] = writeWal({ firstSegment, records: [{ dataBytes: 100 }, SWITCH] }).segments;
    writeFileSync(join(data, "pg_wal", segment?.name ?? ""), segment?.bytes ?? "");
    return segment?.name;
  });
  for (const name of [HISTORY, first]) {
    assert.deepEqual(await daemon.call({ kind: "push", name }), reply("O"));
    await isMirrored(name);
  }

  renameSync(store, `${store}-away`);
  const pushed = await daemon.call({ kind: "push", name: later });
  assert.deepEqual(pushed, reply("O"), daemon.log());
  assert.ok(existsSync(join(spare ?? "", "wal_005", `${later}.zst`)));
  await isMirrored(later);
  const fetch = { kind: "fetch", destination: "pg_wal/RECOVERYXLOG" } as const;
  assert.deepEqual(await daemon.call({ ...fetch, name: HISTORY }), reply("O"), "of the mirror");
  assert.deepEqual(await daemon.call({ ...fetch, name: SEGMENT }), reply("E"), "not proved");

  renameSync(`${store}-away`, store);
  assert.deepEqual(await daemon.call({ ...fetch, name: later }), reply("O"), "of the other store");
});

test("with a mirror alone it reads while its store is away, and says why it takes nothing", async () => {
  const { mirror = "", queue = "" } = otherStores("mirror", "queue");
  await using daemon = await start({ env: { ...environment(), ...mirrored(mirror, queue) } });
  assert.deepEqual(await daemon.call({ kind: "push", name: HISTORY }), reply("O"));
  await untilMirrored(HISTORY, { mirror, queue }, () => daemon.log());
  renameSync(store, `${store}-away`);
  const later = "00000003.history";
  writeFileSync(join(data, "pg_wal", later), `${HISTORY_TEXT}2\t0/4000000\tlater\n`);
  assert.deepEqual(await daemon.call({ kind: "push", name: later }), reply("E"));
  assert.match(daemon.log(), /its mirrors only follow.*WALG_FAILOVER_STORAGES/s);
  const fetch = { kind: "fetch", name: HISTORY, destination: "pg_wal/RECOVERYHISTORY" } as const;
  assert.deepEqual(await daemon.call(fetch), reply("O"));
  renameSync(`${store}-away`, store);
  assert.deepEqual(await daemon.call({ kind: "push", name: later }), reply("O"));
});

test("starts while its store is away", async () => {
  rmSync(store, { recursive: true });
  await using daemon = await start();
  assert.deepEqual(await daemon.call({ kind: "push", name: HISTORY }), reply("E"));
  mkdirSync(store);
  assert.deepEqual(await daemon.call({ kind: "push", name: HISTORY }), reply("O"));
});

function reply(one: "O" | "N" | "E") {
  return { kind: "reply", reply: one };
}

test("SIGHUP takes new settings, refuses wrong ones, and stops nothing", async () => {
  const config = join(directory.path, "walnut.json");
  const configure = (settings: object) => writeFileSync(config, JSON.stringify(settings));
  const other = join(directory.path, "other");
  mkdirSync(other);
  const good = { ...environment(), PGDATA: data };
  configure(good);
  await using daemon = await start({ env: { PGDATA: "" }, words: ["--config", config] });
  assert.deepEqual(await daemon.call({ kind: "push", name: HISTORY }), reply("O"));

  const wrong = [
    '{"WALG_FILE_PREFIX": ',
    '{"WALG_FILE_PREFX": "/tmp"}',
    JSON.stringify({ PGDATA: data }),
    JSON.stringify({ ...good, PGDATA: other }),
  ];
  for (const [index, text] of wrong.entries()) {
    writeFileSync(config, text);
    daemon.kill("SIGHUP");
    await daemon.logged(new RegExp(`(new settings are refused[^]*){${index + 1}}`));
    writeFileSync(join(data, "pg_wal", `label${index}`), "");
    assert.deepEqual(await daemon.call({ kind: "push", name: `label${index}` }), reply("O"));
    assert.ok(stored(`label${index}`));
  }
  configure({ ...good, WALG_FILE_PREFIX: other, WALG_COMPRESSION_METHOD: "none" });
  daemon.kill("SIGHUP");
  await daemon.logged(/settings were read anew/);
  assert.deepEqual(await daemon.call({ kind: "push", name: HISTORY }), reply("O"));
  assert.deepEqual(readdirSync(join(other, "wal_005")), [HISTORY]);
  daemon.kill("SIGTERM");
  assert.deepEqual(await daemon.ended(), { code: 0, signal: null });
  assert.ok(!existsSync(socketPath));
});

test("a log file that was moved away is made again, also after SIGUSR1", async () => {
  const log = join(directory.path, "walnut.log");
  await using daemon = await start({ env: { ...environment(), WALG_LOG_DESTINATION: log } });
  assert.deepEqual(await daemon.call({ kind: "push", name: HISTORY }), reply("O"));
  renameSync(log, `${log}.1`);
  daemon.kill("SIGUSR1");
  assert.deepEqual(await daemon.call({ kind: "push", name: HISTORY }), reply("O"));
  assert.match(readFileSync(log, "utf8"), /already archived/);
  assert.match(readFileSync(`${log}.1`, "utf8"), /daemon listens/);
});

/** A daemon whose store takes connections and never answers, with a push under way. */
async function startStalled(): Promise<
  AsyncDisposable & { readonly daemon: RunningDaemon; readonly answer: Promise<CallResult> }
> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => void sockets.add(socket.on("error", () => {})));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" ? (address?.port ?? 0) : 0;
  const connected = once(server, "connection");
  const daemon = await start({
    env: {
      WALG_S3_PREFIX: "s3://bucket/folder",
      AWS_ENDPOINT: `http://127.0.0.1:${port}`,
      AWS_S3_FORCE_PATH_STYLE: "true",
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "id",
      AWS_SECRET_ACCESS_KEY: "secret",
      WALG_DAEMON_WAL_UPLOAD_TIMEOUT: "1s",
      WALNUT_CACHE_DIR: join(directory.path, "cache"),
    },
  });
  const answer = daemon.call({ kind: "push", name: HISTORY });
  await connected;
  return {
    daemon,
    answer,
    async [Symbol.asyncDispose]() {
      await daemon[Symbol.asyncDispose]();
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

test("SIGTERM waits for what is under way, which has its own time limit", async () => {
  await using stalled = await startStalled();
  const { daemon, answer } = stalled;
  daemon.kill("SIGTERM");
  assert.deepEqual(await answer, reply("E"));
  assert.deepEqual(await daemon.ended(), { code: 0, signal: null });
  assert.match(daemon.log(), /push failed .* did not finish within 1000 ms/);
});

test("a second signal ends the daemon at once, by itself", async () => {
  await using stalled = await startStalled();
  const { daemon, answer } = stalled;
  daemon.kill("SIGINT");
  await until("the socket is gone", () => !existsSync(socketPath));
  daemon.kill("SIGTERM");
  assert.deepEqual(await daemon.ended(), { code: null, signal: "SIGTERM" });
  assert.equal((await answer).kind, "lost");
});

test("says when it starts that its data directory is none, and serves it once it is", async () => {
  const wal = join(data, "pg_wal");
  renameSync(wal, `${wal}-away`);
  await using daemon = await start();
  await daemon.logged(/WARNING: .* the data directory has no pg_wal.* hint="Does PGDATA/);
  renameSync(`${wal}-away`, wal);
  assert.deepEqual(await daemon.call({ kind: "push", name: HISTORY }), reply("O"));
  assert.ok(stored(HISTORY));
});

test("refuses to start beside another one, without PGDATA and without a store", async () => {
  await using daemon = await start();
  const run = (env: Readonly<Record<string, string>>) =>
    runWalnut(["daemon", socketPath], { cwd: data, env });
  const second = await run({ ...environment(), PGDATA: data });
  assert.equal(second.code, 31);
  assert.match(second.stderr, /a daemon listens at .* already\nHINT: /);
  assert.equal((await run(environment())).code, 3);
  assert.equal((await run({ PGDATA: data })).code, 3);
  assert.deepEqual(await daemon.call({ kind: "check" }), reply("O"));
});

test("takes over after a killed one, and ends when its socket was taken away", async () => {
  const killed = await start();
  killed.kill("SIGKILL");
  await killed.ended();
  assert.ok(existsSync(socketPath));
  await using daemon = await start();
  await daemon.logged(/daemon listens/);
  assert.deepEqual(await daemon.call({ kind: "push", name: HISTORY }), reply("O"));
  rmSync(socketPath);
  assert.deepEqual(await daemon.ended(), { code: 31, signal: null });
  assert.match(daemon.log(), /does not lead to this daemon any more/);
});

const handedOver = needsTool("socket activation of the daemon", "python3") ? [3] : [];
for (const descriptor of handedOver) {
  test(`takes a listening socket that systemd hands over as ${descriptor}`, async () => {
    // What systemd does for a socket unit: bind, listen, descriptor 3, and our own id.
    const script = [
      "import os, socket, sys",
      "s = socket.socket(socket.AF_UNIX)",
      "s.bind(sys.argv[1]); s.listen(8)",
      "os.dup2(s.fileno(), 3); os.set_inheritable(3, True)",
      'os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))',
      "os.execvp(sys.argv[2], sys.argv[2:])",
    ].join("\n");
    const words = ["-c", script, socketPath, ...walnutCommand(), "daemon", socketPath];
    const env = { PATH: process.env["PATH"], PGDATA: data, ...environment() };
    const child = spawn("python3", words, { env, cwd: data, stdio: ["ignore", "ignore", "pipe"] });
    try {
      await once(child.stderr, "data");
      const socket = connect(socketPath);
      await once(socket, "connect");
      socket.write("C\0\x08CHECK");
      const [answer] = await once(socket, "data");
      assert.equal(String(answer), "O");
      socket.destroy();
      const closed = once(child, "close");
      child.kill("SIGTERM");
      await closed;
      assert.equal(child.exitCode, 0);
      assert.ok(existsSync(socketPath), "the socket belongs to systemd");
    } finally {
      child.kill("SIGKILL");
    }
  });
}
