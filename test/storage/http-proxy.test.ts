import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { systemClock } from "../../src/io/clock.ts";
import { findProxy } from "../../src/storage/http-proxy.ts";
import type { ProxyConfig } from "../../src/storage/http-proxy.ts";
import { HttpSender } from "../../src/storage/http-sender.ts";
import type { SdkRequest } from "../../src/storage/http-sender.ts";
import { makeCertificates } from "../support/certificates.ts";
import { ConnectProxy } from "../support/connect-proxy.ts";
import { FakeKeystone, keystoneConfig } from "../support/fake-keystone.ts";
import { FakeKms } from "../support/fake-kms.ts";
import { GcsEmulation, gcsConfig } from "../support/gcs-emulation.ts";
import { leaveOut } from "../support/left-out.ts";
import { closeHttp, listen, portOf } from "../support/listening.ts";
import { s3Config } from "../support/s3-config.ts";
import { S3Emulation } from "../support/s3-emulation.ts";
import { assertAllIsProxied, farAway } from "./contract-faults.ts";

const signal = new AbortController().signal;
const KIB = 1024;
const scratch = await mkdtemp(join(tmpdir(), "walnut-proxy-"));
after(() => rm(scratch, { recursive: true }));
const certificates = await makeCertificates(scratch);

const PROXY = "http://proxy:3128";
const DIRECT: readonly (readonly [string, string])[] = [
  ["", "https://localhost"],
  ["", "https://127.0.0.1:9000"],
  ["", "https://127.8.0.1"],
  ["", "https://[::1]:443"],
  ["", "https://169.254.169.254"],
  ["", "https://metadata.google.internal"],
  ["*", "https://store.example"],
  ["other, store.example", "https://store.example"],
  ["store.example", "https://bucket.store.example"],
  ["STORE.example", "https://Store.Example"],
  [".store.example", "https://bucket.store.example"],
  ["*.store.example", "https://bucket.store.example"],
  ["store.example:443", "https://store.example"],
  ["store.example:9000", "https://store.example:9000"],
  ["10.1.2.3", "https://10.1.2.3"],
  ["10.0.0.0/8", "https://10.1.2.3:9000"],
  ["10.1.2.3:9000", "https://10.1.2.3:9000"],
  ["fd00::/8", "https://[fd00::1]"],
  ["[fd00::1]:9000", "https://[fd00::1]:9000"],
];
const PROXIED: readonly (readonly [string, string])[] = [
  ["", "https://store.example"],
  ["", "https://10.1.2.3"],
  ["", "https://local.host"],
  ["store.example", "https://mystore.example"],
  [".store.example", "https://store.example"],
  ["store.example:9000", "https://store.example"],
  ["10.0.0.0/8", "https://11.1.2.3"],
  ["10.0.0.0/99", "https://10.1.2.3"],
  ["10.0.0.0/8", "https://10.example"],
  ["fd00::/8", "https://[fe00::1]"],
  [",, ", "https://store.example"],
];

function targetOf(text: string) {
  const { protocol, hostname, port } = new URL(text);
  return { protocol, hostname, ...(port === "" ? {} : { port: Number(port) }) };
}

function choose(noProxy: string, url: string): string | undefined {
  return findProxy({ https: PROXY, noProxy }, targetOf(url))?.host;
}

test("who is reached without a proxy, as Go's programs have it", () => {
  for (const [noProxy, url] of DIRECT) assert.equal(choose(noProxy, url), undefined, url);
  for (const [noProxy, url] of PROXIED) {
    assert.equal(choose(noProxy, url), "proxy:3128", `${noProxy} ${url}`);
  }
});

test("each scheme has its proxy, whose address may lack its own", () => {
  const config = { https: "user:p%40ss@one:1", http: "https://two" };
  assert.equal(findProxy(config, targetOf("https://a"))?.href, "http://user:p%40ss@one:1/");
  assert.equal(findProxy(config, targetOf("http://a"))?.href, "https://two/");
  assert.equal(findProxy({ http: PROXY }, targetOf("https://a")), undefined);
  assert.equal(findProxy({ https: "" }, targetOf("https://a")), undefined);
  for (const https of ["socks5://u:secret@h:1", "http://", "http://a b"]) {
    assert.throws(
      () => findProxy({ https }, targetOf("https://a")),
      (error: Error) =>
        error.name === "ConfigError" &&
        error.message.startsWith("the proxy that HTTPS_PROXY names is ") &&
        !error.message.includes("secret"),
    );
  }
});

