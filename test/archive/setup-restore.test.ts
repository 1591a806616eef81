/** The restore_command that setup prints, in the shell that PostgreSQL would start. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { installRenameProgram } from "../../src/archive/rename-program.ts";
import {
  AGAIN_STATUS,
  END_STATUS,
  restoreCommandLine,
  type RestoreSetup,
} from "../../src/archive/setup-lines.ts";
import { type Spool, spoolDirectory } from "../../src/archive/spool-directory.ts";
import { exitCodes, standbyRetryExitCode } from "../../src/commands/exit-codes.ts";

const NAME = "000000010000000000000007";
const now = Date.now() / 1000;

let directory: string;
let data: string;
let spool: Spool;
let walnut: string;
let configFile: string;
let setup: RestoreSetup;
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "walnut-setup it's-"));
  data = join(directory, "da ta");
  mkdirSync(join(data, "pg_wal"), { recursive: true });
  spool = await spoolDirectory({ dataDirectory: data, cacheDirectory: "/none" });
  await installRenameProgram(spool.renameProgram);
  configFile = join(directory, "100%.json");
  walnut = join(directory, "wal nut");
  setup = { spool, renameProgram: "x", configFile, isServerLinked: true };
  write(configFile, -1000);
  write(join(data, "postmaster.pid"), -100);
  writeFileSync(walnut, `#!/bin/sh\necho "$@" >> called\nexit 74\n`, { mode: 0o755 });
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function write(path: string, ageSeconds: number, content = ""): void {
  writeFileSync(path, content);
  utimesSync(path, now + ageSeconds, now + ageSeconds);
}

interface Called {
  readonly status: number | null;
  /** The words of the program, if the shell started it. */
  readonly called: string | undefined;
  readonly arrived: string | undefined;
  readonly stderr: string;
}

/** The words of the shell, as PostgreSQL makes them: the shell's parent is this very process. */
function shellText(renameProgram: string | undefined): string {
  return textOf(restoreCommandLine([walnut], { ...setup, renameProgram }));
}

function textOf(line: string): string {
  const text = /^restore_command = '(.*)'$/.exec(line)?.[1] ?? "";
  return text
    .replaceAll("''", "'")
    .replaceAll("\\\\", "\\")
    .replaceAll(/%([fp%])/g, (_, letter: string) =>
      letter === "f" ? NAME : letter === "p" ? "pg_wal/RECOVERYXLOG" : "%",
    );
}

const start = (shell: string, renameProgram: string) =>
  spawn(shell, ["-c", shellText(renameProgram)], { cwd: data });

function call(shell: string, renameProgram: string | undefined): Called {
  const options = { cwd: data, encoding: "utf8" } as const;
  const { status, stderr } = spawnSync(shell, ["-c", shellText(renameProgram)], options);
  const read = (path: string) =>
    statSync(join(data, path), { throwIfNoEntry: false })?.isFile() === true
      ? readFileSync(join(data, path), "utf8")
      : undefined;
  return { status, called: read("called"), arrived: read("pg_wal/RECOVERYXLOG"), stderr };
}

/** What a prefetcher does for the shells that this process starts. */
function prefetched(ageSeconds: number, { pid = process.pid, run = "run-1" } = {}): void {
  const line = restoreCommandLine([walnut], setup);
  const hash = /"\$PPID"-([0-9a-f]{8})/.exec(line)?.[1];
  mkdirSync(join(spool.prefetch, run));
  linkSync(join(data, "postmaster.pid"), join(spool.prefetch, run, "server"));
  symlinkSync(run, join(spool.prefetch, `${pid}-${hash}`));
  write(join(spool.prefetch, run, NAME), ageSeconds, "segment");
}

const shells = ["/bin/sh", "/bin/bash", "/bin/dash"].filter((shell) => existsSync(shell));
for (const shell of shells) {
  const missed = (result: Called, times = 1): void => {
    assert.equal(result.status, 74, result.stderr);
    const words = /wal-fetch --recovery \d+-[0-9a-f]{8} \d+ pg_wal\/RECOVERYXLOG\n/;
    assert.match(result.called ?? "", new RegExp(`^(${words.source}){${times}}$`));
    assert.equal(result.arrived, undefined);
    assert.equal(result.stderr, "");
  };

  test(`${shell} takes a segment that is newer than this start of the server, without us`, () => {
    prefetched(0);
    assert.deepEqual(call(shell, spool.renameProgram), {
      status: 0,
      called: undefined,
      arrived: "segment",
      stderr: "",
    });
    assert.deepEqual(readdirSync(join(spool.prefetch, "run-1")), ["server"]);
    rmSync(join(data, "pg_wal", "RECOVERYXLOG"));
    missed(call(shell, spool.renameProgram));
  });

  test(`${shell} takes it with mv, too`, () => {
    prefetched(0);
    const { status, arrived } = call(shell, undefined);
    assert.deepEqual([status, arrived], [0, "segment"]);
    rmSync(join(data, "pg_wal", "RECOVERYXLOG"));
    missed(call(shell, undefined));
  });

  test(`${shell} waits for one that is coming, and calls us when it does not come`, async () => {
    prefetched(0);
    const path = join(spool.prefetch, "run-1", NAME);
    rmSync(path);
    writeFileSync(`${path}.coming`, "");
    const called = start(shell, spool.renameProgram);
    await once(called, "spawn");
    writeFileSync(`${path}.tmp-1`, "segment");
    renameSync(`${path}.tmp-1`, path);
    assert.deepEqual(await once(called, "exit"), [0, null]);
    assert.equal(readFileSync(join(data, "pg_wal", "RECOVERYXLOG"), "utf8"), "segment");
    rmSync(join(data, "pg_wal", "RECOVERYXLOG"));
    missed(call(shell, spool.renameProgram));
  });

  test(`${shell} calls us for one that is not there`, () =>
    missed(call(shell, spool.renameProgram)));

  test(`${shell} calls us for one from before this start of the server`, () => {
    prefetched(-200);
    missed(call(shell, spool.renameProgram));
  });

  test(`${shell} calls us for one of another start, whatever clock and process say`, () => {
    prefetched(0);
    rmSync(join(data, "postmaster.pid"));
    write(join(data, "postmaster.pid"), -100);
    missed(call(shell, spool.renameProgram));
    missed(call(shell, undefined), 2);
  });

  test(`${shell} calls us for one of another recovery`, () => {
    prefetched(0, { pid: process.pid + 1 });
    missed(call(shell, spool.renameProgram));
  });

  test(`${shell} calls us for one that was fetched before the settings changed`, () => {
    prefetched(0);
    write(configFile, 100);
    missed(call(shell, spool.renameProgram));
  });

  test(`${shell} calls us where the program is missing, or can't rename`, () => {
    prefetched(0);
    missed(call(shell, join(directory, "missing")));
    rmSync(join(data, "called"));
    rmSync(join(spool.prefetch, "run-1"), { recursive: true });
    missed(call(shell, spool.renameProgram));
    rmSync(join(data, "called"));
    mkdirSync(join(spool.prefetch, "run-1"));
    linkSync(join(data, "postmaster.pid"), join(spool.prefetch, "run-1", "server"));
    write(join(spool.prefetch, "run-1", NAME), 0, "segment");
    // Something that nothing can be renamed to.
    mkdirSync(join(data, "pg_wal", "RECOVERYXLOG", "x"), { recursive: true });
    missed(call(shell, spool.renameProgram));
    assert.deepEqual(readdirSync(join(spool.prefetch, "run-1")).toSorted(), [NAME, "server"]);
  });
}

