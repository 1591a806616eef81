import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { isCallerName } from "../../src/archive/caller-name.ts";
import { PushNotes, readFileIdentity } from "../../src/archive/push-note.ts";
import { answerAtOnce, type CallPlace } from "../../src/commands/ready-call.ts";
import { walnutCommand } from "../support/walnut.ts";
import { writeWal } from "../support/wal-writer.ts";

const wal = writeWal({ records: Array.from({ length: 5 }, () => ({ dataBytes: 1000 })) });
const NAME = wal.segments[0]?.name ?? "";
const SEGMENT = wal.segments[0]?.bytes ?? Buffer.alloc(0);
const userId = process.getuid?.() ?? -1;
const now = Date.now() / 1000;

let directory: string;
let data: string;
let spool: string;
let place: CallPlace;
beforeEach(() => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), "walnut-ready-")));
  data = join(directory, "data");
  spool = `${data}.walnut`;
  mkdirSync(join(data, "pg_wal", "archive_status"), { recursive: true });
  for (const name of ["notes", "prefetch/run-1", "gaps"]) {
    mkdirSync(join(spool, name), { recursive: true, mode: 0o700 });
  }
  chmodSync(spool, 0o700);
  mkdirSync(join(directory, "home"));
  write(join(data, "postmaster.pid"), -100, "1");
  write(join(directory, "c.json"), -100, "{}");
  place = {
    args: ["--config", "../c.json", "wal-fetch", NAME, "pg_wal/RECOVERYXLOG"],
    environment: { PATH: "/bin", PGDATA: data },
    workingDirectory: data,
    homeDirectory: join(directory, "home"),
    versionText: "1",
    userId,
  };
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function write(path: string, ageSeconds: number, content: string | Uint8Array): void {
  writeFileSync(path, content);
  utimesSync(path, now + ageSeconds, now + ageSeconds);
}

/** What the prefetcher does for a caller that has asked it once. */
async function fetched(at: CallPlace = place): Promise<void> {
  const { caller } = await answerAtOnce(at);
  assert.ok(isCallerName(caller));
  symlinkSync("run-1", join(spool, "prefetch", caller));
  write(join(spool, "prefetch", "run-1", NAME), 0, SEGMENT);
}

const arrived = () => existsSync(join(data, "pg_wal", "RECOVERYXLOG"));

async function assertLeft(at: CallPlace = place): Promise<void> {
  assert.equal((await answerAtOnce(at)).isDone, false);
  assert.ok(!arrived());
  assert.ok(existsSync(join(spool, "prefetch", "run-1", NAME)));
}

test("a segment that was fetched ahead for this caller is renamed into its place, once", async () => {
  await fetched();
  assert.equal((await answerAtOnce(place)).isDone, true);
  assert.ok(readFileSync(join(data, "pg_wal", "RECOVERYXLOG")).equals(SEGMENT));
  assert.equal((await answerAtOnce(place)).isDone, false);
});

const others: Readonly<Record<string, () => Partial<CallPlace>>> = {
  "another word": () => ({ args: ["--config=../c.json", ...place.args.slice(2)] }),
  "another variable": () => ({ environment: { ...place.environment, AWS_REGION: "x" } }),
  "another version": () => ({ versionText: "2" }),
  "another working directory": () => ({
    workingDirectory: directory,
    args: ["--config", "../c.json", "wal-fetch", NAME, "data/pg_wal/RECOVERYXLOG"],
  }),
  "a config file that has changed": () => {
    writeFileSync(join(directory, "c.json"), "{ }");
    return {};
  },
  "a config file that has come": () => {
    writeFileSync(join(directory, "home", ".walg.yaml"), "");
    return {};
  },
  "a server that has started again": () => {
    write(join(data, "postmaster.pid"), -90, "2");
    return {};
  },
  "no server": () => {
    rmSync(join(data, "postmaster.pid"));
    return {};
  },
  "a spool of somebody else": () => ({ userId: userId + 1 }),
  "a spool that others may write to": () => {
    chmodSync(spool, 0o770);
    return {};
  },
  "a destination that is none of recovery": () => ({
    args: [...place.args.slice(0, -1), "pg_wal/OTHER"],
  }),
  "another file than a segment": () => ({
    args: [...place.args.slice(0, -2), "00000002.history", "pg_wal/RECOVERYXLOG"],
  }),
  "a segment from before the server's start": () => {
    write(join(spool, "prefetch", "run-1", NAME), -200, SEGMENT);
    return {};
  },
  "a segment that is not whole": () => {
    write(join(spool, "prefetch", "run-1", NAME), 0, SEGMENT.subarray(0, 100));
    return {};
  },
  "another segment under its name": () => {
    const bytes = Buffer.from(SEGMENT);
    bytes.writeUInt8(bytes.readUInt8(10) ^ 1, 10);
    write(join(spool, "prefetch", "run-1", NAME), 0, bytes);
    return {};
  },
};
for (const [what, change] of Object.entries(others)) {
  test(`with ${what} the whole program answers`, async () => {
    await fetched();
    await assertLeft({ ...place, ...change() });
  });
}

test("a file that was archived ahead is done while its note is true, for this caller", async () => {
  const path = join(data, "pg_wal", NAME);
  writeFileSync(path, SEGMENT);
  writeFileSync(join(data, "pg_wal", "archive_status", `${NAME}.ready`), "");
  const notes = new PushNotes(join(spool, "notes"), join(data, "pg_wal"));
  const push = { ...place, args: ["--config", "../c.json", "wal-push", `pg_wal/${NAME}`] };
  assert.ok(await notes.add(NAME, await readFileIdentity(path)));
  const { isDone, caller } = await answerAtOnce(push);
  assert.equal(isDone, false);
  assert.ok(isCallerName(caller));
  await notes.vouchFor(caller);
  assert.equal((await answerAtOnce(push)).isDone, true);
  const elsewhere = { ...push, environment: { ...push.environment, WALG_FILE_PREFIX: "/x" } };
  assert.equal((await answerAtOnce(elsewhere)).isDone, false);
  // Recycled.
  writeFileSync(path, Buffer.from(SEGMENT).fill(1, 5000, 5001));
  assert.equal((await answerAtOnce(push)).isDone, false);
  assert.ok(!existsSync(join(spool, "notes", NAME)));
});

test("neither other commands nor half a command line are taken for such a call", async () => {
  await fetched();
  for (const args of [["wal-fetch"], ["wal-fetch", NAME], ["wal-push"], ["help", "wal-push"], []]) {
    assert.deepEqual(await answerAtOnce({ ...place, args }), { isDone: false });
  }
});

test("the executable answers so, without the store", async () => {
  const [program = "", ...words] = walnutCommand();
  const { stdout } = spawnSync(program, [...words, "--version"], { encoding: "utf8" });
  const config = join(directory, "none.json");
  write(config, -100, JSON.stringify({ WALG_FILE_PREFIX: join(directory, "no repository") }));
  const args = ["--config", config, ...place.args.slice(2)];
  const environment = { HOME: join(directory, "home"), PATH: dirname(program) };
  await fetched({ ...place, args, environment, versionText: stdout });
  const options = { cwd: data, env: environment, encoding: "utf8" } as const;
  const run = () => spawnSync(program, [...words, ...args], options);
  const { status, stderr } = run();
  assert.deepEqual({ status, stderr }, { status: 0, stderr: "" });
  assert.ok(arrived());
  assert.ok((run().status ?? 0) > 125);
});