/** A store by TLS, "store.test" by its certificate; counts its connections. */
async function startStore() {
  if (certificates === undefined) return undefined;
  const { key, certificate: cert } = certificates;
  const server = https.createServer({ key, cert }, (request, response) => {
    let sizeBytes = 0;
    request.on("data", (chunk: Buffer) => void (sizeBytes += chunk.length));
    request.on("end", () => response.end(`${request.url} ${sizeBytes}`));
  });
  const seen = { connections: 0 };
  server.on("secureConnection", () => void (seen.connections += 1));
  server.on("tlsClientError", () => {});
  await listen(server);
  return {
    seen,
    port: portOf(server),
    [Symbol.asyncDispose]: () => closeHttp(server),
  };
}

function makeSender(proxy: ProxyConfig, timeoutMs = 20_000): HttpSender {
  const trust = certificates === undefined ? {} : { certificates: certificates.authority };
  return new HttpSender({ timeoutMs, clock: systemClock, proxy, ...trust });
}

async function ask(
  sender: HttpSender,
  port: number,
  change: Partial<SdkRequest> = {},
): Promise<string> {
  const target = { protocol: "https:", hostname: "store.test", port, path: "/a", method: "GET" };
  const { response } = await sender.handle({ headers: {}, ...target, ...change });
  const chunks: Buffer[] = [];
  for await (const chunk of response.body) chunks.push(chunk);
  return `${response.statusCode} ${Buffer.concat(chunks).toString()}`;
}

function upload(sizeBytes: number): Partial<SdkRequest> {
  const headers = { "content-length": `${sizeBytes}` };
  return { method: "PUT", headers, body: Buffer.alloc(sizeBytes) };
}

if (certificates === undefined) {
  leaveOut("HTTPS through a proxy", "openssl is not installed");
} else {
  const { key, certificate: cert } = certificates;
  for (const tls of [undefined, { key, cert }]) {
    test(`one tunnel of ${tls === undefined ? "a proxy" : "a proxy by TLS"} takes many requests`, async () => {
      await using store = await startStore();
      await using proxy = await ConnectProxy.start({
        login: "us er:p@ss",
        ...(tls === undefined ? {} : { tls }),
      });
      const sender = makeSender({ https: proxy.url.replace("//", "//us%20er:p%40ss@") });
      const port = store?.port ?? 0;
      for (let time = 1; time <= 3; time += 1) {
        assert.equal(await ask(sender, port, upload(300 * KIB)), `200 /a ${300 * KIB}`);
      }
      assert.deepEqual(
        proxy.requests.map(({ line }) => line),
        [`CONNECT store.test:${port}`],
      );
      assert.equal(store?.seen.connections, 1);
      assert.ok(proxy.passedBytes > 900 * KIB, `${proxy.passedBytes} bytes went through`);
      sender.destroy();
    });
  }

  test("the store's certificate is checked through the tunnel", async () => {
    await using store = await startStore();
    await using proxy = await ConnectProxy.start();
    const port = store?.port ?? 0;
    const strict = new HttpSender({
      timeoutMs: 20_000,
      clock: systemClock,
      proxy: { https: proxy.url },
    });
    await assert.rejects(ask(strict, port), /certificate/);
    const sender = makeSender({ https: proxy.url });
    await assert.rejects(ask(sender, port, { hostname: "other.test" }), {
      code: "ERR_TLS_CERT_ALTNAME_INVALID",
    });
    assert.equal(proxy.count("CONNECT"), 2);
    strict.destroy();
    sender.destroy();
  });

  test("a proxy that refuses is named, with what it said, and not its login", async () => {
    await using store = await startStore();
    await using proxy = await ConnectProxy.start({ login: "a:b" });
    const port = store?.port ?? 0;
    const sender = makeSender({ https: proxy.url.replace("//", "//a:secret@") });
    const what = `cannot reach store.test:${port} through the proxy ${proxy.url}`;
    await assert.rejects(ask(sender, port), (error: Error) => {
      assert.equal(error.message, `${what}: 407 Proxy Authentication Required`);
      assert.ok("isRetryable" in error && error.isRetryable === false);
      assert.ok("hint" in error && /wants a login/.test(String(error.hint)));
      return true;
    });
    for (const [status, isRetryable] of [
      [403, false],
      [502, true],
    ] as const) {
      proxy.refusal = status;
      const message = `${what}: ${status} ${http.STATUS_CODES[status]}`;
      await assert.rejects(ask(sender, port), { name: "StorageError", message, isRetryable });
    }
    sender.destroy();
  });

  test("a proxy that dies breaks what is under way; the next request has a new tunnel", async () => {
    await using store = await startStore();
    const port = store?.port ?? 0;
    let proxy = await ConnectProxy.start();
    const sender = makeSender({ https: proxy.url });
    await ask(sender, port);
    proxy.cut();
    await assert.doesNotReject(
      ask(sender, port).catch(() => ask(sender, port)),
      "at most the connection that was kept is lost",
    );
    const { url } = proxy;
    await proxy[Symbol.asyncDispose]();
    const gone = { name: "StorageError", isRetryable: true };
    await assert.rejects(
      ask(sender, port).catch(() => ask(sender, port)),
      {
        ...gone,
        message: new RegExp(
          `^cannot reach store.test:${port} through the proxy ${url}: .*refused`,
          "i",
        ),
      },
    );

    proxy = await ConnectProxy.start();
    const other = makeSender({ https: proxy.url });
    const asking = ask(other, port, { ...upload(64 * KIB * KIB) });
    const failing = assert.rejects(asking, { ...gone, message: /through the proxy/ });
    while (proxy.passedBytes < KIB * KIB) await new Promise((resolve) => setImmediate(resolve));
    proxy.cut();
    await failing;
    sender.destroy();
    other.destroy();
    await proxy[Symbol.asyncDispose]();
  });

  test("a proxy that takes connections and never answers", async () => {
    await using proxy = await ConnectProxy.start();
    proxy.isSilent = true;
    const sender = makeSender({ https: proxy.url }, 500);
    await assert.rejects(ask(sender, 1), {
      name: "StorageError",
      message: /^cannot reach store\.test:1 through the proxy http:\S+: .* 0\.5 s$/,
      isRetryable: true,
    });
    sender.destroy();
  });

  test("an abort ends the making of a tunnel", async () => {
    await using proxy = await ConnectProxy.start();
    proxy.isSilent = true;
    const sender = makeSender({ https: proxy.url });
    const stop = new AbortController();
    const request = { protocol: "https:", hostname: "store.test", port: 1, path: "/" };
    const asking = sender.handle(
      { ...request, method: "GET", headers: {} },
      { abortSignal: stop.signal },
    );
    const failing = assert.rejects(asking, /enough/);
    while (proxy.requests.length === 0) await new Promise((resolve) => setImmediate(resolve));
    stop.abort(new Error("enough"));
    await failing;
    sender.destroy();
  });
}