/** What walnut may end with, or its runtime or the system for it; what PostgreSQL is told. */
const ENDS: readonly (readonly [end: string, status: number])[] = [
  ["exit 0", 0],
  ["exit 74", 74],
  // A standby asks again then; with 255 it would end because its store was away for a moment.
  ["exit 75", 75],
  ["exit 1", 255],
  ["exit 2", 255],
  ["exit 125", 255],
  ["exit 126", 126],
  ["exit 200", 200],
  ["kill -KILL $$", 137],
];
for (const shell of shells) {
  for (const [end, status] of ENDS) {
    test(`${shell} ends with ${status} where walnut does ${end}`, () => {
      writeFileSync(walnut, `#!/bin/sh\n${end}\n`, { mode: 0o755 });
      assert.equal(call(shell, spool.renameProgram).status, status, "not fetched ahead");
      prefetched(0);
      // Something that nothing can be renamed to.
      mkdirSync(join(data, "pg_wal", "RECOVERYXLOG", "x"), { recursive: true });
      assert.equal(call(shell, spool.renameProgram).status, status, "not renamed");
      const plain = textOf(restoreCommandLine([walnut]));
      assert.equal(spawnSync(shell, ["-c", plain], { cwd: data }).status, status, "alone");
    });
  }
}

/** Bash tries to start a process for 15 seconds, and ends with 254. */
const hastyShells = shells.filter(
  (shell) => spawnSync(shell, ["-c", "echo $BASH_VERSION"], { encoding: "utf8" }).stdout === "\n",
);
for (const shell of hastyShells) {
  test(`${shell} takes it, or ends as no archive does, where it can start no process`, () => {
    prefetched(0);
    const path = join(spool.prefetch, "run-1", NAME);
    // A user who has no process but the shell.
    const identity = process.getuid?.() === 0 ? { uid: 54_321, gid: 54_321 } : {};
    for (const one of [directory, data, join(data, "pg_wal"), spool.path, spool.prefetch]) {
      chmodSync(one, 0o777);
    }
    chmodSync(join(spool.prefetch, "run-1"), 0o777);
    chmodSync(spool.renameProgram, 0o755);
    const alone = () =>
      spawnSync("prlimit", ["--nproc=1:1", shell, "-c", shellText(spool.renameProgram)], {
        cwd: data,
        ...identity,
      });
    assert.equal(alone().status, 0);
    assert.equal(readFileSync(join(data, "pg_wal", "RECOVERYXLOG"), "utf8"), "segment");
    rmSync(join(data, "pg_wal", "RECOVERYXLOG"));
    writeFileSync(`${path}.coming`, "");
    assert.equal(alone().status, 255);
    assert.equal(existsSync(join(data, "called")), false);
  });
}

function hashOf(program: string): string | undefined {
  return /PPID"-([0-9a-f]{8})/.exec(
    restoreCommandLine([program], { ...setup, configFile: undefined }),
  )?.[1];
}

test("another line of the same server is another recovery", () => {
  assert.notEqual(hashOf("/a"), hashOf("/b"));
  assert.equal(hashOf("/a"), hashOf("/a"));
});

test("without a spool beside pg_wal the line only calls us", () => {
  const words = ["/w", "--s3-prefix=a%b"];
  const plain = restoreCommandLine(words);
  assert.match(plain, /; set -- \/w ''--s3-prefix=a%%b'' wal-fetch "%f" "%p"; "\$@"; /);
  const far = { ...spool, isOnWalFileSystem: false };
  assert.equal(restoreCommandLine(words, { ...setup, spool: far }), plain);
});

test("the end of the archive, and a standby's failure, have wal-fetch's codes in the line, too", () =>
  assert.deepEqual(
    [END_STATUS, AGAIN_STATUS],
    [exitCodes["not-in-archive"].code, standbyRetryExitCode.code],
  ));
