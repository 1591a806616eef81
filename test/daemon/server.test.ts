import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, lstatSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fc } from "../support/property.ts";
import { callDaemon } from "../../src/daemon/client.ts";
import { formatMessage } from "../../src/daemon/protocol.ts";
import { DaemonServer, type DaemonServerOptions } from "../../src/daemon/server.ts";
import { NotInArchiveError, StorageError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { collectingLog } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { HeldWork } from "./held-work.ts";
import { until } from "../support/until.ts";

const SEGMENT = "000000010000000000000002";
const OTHER = "000000010000000000000003";
const TIMES = { connectMs: 0, answerMs: 30_000 };
const CHECK = formatMessage({ kind: "check" });
const PUSH = formatMessage({ kind: "push", name: SEGMENT });
const FETCH = formatMessage({ kind: "fetch", name: SEGMENT, destination: "pg_wal/RECOVERYXLOG" });
const signal = AbortSignal.timeout(120_000);

let directory: ReturnType<typeof scratchDirectory>;
let path: string;
let work: HeldWork;
let log: ReturnType<typeof collectingLog>;
let server: DaemonServer;

const start = (changes: Partial<DaemonServerOptions> = {}) =>
  DaemonServer.listen({ path, work, log: () => log, clock: systemClock, ...changes });

beforeEach(async () => {
  directory = scratchDirectory();
  path = join(directory.path, "walnut.sock");
  work = new HeldWork(signal);
  log = collectingLog();
  server = await start();
});
afterEach(async () => {
  await server.stop({ graceMs: 0 });
  directory[Symbol.dispose]();
});

async function opened(): Promise<Socket> {
  const socket = connect({ path, allowHalfOpen: true });
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

/** Everything that is answered until the daemon closes the connection. */
async function answers(...pieces: readonly Uint8Array[]): Promise<string> {
  const socket = await opened();
  const answered = allOf(socket);
  for (const piece of pieces) {
    socket.write(piece);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return await answered;
}

async function allOf(socket: Socket): Promise<string> {
  let text = "";
  for await (const piece of socket) text += String(piece);
  socket.destroy();
  return text;
}

test("answers WAL-G's clients byte for byte, in one packet and byte by byte", async () => {
  const segment = Buffer.from(SEGMENT).toString("hex");
  const both = Buffer.from(`430008434845434b46001b${segment}`, "hex");
  assert.equal(await answers(both), "OO");
  assert.equal(await answers(...[...both].map((byte) => Buffer.from([byte]))), "OO");
  assert.equal(await answers(CHECK, CHECK, CHECK, PUSH), "OOOO");
  assert.deepEqual(
    work.calls,
    Array.from({ length: 3 }, () => `push ${SEGMENT}`),
  );
  assert.equal(await answers(FETCH), "O");
  assert.equal(work.calls.at(-1), `fetch ${SEGMENT} pg_wal/RECOVERYXLOG`);
});

test("does nothing for the server of another data directory", async () => {
  const other = join(directory.path, "other.sock");
  const restricted = await start({ path: other, isServed: (claim) => claim === "1:22" });
  const asked = (dataDirectory?: string) =>
    callDaemon(other, { kind: "push", name: SEGMENT }, { ...TIMES, dataDirectory });
  assert.deepEqual(await asked("1:22"), { kind: "reply", reply: "O" });
  assert.deepEqual(await asked(), { kind: "reply", reply: "O" });
  assert.equal(work.calls.length, 2);
  assert.equal((await asked("1:2")).kind, "foreign");
  assert.equal(work.calls.length, 2);
  assert.match(log.lines.join("\n"), /warning: client is refused .*another data directory/);
  await restricted.stop({ graceMs: 0 });
});

test("what follows a push is not read, and does not cost the answer", async () => {
  assert.equal(await answers(Buffer.concat([PUSH, PUSH, Buffer.from("\n"), FETCH])), "O");
  assert.deepEqual(work.calls, [`push ${SEGMENT}`]);
});

test("not in the archive is said on proof only, and of a fetch only", async () => {
  work.failure = new NotInArchiveError("not there");
  assert.equal(await answers(FETCH), "N");
  assert.equal(await answers(PUSH), "E");
  for (const failure of [new StorageError("away", { isRetryable: true }), new TypeError("bug")]) {
    work.failure = failure;
    assert.equal(await answers(FETCH), "E");
    assert.equal(await answers(PUSH), "E");
  }
  assert.match(log.lines.join("\n"), /error: fetch failed .*away/);
  assert.match(log.lines.join("\n"), /error: a bug in walnut.*TypeError/);
  work.failure = undefined;
  assert.equal(await answers(FETCH), "O");
});

test("what is no message is answered E", async () => {
  const cases = [
    Buffer.from("X\0\x08CHECK"),
    Buffer.from([0x46, 0, 2]),
    Buffer.from([0x46, 0xff, 0xff]),
    Buffer.from([0x66, 0, 3]),
    Buffer.from("F\0\x08../a\n", "latin1"),
    Buffer.from("GET / HTTP/1.1\r\n\r\n"),
  ];
  for (const bytes of cases) assert.equal(await answers(Buffer.concat([CHECK, bytes])), "OE");
  assert.deepEqual(work.calls, []);
  assert.equal(log.lines.length, cases.length);
});

test("any bytes are answered, and never harm the next client", async () => {
  const change = fc.tuple(fc.nat(60), fc.integer({ min: 0, max: 255 }));
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(CHECK, PUSH, FETCH),
      fc.array(change, { maxLength: 3 }),
      async (message, changes) => {
        const bytes = Buffer.from(message);
        for (const [at, to] of changes) bytes[at % bytes.length] = to;
        const socket = await opened();
        const answered = allOf(socket);
        socket.end(bytes);
        assert.match(await answered, /^O*[OE]$/);
        assert.equal(await answers(PUSH), "O");
      },
    ),
    { numRuns: 60 },
  );
});

test("a client that sends nothing more is told E, as by WAL-G", async () => {
  const socket = await opened();
  const answered = allOf(socket);
  socket.end(CHECK);
  assert.equal(await answered, "OE");
});

test("a client that only sends no more gets its answer", async () => {
  work.isHeld = true;
  const socket = await opened();
  const answered = allOf(socket);
  socket.end(FETCH);
  await work.called(1);
  // Once it is found out that a later client has gone, this one was looked at, too.
  const gone = await opened();
  gone.write(FETCH);
  await work.called(2);
  gone.destroy();
  await work.bell.until(() => work.aborted.length > 0, { signal });
  work.isHeld = false;
  work.bell.ring();
  assert.equal(await answered, "O");
});

test("the fetch of a client that has gone is aborted, its push goes on", async () => {
  work.isHeld = true;
  for (const message of [PUSH, FETCH]) {
    const socket = await opened();
    socket.write(message);
    await work.called(message === PUSH ? 1 : 2);
    socket.destroy();
  }
  await work.bell.until(() => work.aborted.length > 0, { signal });
  assert.deepEqual(work.aborted, [`fetch ${SEGMENT} pg_wal/RECOVERYXLOG`]);
  await until("the fetch is over", () => server.runningCount === 1);
  work.isHeld = false;
  work.bell.ring();
  await until("all is over", () => server.runningCount === 0 && server.clientCount === 0);
  assert.deepEqual(server.counts, { done: 1, failed: 1 });
});

test("a message that does not get complete is given up, an idle client is not", async () => {
  await server.stop({ graceMs: 0 });
  server = await start({ limits: { messageMs: 100 } });
  const idle = await opened();
  const slow = await opened();
  slow.write(PUSH.subarray(0, 5));
  assert.equal(await allOf(slow), "E");
  const answered = allOf(idle);
  idle.write(PUSH);
  assert.equal(await answered, "O");
});

test("the longest idle client makes room, those that wait for work do not", async () => {
  await server.stop({ graceMs: 0 });
  server = await start({ limits: { clients: 3, closeMs: 100 } });
  work.isHeld = true;
  const working = await opened();
  const worked = allOf(working);
  working.write(PUSH);
  await work.called(1);
  const [first, second] = [await opened(), await opened()];
  first.write(CHECK);
  await once(first, "data");
  const third = await opened();
  third.write(CHECK);
  await once(third, "data");
  assert.equal(await allOf(second), "");
  first.write(PUSH);
  third.write(PUSH);
  await work.called(3);
  assert.equal(await answers(), "E");
  work.isHeld = false;
  work.bell.ring();
  assert.equal(await worked, "O");
  await until("all have gone", () => server.clientCount === 0);
});

test("a client that reads no answers, or sends without end, is dropped", async () => {
  const chatty = await opened();
  chatty.on("data", () => {});
  work.isHeld = true;
  chatty.write(PUSH);
  await work.called(1);
  const junk = Buffer.alloc(256 * 1024);
  const closed = new Promise((resolve) => chatty.on("close", resolve));
  for (let count = 0; count < 8; count += 1) chatty.write(junk);
  await closed;
  work.isHeld = false;
  work.bell.ring();
  await until("all have gone", () => server.clientCount === 0);
});

test("its socket is for its owner, appears whole, and goes away with it", async () => {
  assert.equal(lstatSync(path).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(directory.path), ["walnut.sock"]);
  assert.equal(await server.isOwn(), true);
  await server.stop({ graceMs: 0 });
  assert.deepEqual(readdirSync(directory.path), []);
  assert.equal((await callDaemon(path, { kind: "check" }, TIMES)).kind, "absent");
});

test("a living daemon's socket is refused, a dead one's replaced, a file left alone", async () => {
  await assert.rejects(start(), { code: "refused", message: /a daemon listens at .* already/ });
  assert.equal(await answers(PUSH), "O");

  const file = join(directory.path, "file");
  writeFileSync(file, "precious");
  await assert.rejects(start({ path: file }), { code: "refused", message: /is no socket/ });

  // A socket that was left behind: its listener closes without removing it.
  const stale = join(directory.path, "stale.sock");
  const dead = createServer();
  dead.listen(`${stale}-`);
  await once(dead, "listening");
  const { linkSync } = await import("node:fs");
  linkSync(`${stale}-`, stale);
  dead.close();
  await once(dead, "close");
  assert.ok(existsSync(stale));
  const second = await start({ path: stale });
  assert.equal((await callDaemon(stale, { kind: "check" }, TIMES)).kind, "reply");
  await second.stop({ graceMs: 0 });

  const absent = join(directory.path, "no", "such.sock");
  await assert.rejects(start({ path: absent }), { code: "local-file" });
});

test("knows when its socket leads elsewhere, and leaves that alone", async () => {
  rmSync(path);
  assert.equal(await server.isOwn(), false);
  const second = await start();
  await server.stop({ graceMs: 0 });
  assert.equal((await callDaemon(path, { kind: "check" }, TIMES)).kind, "reply");
  assert.equal(await second.isOwn(), true);
  server = second;
});

test("a long path of a socket works for the daemon", async () => {
  await server.stop({ graceMs: 0 });
  const { mkdirSync } = await import("node:fs");
  const long = join(directory.path, "x".repeat(120));
  mkdirSync(long);
  path = join(long, "walnut.sock");
  server = await start();
  assert.equal((await callDaemon(path, { kind: "check" }, TIMES)).kind, "reply");
  const absent = join(directory.path, "y".repeat(120), "walnut.sock");
  assert.equal((await callDaemon(absent, { kind: "check" }, TIMES)).kind, "absent");
  assert.equal(await server.isOwn(), true);
});

test("stops: new clients find nobody, who waits is answered, at last E", async () => {
  work.isHeld = true;
  const idle = await opened();
  const idleClosed = allOf(idle);
  const waiting = answers(PUSH);
  const doomed = answers(formatMessage({ kind: "push", name: OTHER }));
  await work.called(2);
  const stopping = server.stop({ graceMs: 300 });
  assert.equal(await idleClosed, "");
  assert.equal((await callDaemon(path, { kind: "check" }, TIMES)).kind, "absent");
  assert.deepEqual(await Promise.all([waiting, doomed]), ["E", "E"]);
  await stopping;
  assert.equal(work.aborted.length, 2);
});

test("stops with the answers of what ends in time", async () => {
  work.isHeld = true;
  const waiting = answers(PUSH);
  await work.called(1);
  const stopping = server.stop({ graceMs: 60_000 });
  work.isHeld = false;
  work.bell.ring();
  assert.equal(await waiting, "O");
  await stopping;
});

test("tells for how long no work has ended", async () => {
  let nowMs = 1000;
  await server.stop({ graceMs: 0 });
  server = await start({ clock: { ...systemClock, monotonicMs: () => nowMs } });
  assert.equal(server.stalledMs, 0);
  work.isHeld = true;
  const waiting = answers(PUSH);
  await work.called(1);
  nowMs += 5000;
  assert.equal(server.stalledMs, 5000);
  work.isHeld = false;
  work.bell.ring();
  await waiting;
  assert.equal(server.stalledMs, 0);
});
