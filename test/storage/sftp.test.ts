import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { silentLog } from "../../src/io/log.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { OpenOptions } from "../../src/storage/open.ts";
import type { SftpConfig } from "../../src/storage/sftp-config.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { patternSource, sha256 } from "../support/bodies.ts";
import { TcpFaultProxy } from "../support/fault-proxy.ts";
import { leaveOut } from "../support/left-out.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import {
  isSshServerAvailable,
  sshKeys,
  sshPassphrase,
  startSshServer,
} from "../support/ssh-server.ts";
import type { SshServer } from "../support/ssh-server.ts";
import { assertHalfWrittenIsTold, keysOf, text, textOf } from "./contract-lists.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const policy = { attempts: 8, baseMs: 1, capMs: 5, totalMs: 60_000 };

let started: Promise<SshServer> | undefined;
let count = 0;
after(async () => (await started)?.stop());

async function emptyStore(server: SshServer): Promise<string> {
  const path = join(server.stores, `store ${count++}`);
  await mkdir(path);
  await chownTree(path, serverUser());
  return path;
}

async function open(config: SftpConfig, options: Partial<OpenOptions> = {}): Promise<Storage> {
  return await openStorage(config, {
    signal,
    requestTimeoutMs: 20_000,
    uploadConcurrency: 3,
    retryPolicy: policy,
    ...options,
  });
}

function sshTest(title: string, body: (server: SshServer, path: string) => Promise<void>): void {
  test(title, async () => {
    const server = await (started ??= startSshServer());
    await body(server, await emptyStore(server));
  });
}

