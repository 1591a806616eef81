import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import type net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { systemClock } from "../../src/io/clock.ts";
import { HttpSender } from "../../src/storage/http-sender.ts";
import type { SdkRequest } from "../../src/storage/http-sender.ts";
import { makeCertificates } from "../support/certificates.ts";
import { TcpFaultProxy } from "../support/fault-proxy.ts";
import { leaveOut } from "../support/left-out.ts";
import { pause } from "../support/until.ts";
import { listen } from "../support/listening.ts";

const TIMEOUT_MS = 1200;
const MIB = 1024 * 1024;
const scratch = await mkdtemp(join(tmpdir(), "walnut-http-"));
after(() => rm(scratch, { recursive: true }));

function makeSender(timeoutMs = TIMEOUT_MS, certificates?: string): HttpSender {
  return new HttpSender({
    timeoutMs,
    clock: systemClock,
    ...(certificates === undefined ? {} : { certificates }),
  });
}

function requestTo(port: number, change: Partial<SdkRequest> = {}): SdkRequest {
  const body =
    change.body instanceof Uint8Array ? { "content-length": `${change.body.length}` } : {};
  return {
    method: "GET",
    protocol: "http:",
    hostname: "127.0.0.1",
    port,
    path: "/",
    ...change,
    headers: { ...body, ...change.headers },
  };
}

/** A server whose sender may await. */
function makeServer(
  handle: (request: http.IncomingMessage, response: http.ServerResponse) => Promise<void>,
): http.Server {
  return http.createServer((request, response) => {
    handle(request, response).catch(() => response.destroy());
  });
}