test("a store by http is asked for by its whole URL", async () => {
  const server = http.createServer((request, response) => {
    response.end(
      `${request.headers.host} ${request.url} ${request.headers["proxy-authorization"]}`,
    );
  });
  const port = await listen(server);
  await using proxy = await ConnectProxy.start({ login: "a:b" });
  const http1 = { protocol: "http:", query: { x: "1" } };
  const sender = makeSender({ http: proxy.url.replace("//", "//a:b@") });
  assert.equal(await ask(sender, port, http1), `200 store.test:${port} /a?x=1 undefined`);
  assert.deepEqual(
    proxy.requests.map(({ line }) => line),
    [`GET http://store.test:${port}/a?x=1`],
  );
  proxy.refusal = 407;
  await assert.rejects(ask(sender, port, http1), { message: /proxy http:\S+: 407/ });
  assert.equal(
    await ask(sender, port, { ...http1, hostname: "127.0.0.1" }),
    `200 127.0.0.1:${port} /a?x=1 undefined`,
  );
  sender.destroy();
  await closeHttp(server);
});

test("S3, GCS and Swift go through the proxy with all that they send", async () => {
  await using s3 = await S3Emulation.start();
  await assertAllIsProxied(s3Config(s3, { endpoint: farAway(s3.endpoint) }));
  await using gcs = await GcsEmulation.start();
  await assertAllIsProxied(gcsConfig(gcs, { endpoint: farAway(gcs.endpoint) }));
  await using swift = await FakeKeystone.start();
  const url = farAway(swift.url);
  const login = { kind: "v3", url: `${url}/identity/v3`, body: {} } as const;
  const storageUrl = `${url}/v1/me`;
  const asked = await assertAllIsProxied(keystoneConfig(swift, { login, storageUrl }));
  assert.deepEqual(asked, [
    `POST ${url}/identity/v3/auth/tokens`,
    `PUT ${storageUrl}/c/p/a`,
    `HEAD ${storageUrl}/c/p/a`,
  ]);
});

test("KMS is asked through the proxy", async () => {
  await using proxy = await ConnectProxy.start();
  await using kms = await FakeKms.start();
  const requestHandler = makeSender({ http: proxy.url });
  const endpoint = farAway(kms.endpoint);
  await kms.openCrypter({ signal, requestHandler }, endpoint);
  assert.deepEqual(kms.asked, ["Encrypt"]);
  assert.equal(proxy.count("POST"), 1);
  requestHandler.destroy();
});
