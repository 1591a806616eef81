import assert from "node:assert/strict";
import http from "node:http";
import { test } from "node:test";
import { formatTraffic, formatTrafficJson } from "../../src/commands/traffic-text.ts";
import { systemClock } from "../../src/io/clock.ts";
import { HttpSender } from "../../src/storage/http-sender.ts";
import { StorageTraffic } from "../../src/storage/traffic.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { until } from "../support/until.ts";
import { closeHttp, listen } from "../support/listening.ts";

const { signal } = new AbortController();
const options = { abortSignal: signal };

/** A server that answers each request with what the test gives it. */
async function serve(
  answer: (request: http.IncomingMessage, response: http.ServerResponse) => void,
): Promise<{ port: number } & AsyncDisposable> {
  const server = http.createServer((request, response) => {
    request.resume();
    request.on("end", () => answer(request, response));
  });
  const port = await listen(server);
  return {
    port,
    async [Symbol.asyncDispose]() {
      await closeHttp(server);
    },
  };
}

function requestTo(port: number, body?: Uint8Array) {
  return {
    method: body === undefined ? "GET" : "PUT",
    protocol: "http:",
    hostname: "127.0.0.1",
    port,
    path: "/",
    headers: body === undefined ? {} : { "content-length": `${body.length}` },
    body,
  };
}

async function readBytes(body: AsyncIterable<unknown>): Promise<number> {
  let sizeBytes = 0;
  for await (const chunk of body) sizeBytes += chunk instanceof Uint8Array ? chunk.length : 0;
  return sizeBytes;
}

/** Moves the clock until the work is done: each step lets what waits for the network come. */
async function drive<T>(clock: FakeClock, work: Promise<T>): Promise<T> {
  const done = new AbortController();
  void work.catch(() => {}).finally(() => done.abort());
  while (!done.signal.aborted) await clock.advance(5);
  return await work;
}

test("what is sent and received over HTTP keeps to the rate within 5 % over 10 s", async () => {
  const answerBytes = 1_000_000;
  await using server = await serve((_, response) => response.end(Buffer.alloc(answerBytes)));
  const clock = new FakeClock();
  const traffic = new StorageTraffic(clock).of("test");
  traffic.setRate(1_000_000);
  // Waiting for the rate is no silence of the store.
  const sender = new HttpSender({ timeoutMs: 60_000, clock, traffic });
  const beganMs = clock.monotonicMs();
  const body = Buffer.alloc(4_500_000);
  await drive(clock, sender.handle(requestTo(server.port, body), options));
  for (let count = 0; count < 5; count++) {
    const { response } = await drive(clock, sender.handle(requestTo(server.port), options));
    assert.equal(await drive(clock, readBytes(response.body)), answerBytes);
  }
  sender.destroy();
  const { sentBytes, receivedBytes } = traffic.counts;
  assert.equal(sentBytes, body.length);
  // The answer to the upload is not read; some of it may have been.
  const seconds = (clock.monotonicMs() - beganMs) / 1000;
  const rate = (sentBytes + receivedBytes) / seconds;
  assert.ok(Math.abs(rate / 1_000_000 - 1) <= 0.05, `${rate} bytes/s over ${seconds} s`);
});

test("a store that is too busy is sent fewer requests at once, and then more again", async () => {
  const waiting: http.ServerResponse[] = [];
  let most = 0;
  await using server = await serve((_, response) => {
    waiting.push(response);
    most = Math.max(most, waiting.length);
  });
  const whole = new StorageTraffic(systemClock);
  const traffic = whole.of("busy");
  const sender = new HttpSender({ timeoutMs: 60_000, clock: systemClock, traffic });
  const begin = (count: number) =>
    Array.from({ length: count }, async () => {
      const { response } = await sender.handle(requestTo(server.port), options);
      await readBytes(response.body);
    });
  const arrived = async (count: number) => {
    await until(`${count} requests`, () => waiting.length >= count);
  };
  const answerAll = (status: number) => {
    for (const response of waiting.splice(0)) response.writeHead(status).end();
  };
  const first = begin(16);
  await arrived(16);
  answerAll(503);
  await Promise.all(first);
  assert.equal(traffic.counts.slowDowns, 16);
  assert.equal(traffic.counts.fewestAtOnce, 8);

  most = 0;
  const rest = begin(30);
  const sizes: number[] = [];
  for (let answered = 0; answered < 30; answered += sizes.at(-1) ?? 0) {
    await arrived(Math.min(8 + sizes.length, 30 - answered));
    sizes.push(waiting.length);
    answerAll(200);
  }
  await Promise.all(rest);
  sender.destroy();
  assert.deepEqual(sizes, [8, 9, 10, 3]);
  assert.deepEqual(whole.of("busy").counts.requests, { GET: 46 });
});

test("who waits for a turn can be stopped, and time-outs do not count meanwhile", async () => {
  const clock = new FakeClock();
  const traffic = new StorageTraffic(clock).of("test");
  const answers: (() => void)[] = [];
  const end = () => answers.shift()?.();
  const send = async () => {
    await new Promise<void>((resolve) => answers.push(resolve));
    return { statusCode: 429 };
  };
  const first = traffic.exchange("PUT", send, { signal });
  await clock.advance(1);
  end();
  await first;
  const second = traffic.exchange("PUT", send, { signal });
  await clock.advance(1);
  const controller = new AbortController();
  const third = traffic.exchange("PUT", send, { signal: controller.signal });
  controller.abort(new Error("stopped"));
  await assert.rejects(third, /stopped/);
  end();
  await second;
  assert.equal(traffic.counts.requests["PUT"], 2);
});

test("the figures are told to people and to programs", async () => {
  const whole = new StorageTraffic(new FakeClock());
  const store = whole.of("s3://bucket");
  store.calls.put += 2;
  store.calls.putBytes += 3 * 1024 * 1024;
  await store.exchange("PUT", async () => ({ statusCode: 503 }), { signal });
  store.countSent(4096);
  whole.countRetry(1500);
  whole.of("file:///backups");
  assert.equal(
    formatTraffic(whole.counts),
    [
      "storage traffic:",
      "  s3://bucket: calls put 2; objects 3.0 MiB put, 0 B got; requests PUT 1; " +
        "4.0 KiB sent, 0 B received; told 1 times to slow down, down to 1 at once",
      "  file:///backups: calls none; objects 0 B put, 0 B got",
      "  waited 1.5 s for 1 repetitions, 0.0 s for the rate limit, 0.0 s for a turn",
      "",
    ].join("\n"),
  );
  const calls = { get: 0, put: 2, stat: 0, list: 0, delete: 0, gotBytes: 0, putBytes: 3145728 };
  const none = { ...calls, put: 0, putBytes: 0 };
  assert.deepEqual(JSON.parse(formatTrafficJson(whole.counts)), {
    storageTraffic: {
      stores: [
        {
          name: "s3://bucket",
          calls,
          requests: { PUT: 1 },
          sentBytes: 4096,
          receivedBytes: 0,
          slowDowns: 1,
          fewestAtOnce: 1,
        },
        {
          name: "file:///backups",
          calls: none,
          requests: {},
          sentBytes: 0,
          receivedBytes: 0,
          slowDowns: 0,
        },
      ],
      retries: 1,
      waitedMs: { retry: 1500, rateLimit: 0, turn: 0 },
    },
  });
});