async function serve(server: net.Server): Promise<{ port: number } & AsyncDisposable> {
  const sockets = new Set<net.Socket>();
  server.on("connection", (socket: net.Socket) => sockets.add(socket));
  const port = await listen(server);
  return {
    port,
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

async function read(sender: HttpSender, request: SdkRequest): Promise<Buffer> {
  const { response } = await sender.handle(request);
  const chunks: Buffer[] = [];
  for await (const chunk of response.body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** The call fails for silence; a hang would be ended by the test's own limit. */
async function assertSilent(call: Promise<unknown>): Promise<void> {
  await assert.rejects(call, {
    name: "StorageError",
    message: /was silent for 1\.2 s$/,
    isRetryable: true,
  });
}

test("method, path, query, headers and body arrive as the signature has them", async () => {
  const seen: unknown[] = [];
  const server = makeServer(async (request, response) => {
    const chunks = await Array.fromAsync(request);
    seen.push([
      request.method,
      request.url,
      request.headers["x-a"],
      Buffer.concat(chunks).toString(),
    ]);
    response.end("answer");
  });
  await using served = await serve(server);
  const sender = makeSender();
  const query = { uploadId: "a/b+c", uploads: "", flag: null, "x!": ["2", "1 ü"] };
  const change = {
    method: "PUT",
    path: "/b/k%20",
    query,
    headers: { "x-a": "1" },
    body: Buffer.from("body"),
  };
  assert.equal((await read(sender, requestTo(served.port, change))).toString(), "answer");
  const url = "/b/k%20?flag&uploadId=a%2Fb%2Bc&uploads=&x%21=2&x%21=1%20%C3%BC";
  assert.deepEqual(seen, [["PUT", url, "1", "body"]]);
  sender.destroy();
});

test("a peer that takes the connection and never answers", async () => {
  await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  proxy.fault = { isSilent: true };
  await assertSilent(makeSender().handle(requestTo(proxy.port)));
});

test("a peer that never reads, while we write", async () => {
  await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  proxy.fault = { isDeaf: true };
  const change = { method: "PUT", body: Buffer.alloc(64 * MIB) };
  await assertSilent(makeSender().handle(requestTo(proxy.port, change)));
});

test("a peer that never takes part in the TLS handshake", async () => {
  await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  proxy.fault = { isSilent: true };
  await assertSilent(makeSender().handle(requestTo(proxy.port, { protocol: "https:" })));
});

test("an answer whose body stops in the middle", async () => {
  const server = http.createServer((_, response) => {
    response.writeHead(200, { "content-length": "100" });
    response.write("half");
  });
  await using served = await serve(server);
  await assertSilent(read(makeSender(), requestTo(served.port)));
});

test("what goes on slowly, in either direction, is not silence", async () => {
  const server = makeServer(async (request, response) => {
    // A second and more in all, of which the system's buffers hide the last part from us.
    let pausedAtBytes = 0;
    let receivedBytes = 0;
    for await (const chunk of request) {
      if (chunk instanceof Uint8Array) receivedBytes += chunk.length;
      if (receivedBytes - pausedAtBytes < MIB) continue;
      pausedAtBytes = receivedBytes;
      await pause(30);
    }
    for (let count = 0; count < 8; count++) {
      await pause(TIMEOUT_MS / 6);
      response.write("x");
    }
    response.end();
  });
  await using served = await serve(server);
  const change = { method: "PUT", body: Buffer.alloc(32 * MIB) };
  assert.equal((await read(makeSender(), requestTo(served.port, change))).toString(), "xxxxxxxx");
});

test("a reader that takes its time is not the peer's silence", async () => {
  const server = http.createServer((_, response) => void response.end(Buffer.alloc(8 * MIB)));
  await using served = await serve(server);
  const { response } = await makeSender().handle(requestTo(served.port));
  let receivedBytes = 0;
  for await (const chunk of response.body) {
    if (receivedBytes === 0) await pause(TIMEOUT_MS * 2);
    receivedBytes += chunk.length;
  }
  assert.equal(receivedBytes, 8 * MIB);
});

test("an early refusal is read, though the body was not sent", async () => {
  const server = http.createServer((_, response) => {
    response.writeHead(403, { "content-length": "4", connection: "close" });
    response.end("no!\n");
  });
  await using served = await serve(server);
  const change = { method: "PUT", body: Buffer.alloc(64 * MIB) };
  const { response } = await makeSender(5000).handle(requestTo(served.port, change));
  assert.equal(response.statusCode, 403);
});

test("an abort ends a request with its reason, before and while it runs", async () => {
  await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  proxy.fault = { isSilent: true };
  const controller = new AbortController();
  const reason = new Error("told to stop");
  const call = makeSender(60_000).handle(requestTo(proxy.port), {
    abortSignal: controller.signal,
  });
  controller.abort(reason);
  await assert.rejects(call, (error) => error === reason);
  const again = makeSender().handle(requestTo(proxy.port), { abortSignal: controller.signal });
  await assert.rejects(again, (error) => error === reason);
});

test("what is given up is closed: connections do not pile up", async () => {
  await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  proxy.fault = { isSilent: true };
  const sender = makeSender(50);
  for (let round = 0; round < 5; round++)
    await assert.rejects(sender.handle(requestTo(proxy.port)));
  while (proxy.connectionCount > 0) await new Promise((resolve) => setImmediate(resolve));

  const server = http.createServer((_, response) => void response.end(Buffer.alloc(20 * MIB)));
  await using served = await serve(server);
  const openSockets = new Set<net.Socket>();
  server.on("connection", (socket: net.Socket) => {
    openSockets.add(socket);
    socket.on("close", () => openSockets.delete(socket));
  });
  for (let round = 0; round < 5; round++) {
    const { response } = await makeSender(5000).handle(requestTo(served.port));
    response.body.destroy();
  }
  while (openSockets.size > 0) await new Promise((resolve) => setImmediate(resolve));
});

test("a connection is used again after a body that was read", async () => {
  let connectionCount = 0;
  const server = makeServer(async (request, response) => {
    for await (const _ of request) continue;
    response.writeHead(200, { "content-length": "100" });
    response.end("x".repeat(100));
  });
  server.on("connection", () => connectionCount++);
  await using served = await serve(server);
  const sender = makeSender(5000);
  for (let round = 0; round < 10; round++) {
    await read(sender, requestTo(served.port, { method: "PUT", body: Buffer.alloc(MIB) }));
    const { response } = await sender.handle(requestTo(served.port, { method: "HEAD" }));
    assert.equal(response.statusCode, 200);
  }
  assert.ok(connectionCount <= 2, `${connectionCount} connections`);
  sender.destroy();
});

test("proxy variables of the environment do not redirect", async () => {
  const server = http.createServer((_, response) => void response.end("direct"));
  await using served = await serve(server);
  const names = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NODE_USE_ENV_PROXY"];
  const before = names.map((name) => process.env[name]);
  try {
    for (const name of names) process.env[name] = "http://127.0.0.1:1";
    process.env["NODE_USE_ENV_PROXY"] = "1";
    assert.equal((await read(makeSender(), requestTo(served.port))).toString(), "direct");
  } finally {
    for (const [index, name] of names.entries()) {
      if (before[index] === undefined) delete process.env[name];
      else process.env[name] = before[index];
    }
  }
});

test("a body that is a stream is refused: it could not be sent again", async () => {
  const server = http.createServer((_, response) => void response.end());
  await using served = await serve(server);
  const call = makeSender().handle(
    requestTo(served.port, { method: "PUT", body: new Blob(["x"]) }),
  );
  await assert.rejects(call, TypeError);
});

const certificates = await makeCertificates(scratch);
if (certificates === undefined) {
  leaveOut("HTTPS with an authority of one's own", "openssl is not installed");
} else {
  test("HTTPS trusts the authority that is given, and no other", async () => {
    const { authority, key, certificate } = certificates;
    const server = https.createServer(
      { key, cert: certificate },
      (_, response) => void response.end("secret"),
    );
    await using served = await serve(server);
    const change = { protocol: "https:" };
    const trusting = makeSender(5000, authority);
    assert.equal((await read(trusting, requestTo(served.port, change))).toString(), "secret");
    await assert.rejects(read(makeSender(5000), requestTo(served.port, change)), (error) => {
      assert.ok(error instanceof Error && "code" in error);
      assert.match(String(error.code), /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_)/);
      return true;
    });
    const named = { ...requestTo(served.port, change), hostname: "localhost" };
    await assert.rejects(read(makeSender(5000, authority), named), {
      code: "ERR_TLS_CERT_ALTNAME_INVALID",
    });
  });
}
