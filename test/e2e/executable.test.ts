import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as openpgp from "openpgp";
import { leaveOut } from "../support/left-out.ts";
import { postgresBytes, postgresFacts } from "../support/postgres-fixtures.ts";

const root = join(import.meta.dirname, "..", "..");
const bun = process.execPath;
let scratch = "";

before(() => {
  scratch = mkdtempSync(join(tmpdir(), "walnut-executable-"));
});
after(() => rmSync(scratch, { recursive: true, force: true }));

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Nothing of our own environment: no PATH, so no Node and no Bun to be found. */
function run(binary: string, words: readonly string[], cwd: string, env = {}): Ended {
  return spawnSync(binary, words, { cwd, env: { HOME: cwd, ...env }, encoding: "utf8" });
}

function build(name: string, ...words: readonly string[]): string {
  const outfile = join(scratch, name);
  const script = join(root, "scripts", "build.ts");
  execFileSync(bun, [script, "--outfile", outfile, ...words], { cwd: root, stdio: "pipe" });
  return outfile;
}

/** A directory in which a careless executable would find orders from strangers. */
function hostileDirectory(): string {
  const directory = mkdtempSync(join(scratch, "pgdata-"));
  writeFileSync(join(directory, ".env"), "WALG_FILE_PREFIX=/from/dotenv\nBUN_OPTIONS=--version\n");
  writeFileSync(join(directory, ".env.local"), "WALG_FILE_PREFIX=/from/dotenv/local\n");
  writeFileSync(join(directory, "bunfig.toml"), 'preload = ["./foreign.js"]\n');
  writeFileSync(join(directory, "foreign.js"), 'console.log("FOREIGN CODE RAN")\n');
  writeFileSync(
    join(directory, "package.json"),
    '{"type":"module","imports":{"#x":"./foreign.js"}}',
  );
  return directory;
}

function checkSelfContained(binary: string, runtime: RegExp): void {
  const directory = hostileDirectory();
  const version = run(binary, ["--version"], directory);
  assert.equal(version.status, 0, version.stderr);
  assert.match(
    version.stdout,
    /^walnut version \d+\.\d+\.\d+\t([0-9a-f]{12}|unknown)\t\w+ [\d.]+\tPostgreSQL 13-18\n$/,
  );
  assert.match(version.stdout, runtime);

  for (const name of ["walnut-client", "walg-daemon-client"]) {
    const link = join(directory, name);
    symlinkSync(binary, link);
    assert.match(run(link, ["--version"], directory).stdout, /^walnut-client\t\d/);
    assert.equal(
      run(link, ["no.sock", "wal-push", "X", "-connection-timeout=0s"], directory).status,
      1,
    );
    const fetch = ["no.sock", "wal-fetch", "X", "Y", "-connection-timeout", "0s"];
    assert.equal(run(link, fetch, directory).status, 200);
  }

  const config = run(binary, ["config"], directory);
  assert.equal(config.status, 0, config.stderr);
  assert.doesNotMatch(config.stdout, /from\/dotenv|FOREIGN/);

  const variables = {
    BUN_OPTIONS: "--preload ./foreign.js",
    BUN_BE_BUN: "1",
    BUN_INSPECT: "ws://127.0.0.1:1/x",
    BUN_INSPECT_PRELOAD: "./foreign.js",
    NODE_OPTIONS: "--require ./foreign.js",
  };
  const called = run(binary, ["--version"], directory, variables);
  assert.equal(called.stdout, version.stdout);
}

/** Every codec goes there and back, so that what is loaded late is inside. */
function checkCodecs(binary: string): void {
  const { first: name } = postgresFacts(17).segments;
  const segment = { name, bytes: Buffer.from(postgresBytes(17, name)) };
  for (const method of ["zstd", "lz4", "brotli", "lzma", "none"]) {
    const directory = mkdtempSync(join(scratch, `${method}-`));
    mkdirSync(join(directory, "repository"));
    const file = join(directory, segment.name);
    writeFileSync(file, segment.bytes);
    const env = {
      WALG_FILE_PREFIX: join(directory, "repository"),
      WALG_COMPRESSION_METHOD: method,
      WALNUT_CACHE_DIR: join(directory, "cache"),
    };
    const pushed = run(binary, ["wal-push", file], directory, env);
    assert.equal(pushed.status, 0, `${method}: ${pushed.stderr}`);
    const fetched = run(binary, ["wal-fetch", segment.name, "RECOVERYXLOG"], directory, env);
    assert.equal(fetched.status, 0, `${method}: ${fetched.stderr}`);
    assert.ok(readFileSync(join(directory, "RECOVERYXLOG")).equals(segment.bytes), method);
  }
}