function describeLogin(): void {
  for (const name of sshKeys) {
    sshTest(`logs in with the key ${name}`, async (server, path) => {
      const passphrase = name === "encrypted" ? { passphrase: sshPassphrase } : {};
      const privateKeyPath = join(server.directory, name);
      await using storage = await open(server.config(path, { privateKeyPath, ...passphrase }));
      await storage.put("a", text(name), { signal });
      assert.equal(await textOf(storage, "a"), name);
    });
  }

  sshTest("logs in by an agent", async (server, path) => {
    const directory = await mkdtemp(join(tmpdir(), "walnut-agent-"));
    const agentSocket = join(directory, "agent");
    const agent = spawn("ssh-agent", ["-D", "-a", agentSocket], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    try {
      await once(agent.stdout, "data");
      // ssh-add wants the key to be the caller's own.
      const own = join(directory, "key");
      await writeFile(own, await readFile(join(server.directory, "ed25519")), { mode: 0o600 });
      const env = { ...process.env, SSH_AUTH_SOCK: agentSocket };
      execFileSync("ssh-add", ["-q", own], { env, stdio: "ignore" });
      const { privateKeyPath: _, ...config } = server.config(path, { agentSocket });
      await using storage = await open(config);
      await storage.put("a", text("x"), { signal });
    } finally {
      agent.kill();
      await rm(directory, { recursive: true, force: true });
    }
  });

  sshTest("an agent that is gone does not stand in the way of the key", async (server, path) => {
    await using storage = await open(server.config(path, { agentSocket: "/nowhere/agent" }));
    await storage.put("a", text("x"), { signal });
  });

  sshTest("a key that the server does not know is a refusal, tried once", async (server, path) => {
    const privateKeyPath = join(server.directory, "other");
    await using storage = await open(server.config(path, { privateKeyPath, password: "geheim" }));
    await assert.rejects(storage.stat("a", { signal }), (error: Error) => {
      assert.equal(error.name, "StorageAccessError");
      assert.match(
        error.message,
        /^ssh:\/\/127\.0\.0\.1:\d+ refuses the login of \w+ by publickey and password and .*: all configured/,
      );
      assert.ok(!JSON.stringify(error).includes("geheim"));
      return true;
    });
  });

  const bad: readonly [string, Partial<SftpConfig>, RegExp][] = [
    ["encrypted", {}, /^the private key .*encrypted can't be used: /],
    ["encrypted", { passphrase: "wrong" }, /^the private key .*encrypted can't be used: /],
    ["ed25519.pub", {}, /can't be used: it is a public key$/],
    ["known_hosts", {}, /can't be used: /],
    ["nothing", {}, /^cannot read the private key .*nothing: no such file or directory/],
  ];
  for (const [name, settings, message] of bad) {
    sshTest(`refuses the key ${name} ${JSON.stringify(settings)}`, async (server, path) => {
      const privateKeyPath = join(server.directory, name);
      await assert.rejects(open(server.config(path, { privateKeyPath, ...settings })), { message });
    });
  }
}

function describeHostKeys(): void {
  sshTest(
    "an unknown host key is refused with its fingerprint and the way out",
    async (server, path) => {
      const knownHostsFile = join(server.directory, "empty");
      await writeFile(knownHostsFile, "");
      await using storage = await open(server.config(path, { knownHostsFile }));
      const shown = execFileSync("ssh-keygen", [
        "-lf",
        join(server.directory, "host.pub"),
      ]).toString();
      const fingerprint = shown.split(" ")[1] ?? "?";
      await assert.rejects(storage.put("a", text("x"), { signal }), (error: Error) => {
        assert.equal(error.name, "StorageAccessError");
        assert.match(
          error.message,
          /^the host key of \[127\.0\.0\.1\]:\d+ is not known: ssh-ed25519 /,
        );
        assert.ok(error.message.includes(fingerprint), error.message);
        const hint = "hint" in error ? String(error.hint) : "";
        assert.ok(hint.includes(`ssh-keyscan -p ${server.port} 127.0.0.1`), hint);
        return true;
      });
      assert.deepEqual(await readdir(path), []);
    },
  );

  sshTest(
    "a changed host key is refused, and says which line knows another",
    async (server, path) => {
      const knownHostsFile = join(server.directory, "changed");
      const other = await readFile(join(server.directory, "other.pub"), "utf8");
      await writeFile(knownHostsFile, `# mine\n[127.0.0.1]:${server.port} ${other}`);
      await using storage = await open(server.config(path, { knownHostsFile }));
      await assert.rejects(storage.put("a", text("x"), { signal }), {
        name: "StorageAccessError",
        message: /has changed: it is ssh-ed25519 SHA256:\S+, but .*changed:2 has SHA256:/,
      });
    },
  );

  sshTest("hashed known hosts, as ssh-keygen makes them, are found", async (server, path) => {
    const knownHostsFile = join(server.directory, "hashed");
    await writeFile(knownHostsFile, await readFile(join(server.directory, "known_hosts")));
    execFileSync("ssh-keygen", ["-H", "-f", knownHostsFile], { stdio: "ignore" });
    assert.match(await readFile(knownHostsFile, "utf8"), /^\|1\|/);
    await using storage = await open(server.config(path, { knownHostsFile }));
    await storage.put("a", text("x"), { signal });
  });

  sshTest("the check can be turned off", async (server, path) => {
    const knownHostsFile = join(server.directory, "not there");
    const settings = { knownHostsFile, isHostKeyChecked: false };
    await using storage = await open(server.config(path, settings));
    await storage.put("a", text("x"), { signal });
    await assert.rejects(open(server.config(path, { knownHostsFile })), /not there: no such file/);
  });
}

function describeFiles(): void {
  sshTest("a root that is missing is an error, never an empty store", async (server, path) => {
    await using storage = await open(server.config(`${path}/none`));
    const message = /^storage directory ssh:.*\/none does not exist$/;
    const calls = [
      () => storage.put("a/b", text("x"), { signal }),
      () => textOf(storage, "a"),
      () => storage.stat("a", { signal }),
      () => keysOf(storage, ""),
    ];
    for (const call of calls) await assert.rejects(call(), { name: "StorageError", message });
    assert.deepEqual(await readdir(path), []);
  });

  sshTest("half-written files are told, and removed", async (server, path) => {
    await using storage = await open(server.config(path));
    await assertHalfWrittenIsTold(storage, path);
  });

  sshTest("a directory that may not be written is a refusal", async (server, path) => {
    if (process.getuid?.() !== 0 || server.username === "root") return;
    const foreign = join(path, "foreign");
    await mkdir(foreign, { mode: 0o755 });
    await using storage = await open(server.config(foreign));
    await assert.rejects(storage.put("a", text("x"), { signal }), {
      name: "StorageAccessError",
      message: /^cannot write .*foreign\/a: the server says "Permission denied"$/,
    });
  });
}

function describeFaults(): void {
  sshTest(
    "connections that are cut many times: all is stored, nothing is left over",
    async (server, path) => {
      await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: server.port });
      const config = server.config(path, { port: proxy.port, isHostKeyChecked: false });
      await using storage = await open(config);
      for (let round = 0; round < 4; round++) {
        proxy.fault = { cutAfterBytes: 60_000 + round * 777_777 };
        const put = storage.put(`a/${round}`, patternSource(4 * MIB, round), { signal });
        // Each connection is cut after so much: none gets through until the fault ends.
        setImmediate(() => undefined);
        await waitForCut(proxy);
        proxy.fault = {};
        await put;
        const stored = await sha256(storage.get(`a/${round}`, { signal }));
        assert.equal(stored, await sha256(patternSource(4 * MIB, round).open()));
      }
      assert.deepEqual((await readdir(join(path, "a"))).toSorted(), ["0", "1", "2", "3"]);
    },
  );

  sshTest("a server that falls silent ends every call in time", async (server, path) => {
    await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: server.port });
    const config = server.config(path, { port: proxy.port, isHostKeyChecked: false });
    for (const fault of [{ isSilent: true }, { isDeaf: true }]) {
      proxy.fault = fault;
      await using storage = await open(config, { requestTimeoutMs: 40, callTimeoutMs: 120 });
      const calls = [
        () => storage.put("a", patternSource(8 * MIB), { signal }),
        () => textOf(storage, "a"),
        () => keysOf(storage, ""),
        () => storage.delete(["a"], { signal }),
      ];
      for (const call of calls) await assert.rejects(call(), { name: "DeadlineError" });
    }
  });

  sshTest("a server that stops in the middle is noticed, and used once it goes on", async () => {
    await using own = await startSshServer();
    const repeated = Promise.withResolvers<void>();
    const log = { ...silentLog, warning: () => repeated.resolve() };
    const config = own.config(await emptyStore(own));
    const retryPolicy = { ...policy, attempts: 1000 };
    await using storage = await open(config, { requestTimeoutMs: 300, retryPolicy, log });
    await storage.put("a", text("x"), { signal });
    const stopped = [own.pid, ...descendantsOf(own.pid)];
    for (const pid of stopped) process.kill(pid, "SIGSTOP");
    const put = storage.put("b", patternSource(16 * MIB), { signal });
    await repeated.promise;
    for (const pid of stopped) process.kill(pid, "SIGCONT");
    await put;
    assert.equal((await storage.stat("b", { signal })).sizeBytes, 16 * MIB);
  });

  test("a port where nobody listens is named", async () => {
    await using proxy = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
    const server = await (started ??= startSshServer());
    const config = server.config("/x", { port: proxy.port });
    await using storage = await open(config, { retryPolicy: { ...policy, attempts: 2 } });
    await proxy[Symbol.asyncDispose]().catch(() => {});
    await assert.rejects(storage.stat("a", { signal }), {
      name: "StorageError",
      message: /^no connection to ssh:\/\/127\.0\.0\.1:\d+: .*gave up after 2 attempts/,
    });
  });
}

/** A session is three processes deep. */
function descendantsOf(pid: number): number[] {
  const { stdout } = spawnSync("pgrep", ["-P", `${pid}`], { encoding: "utf8" });
  const children = stdout.split("\n").filter((line) => line !== "");
  return children.flatMap((child) => [Number(child), ...descendantsOf(Number(child))]);
}

async function nextTurn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

async function waitForCut(proxy: TcpFaultProxy): Promise<void> {
  while (proxy.connectionCount === 0) await nextTurn();
  while (proxy.connectionCount > 0) await nextTurn();
}

if (isSshServerAvailable()) {
  describeLogin();
  describeHostKeys();
  describeFiles();
  describeFaults();
} else {
  leaveOut("SFTP store's logins and faults", "openssh-server is not installed");
}
