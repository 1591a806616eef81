import assert from "node:assert/strict";
import { readdirSync, truncateSync, writeFileSync } from "node:fs";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import type { ByteSource } from "../../src/io/bytes.ts";
import { silentLog } from "../../src/io/log.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { SftpConfig } from "../../src/storage/sftp-config.ts";
import { patternSource, sha256 } from "../support/bodies.ts";
import { TcpFaultProxy } from "../support/fault-proxy.ts";
import { leaveOut } from "../support/left-out.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { isSshServerAvailable, startSshServer } from "../support/ssh-server.ts";
import type { SshServer } from "../support/ssh-server.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const SIZE_BYTES = 12 * MIB + 12_345;

let started: Promise<SshServer> | undefined;
let count = 0;
after(async () => (await started)?.stop());

/** A store behind a proxy of its own; `onRepeated` is told before each repetition. */
async function openBehindProxy(onRepeated: () => void = () => {}) {
  const server = await (started ??= startSshServer());
  const path = join(server.stores, `cut ${count++}`);
  await mkdir(path);
  await chownTree(path, serverUser());
  const proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: server.port });
  const config: SftpConfig = server.config(path, { port: proxy.port, isHostKeyChecked: false });
  const storage = await openStorage(config, {
    signal,
    requestTimeoutMs: 20_000,
    uploadConcurrency: 1,
    retryPolicy: { attempts: 8, baseMs: 1, capMs: 5, totalMs: 60_000 },
    log: { ...silentLog, warning: onRepeated },
  });
  return {
    path,
    proxy,
    storage,
    async [Symbol.asyncDispose]() {
      await storage[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
    },
  };
}

/** What a backup is: it can't be opened again. */
function onceOnly(sizeBytes: number): ByteSource & { readonly openCount: number } {
  let openCount = 0;
  return {
    isReopenable: false,
    open() {
      openCount++;
      return patternSource(sizeBytes).open();
    },
    get openCount() {
      return openCount;
    },
  };
}

function describeCuts(): void {
  test("an upload that can't begin again goes on after cuts (P20)", async () => {
    let repeatedCount = 0;
    await using opened = await openBehindProxy(() => repeatedCount++);
    const { proxy, storage, path } = opened;
    // In the login, in the middle, in the middle again, near the end, in the answers.
    const cuts = [
      { cutAfterBytes: 1500 },
      { cutAfterBytes: 5 * MIB },
      { cutAnswersAfterBytes: 12_000 },
      { cutAfterBytes: 20_000 },
    ];
    proxy.rule = (connection) => cuts[connection - 1] ?? {};
    const body = onceOnly(SIZE_BYTES);
    await storage.put("base/part_001.tar", body, { signal });
    assert.equal(body.openCount, 1);
    assert.ok(repeatedCount >= cuts.length - 1, `${repeatedCount} repetitions`);
    const stored = await sha256(storage.get("base/part_001.tar", { signal }));
    assert.equal(stored, await sha256(patternSource(SIZE_BYTES).open()));
    assert.deepEqual(await readdir(join(path, "base")), ["part_001.tar"]);
  });

  test("what the server has changed meanwhile is noticed", async () => {
    let path = "";
    const spoil = (): void => {
      const [name = ""] = readdirSync(join(path, "a"));
      writeFileSync(join(path, "a", name), Buffer.alloc(1000, 7), { flag: "r+" });
    };
    await using opened = await openBehindProxy(spoil);
    ({ path } = opened);
    opened.proxy.rule = (connection) => (connection === 1 ? { cutAfterBytes: 6 * MIB } : {});
    await assert.rejects(opened.storage.put("a/b", onceOnly(SIZE_BYTES), { signal }), {
      name: "StorageError",
      message: /^the server of ssh:.* has lost a part of .*b\.tmp\..* it had acknowledged: other/,
    });
    assert.deepEqual(await readdir(join(path, "a")), []);
  });

  test("what can be opened again starts over after a loss", async () => {
    let spoiltCount = 0;
    let path = "";
    const spoil = (): void => {
      const [name = ""] = readdirSync(join(path, "a"));
      if (spoiltCount++ === 0) truncateSync(join(path, "a", name), 1000);
    };
    await using opened = await openBehindProxy(spoil);
    ({ path } = opened);
    opened.proxy.rule = (connection) => (connection === 1 ? { cutAfterBytes: 6 * MIB } : {});
    await opened.storage.put("a/b", patternSource(SIZE_BYTES), { signal });
    assert.equal(spoiltCount, 2);
    const stored = await sha256(opened.storage.get("a/b", { signal }));
    assert.equal(stored, await sha256(patternSource(SIZE_BYTES).open()));
    assert.deepEqual(await readdir(join(path, "a")), ["b"]);
  });

  test("a server that stays away is given up, and nothing is visible", async () => {
    await using opened = await openBehindProxy();
    const { proxy, storage, path } = opened;
    proxy.rule = (connection) => ({ cutAfterBytes: connection === 1 ? 3 * MIB : 100 });
    await assert.rejects(storage.put("a/b", onceOnly(SIZE_BYTES), { signal }), {
      name: "StorageError",
      message: /gave up after 8 attempts/,
    });
    const names = await readdir(join(path, "a"));
    assert.ok(
      names.every((name) => name.startsWith("b.tmp.")),
      names.join(),
    );
  });
}

if (isSshServerAvailable()) describeCuts();
else leaveOut("cuts of SFTP uploads", "openssh-server is not installed");