/** Its library tells of each try with a key, if it takes the build for one for development. */
async function checkOpenPgp(binary: string): Promise<void> {
  const { privateKey } = await openpgp.generateKey({ type: "ecc", userIDs: [{ name: "one" }] });
  const directory = mkdtempSync(join(scratch, "openpgp-"));
  mkdirSync(join(directory, "repository"));
  const history = "1\t0/3000000\tno recovery target specified\n";
  writeFileSync(join(directory, "00000002.history"), history);
  const env = {
    WALG_FILE_PREFIX: join(directory, "repository"),
    WALG_PGP_KEY: privateKey,
    WALNUT_CACHE_DIR: join(directory, "cache"),
  };
  const pushed = run(binary, ["wal-push", join(directory, "00000002.history")], directory, env);
  assert.equal(pushed.status, 0, pushed.stderr);
  const fetched = run(binary, ["wal-fetch", "00000002.history", "fetched"], directory, env);
  assert.deepEqual([fetched.status, fetched.stdout, fetched.stderr], [0, "", ""]);
  assert.equal(readFileSync(join(directory, "fetched"), "utf8"), history);
}

test("the executable needs nothing beside itself and listens to nobody", async () => {
  const binary = build("walnut");
  checkSelfContained(binary, /\tbun 1\.4\.4\t/);
  checkCodecs(binary);
  await checkOpenPgp(binary);
});

test("the executable asks for glibc 2.17 at most, and for no other library", () => {
  const path = build("walnut-glibc");
  const needed = execFileSync("ldd", [path], { encoding: "utf8" }).trim().split("\n");
  for (const line of needed) {
    assert.match(line, /^\s*(linux-vdso|\/lib\S*\/ld-linux|lib(c|m|dl|rt|pthread)\.so)/);
  }
  const binary = readFileSync(path).toString("latin1");
  const minors = [...binary.matchAll(/GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor));
  assert.ok(minors.length > 0);
  assert.ok(Math.max(...minors) <= 17, `GLIBC_2.${Math.max(...minors)}`);
});

test("the same program builds and works on Node.js", () => {
  if (process.arch !== "x64") return leaveOut("Node.js executable", "the lock has Node for x64");
  const binary = build("walnut-node", "--runtime", "node");
  checkSelfContained(binary, /\tnode 24\./);
  checkCodecs(binary);
});

/** Path of the dynamic loader: the ELF program header of type PT_INTERP. */
function interpreterOf(elf: Buffer): string {
  const PT_INTERP = 3;
  const headersAt = Number(elf.readBigUInt64LE(32));
  const headerBytes = elf.readUInt16LE(54);
  for (let index = 0; index < elf.readUInt16LE(56); index += 1) {
    const at = headersAt + index * headerBytes;
    if (elf.readUInt32LE(at) !== PT_INTERP) continue;
    const start = Number(elf.readBigUInt64LE(at + 8));
    return elf.toString("latin1", start, start + Number(elf.readBigUInt64LE(at + 32)) - 1);
  }
  throw new Error("no interpreter");
}

test("an executable for other machines comes from this one", () => {
  const elf = { "linux-arm64": 0xb7, "linux-x64-musl": 0x3e, "linux-arm64-musl": 0xb7 };
  for (const [target, machine] of Object.entries(elf)) {
    const binary = readFileSync(build(`walnut-${target}`, "--target", target));
    assert.equal(binary.toString("latin1", 1, 4), "ELF", target);
    assert.equal(binary.readUInt16LE(18), machine, target);
    assert.equal(interpreterOf(binary).includes("ld-musl"), target.endsWith("musl"), target);
  }
});

test("a bare clone has what the two commands of the README need", () => {
  const names = new Set(readdirSync(root));
  for (const name of ["package.json", "package-lock.json", "README.md", "LICENSE"]) {
    assert.ok(names.has(name), name);
  }
  const readme = readFileSync(join(root, "README.md"), "utf8");
  const { scripts }: { scripts: Record<string, string> } = JSON.parse(
    readFileSync(join(root, "package.json"), "utf8"),
  );
  for (const [, script = ""] of readme.matchAll(/npm run (\w+)/g)) {
    assert.ok(script in scripts, `npm run ${script}`);
  }
});
