import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { callDaemon } from "../../src/daemon/client.ts";
import { DaemonServer } from "../../src/daemon/server.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { HeldWork } from "./held-work.ts";

const SEGMENT = "000000010000000000000002";
const signal = AbortSignal.timeout(120_000);

let directory: ReturnType<typeof scratchDirectory>;
let path: string;
beforeEach(() => {
  directory = scratchDirectory();
  path = join(directory.path, "walnut.sock");
});
afterEach(() => directory[Symbol.dispose]());

const call = (times = {}) =>
  callDaemon(path, { kind: "push", name: SEGMENT }, { connectMs: 0, answerMs: 30_000, ...times });

const start = (work: HeldWork) =>
  DaemonServer.listen({ path, work, log: () => silentLog, clock: systemClock });

test("gives the daemon's answer, and waits for one that is about to start", async () => {
  const soon = call({ connectMs: 60_000 });
  // Asked later than the other's first attempt, which has failed by then, too.
  assert.deepEqual(await call(), { kind: "absent", reason: "ENOENT" });
  const server = await start(new HeldWork(signal));
  assert.deepEqual(await soon, { kind: "reply", reply: "O" });
  await server.stop({ graceMs: 0 });
});

test("an answer that does not come is lost: the daemon may have done it", async () => {
  const work = new HeldWork(signal);
  const server = await start(work);
  work.isHeld = true;
  assert.deepEqual(await call({ answerMs: 50 }), { kind: "lost", reason: "no answer in 50 ms" });
  work.isHeld = false;
  work.bell.ring();
  await server.stop({ graceMs: 1000 });
});

for (const [answer, expected] of [
  ["", /closed the connection without an answer/],
  ["?", /answer 63 is unknown/],
] as const) {
  test(`the answer ${JSON.stringify(answer)} is none`, async () => {
    const fake = createServer((socket) => void socket.end(answer));
    fake.listen(path);
    await once(fake, "listening");
    const result = await call();
    fake.close();
    assert.equal(result.kind, "lost");
    assert.match(result.kind === "lost" ? result.reason : "", expected);
  });
}

test("the answer to its check is not taken for the answer to its call", async () => {
  const cases = [
    [["O"], "lost"],
    [["O", "?"], "lost"],
    [["?"], "lost"],
    [["O", "E"], "E"],
    [["E"], "E"],
    [["N"], "foreign"],
    [["OO"], "O"],
    [["O", "O"], "O"],
  ] as const;
  for (const [answers, expected] of cases) {
    const fake = createServer((socket) => {
      const [first, second] = answers;
      socket.once("data", () => {
        socket.write(first, () => setImmediate(() => socket.end(second ?? "")));
      });
    });
    fake.listen(path);
    await once(fake, "listening");
    const result = await call({ dataDirectory: "1:2" });
    fake.close();
    assert.equal(result.kind === "reply" ? result.reply : result.kind, expected, answers.join());
  }
});

test("a file that is no socket is no daemon", async () => {
  writeFileSync(path, "");
  assert.equal((await call()).kind, "absent");
});
