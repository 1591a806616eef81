/**
 * What happens to segments, notes and servers while a note lies there, and who believes it then:
 * the shell of setup's archive_command, and walnut itself. Clocks that go back are times that are
 * set; the process that starts the shells is the archiver of every start, as in a container.
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { type ArchiverName, isArchiverName } from "../../src/archive/caller-name.ts";
import { PushNotes, readFileIdentity, settlingMs } from "../../src/archive/push-note.ts";
import { canLinkServer, linkServer, SERVER_LINK } from "../../src/archive/server-link.ts";
import { archiveCommandLine } from "../../src/archive/setup-lines.ts";
import { type Spool, spoolDirectory } from "../../src/archive/spool-directory.ts";

const NAME = "000000010000000000000007";
const SEGMENT_BYTES = 64 * 1024;
const PATH = `pg_wal/${NAME}`;
const now = Date.now() / 1000;
/** In seconds to the note: of the config file, the server, the segment, and of a clock put back. */
const CONFIG_AGE = -4000;
const SERVER_AGE = -3900;
const SEGMENT_AGE = -3800;
const CLOCK_BACK = -3600;

let directory: string;
/** On another file system, if there is one that everybody may write to. */
let elsewhere: string;
let data: string;
let spool: Spool;
let line: string;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "walnut-belief-"));
  elsewhere = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "walnut-belief-"));
  data = join(directory, "data");
  mkdirSync(join(data, "pg_wal", "archive_status"), { recursive: true });
  writeFileSync(join(data, "PG_VERSION"), "17\n");
  write(join(directory, "config.json"), CONFIG_AGE);
  write(
    join(directory, "walnut"),
    CONFIG_AGE,
    `#!/bin/sh\necho "$@" > "${directory}/called"\nexit 74`,
  );
  execFileSync("chmod", ["+x", join(directory, "walnut")]);
  write(join(data, "postmaster.pid"), SERVER_AGE);
  write(join(data, PATH), SEGMENT_AGE, Buffer.alloc(SEGMENT_BYTES, 1));
  cpSync(join(data, "pg_wal"), join(directory, "older"), {
    recursive: true,
    preserveTimestamps: true,
  });
  write(join(data, PATH), SEGMENT_AGE, Buffer.alloc(SEGMENT_BYTES, 2));
  await setUp();
  // As the drainer does it.
  const notes = notesOf(data);
  await linkServer({ dataDirectory: data }, spool.notes);
  assert.ok(await notes.add(NAME, await readFileIdentity(join(data, PATH))));
  await notes.vouchFor(archiver(process.pid));
});
afterEach(() => {
  for (const path of [directory, elsewhere]) rmSync(path, { recursive: true, force: true });
});

/** What setup does in a data directory. */
async function setUp(): Promise<void> {
  spool = await spoolDirectory({ dataDirectory: data, cacheDirectory: "/none" });
  const isServerLinked = await canLinkServer({ dataDirectory: data }, spool.path);
  assert.ok(isServerLinked);
  const configFile = join(directory, "config.json");
  line = archiveCommandLine([join(directory, "walnut")], { spool, configFile, isServerLinked });
}

function notesOf(dataDirectory: string): PushNotes {
  return new PushNotes(`${dataDirectory}.walnut/notes`, join(dataDirectory, "pg_wal"), "one");
}

function archiver(pid: number): ArchiverName {
  const name = `${pid}-${/"\$PPID"-([0-9a-f]{8})/.exec(line)?.[1]}`;
  if (!isArchiverName(name)) throw new Error(`setup's line names no archiver: ${line}`);
  return name;
}

function write(path: string, age: number, content: Uint8Array | string = ""): void {
  writeFileSync(path, content);
  utimesSync(path, now + age, now + age);
}

/** Other bytes in the middle of the same file, which then has this time. */
function rewrite(atSeconds: number, path = join(data, PATH)): void {
  const bytes = readFileSync(path);
  bytes.fill(3, 20_000, 40_000);
  writeFileSync(path, bytes, { flag: "r+" });
  utimesSync(path, atSeconds, atSeconds);
}

/** A start of the server as PostgreSQL makes it, after its processes were killed. */
function restart(age = CLOCK_BACK - 10): void {
  rmSync(join(data, "postmaster.pid"));
  write(join(data, "postmaster.pid"), age);
}

/** A time that can be set: notes have more digits. */
function setNoteTime(): number {
  const seconds = Math.round(now);
  utimesSync(join(spool.notes, NAME), seconds, seconds);
  return seconds;
}

interface Situation {
  readonly change: () => void | Promise<void>;
  /** The stored bytes are those of the segment still, so that walnut may say so. */
  readonly isStored?: true;
}

const situations: Readonly<Record<string, Situation>> = {
  "written anew after a start with the clock an hour behind": {
    change() {
      restart();
      rewrite(now + CLOCK_BACK);
    },
  },
  "written anew after such a start, with its time of before": {
    change() {
      restart();
      rewrite(now + SEGMENT_AGE);
    },
  },
  "written anew after such a start, in which the server was as old as before": {
    change() {
      restart(SERVER_AGE);
      rewrite(now + SEGMENT_AGE);
    },
  },
  "written anew at the time of its note": { change: () => rewrite(setNoteTime()) },
  "written anew two microseconds after its note": { change: () => rewrite(setNoteTime() + 2e-6) },
  "written anew by crash recovery, whose archiver has the same number": {
    change() {
      utimesSync(join(data, "postmaster.pid"), now + 10, now + 10);
      rewrite(now + SEGMENT_AGE);
    },
  },
  "written anew by crash recovery, which has another archiver, with the clock behind": {
    async change() {
      await notesOf(data).vouchFor(archiver(process.pid + 1));
      rewrite(now + SEGMENT_AGE);
    },
  },
  "another file of its name and age, from a copy of pg_wal, after a start": {
    change() {
      rmSync(join(data, "pg_wal"), { recursive: true });
      renameSync(join(directory, "older"), join(data, "pg_wal"));
      restart();
    },
  },
  "on another file system behind a symbolic link, and written anew after a start": {
    change() {
      execFileSync("cp", ["-a", join(data, "pg_wal"), elsewhere]);
      rmSync(join(data, "pg_wal"), { recursive: true });
      symlinkSync(join(elsewhere, "pg_wal"), join(data, "pg_wal"));
      restart();
      rewrite(now + CLOCK_BACK);
    },
  },
  "in a copy of all, hard links too, that starts there with the line of before": {
    change: () => moveToCopy(),
  },
  "in a copy of all, hard links too, that starts there with a line of its own": {
    async change() {
      moveToCopy();
      await setUp();
    },
  },
  "written anew under notes from a file backup": {
    change() {
      restoreFromTar(spool.path);
      restart();
      rewrite(now + CLOCK_BACK);
    },
  },
  "all put back from a file backup, and written anew after a start": {
    change() {
      restoreFromTar(data, spool.path);
      restart();
      rewrite(now + CLOCK_BACK);
    },
  },
  "as it was, under notes from a file backup": {
    change: () => restoreFromTar(spool.path),
    isStored: true,
  },
  "as it was, after a start": { change: () => restart(), isStored: true },
  "as it was, without a postmaster.pid": {
    change: () => rmSync(join(data, "postmaster.pid")),
    isStored: true,
  },
  "as it was, of an older drainer": {
    change: () => rmSync(join(spool.notes, SERVER_LINK)),
    isStored: true,
  },
  "as it was, with newer settings": {
    change: () => write(join(directory, "config.json"), 10),
    isStored: true,
  },
};

/** One copy, so that the copies of two names of one file are one file. */
function moveToCopy(): void {
  const copy = join(directory, "copy");
  mkdirSync(copy);
  execFileSync("cp", ["-a", data, `${data}.walnut`, copy]);
  data = join(copy, "data");
  const ends = [join(data, "postmaster.pid"), join(`${data}.walnut`, "notes", SERVER_LINK)];
  assert.equal(new Set(ends.map((path) => statSync(path).ino)).size, 1);
  restart();
  rewrite(now + CLOCK_BACK);
}

function restoreFromTar(...paths: readonly string[]): void {
  for (const path of paths) {
    const place = ["-C", dirname(path), "-f", join(directory, "backup.tar")];
    execFileSync("tar", ["-c", ...place, path.slice(dirname(path).length + 1)]);
    rmSync(path, { recursive: true });
    execFileSync("tar", ["-x", ...place]);
  }
}

/** The words with which walnut was called; undefined where the shell said itself that all is done. */
function call(shell: string): string | undefined {
  const text = (/^archive_command = '(.*)'$/.exec(line)?.[1] ?? "exit 99")
    .replaceAll("''", "'")
    .replaceAll("%f", NAME)
    .replaceAll("%p", PATH);
  const called = join(directory, "called");
  rmSync(called, { force: true });
  const { status, stderr } = spawnSync(shell, ["-c", text], { cwd: data, encoding: "utf8" });
  assert.equal(stderr, "");
  if (!existsSync(called)) {
    assert.equal(status, 0);
    return undefined;
  }
  assert.equal(status, 74);
  return readFileSync(called, "utf8");
}

/** One name for each that there is here. */
const shells = [
  ...new Map(
    ["/bin/sh", "/bin/bash", "/bin/ash", "/bin/ksh", "/bin/zsh"]
      .filter((shell) => existsSync(shell))
      .map((shell) => [realpathSync(shell), shell]),
  ).values(),
];

for (const [what, { change, isStored = false }] of Object.entries(situations)) {
  test(`no shell believes the note of a segment that is ${what}`, async () => {
    for (const shell of shells) assert.equal(call(shell), undefined, shell);
    assert.equal(await notesOf(data).isTrue(NAME), true);
    await change();
    for (const shell of shells) {
      assert.equal(call(shell), `wal-push --archiver ${archiver(process.pid)} ${PATH}\n`, shell);
    }
    assert.equal(await notesOf(data).isTrue(NAME), isStored);
  });
}

test("a start of the server never has the inode of the one that notes are tied to", async () => {
  const linked = statSync(join(spool.notes, SERVER_LINK)).ino;
  for (let start = 0; start < 20; start += 1) {
    restart();
    assert.notEqual(statSync(join(data, "postmaster.pid")).ino, linked);
  }
  await linkServer({ dataDirectory: data }, spool.notes);
  for (const shell of shells) assert.equal(call(shell), undefined, shell);
});

test("setup finds out whether a directory can be tied to a server, and leaves nothing there", async () => {
  const server = { dataDirectory: data };
  assert.equal(await canLinkServer(server, spool.notes), true);
  assert.deepEqual(readdirSync(spool.notes).toSorted(), [NAME, archiver(process.pid), SERVER_LINK]);
  assert.equal(await canLinkServer(server, join(directory, "missing")), false);
  rmSync(join(data, "PG_VERSION"));
  assert.equal(await canLinkServer(server, spool.notes), false);
});

const FINE = 100_000_000_007n;
const WHOLE = 100_000_000_000n;
/** Modified, changed, looked at (in ms), to wait (in ms). */
const ages: Readonly<Record<string, readonly [bigint, bigint, number, number]>> = {
  "just written": [FINE, FINE, 100_010, 20],
  "written long enough ago": [FINE, FINE, 100_020, 0],
  "given an older time just now": [WHOLE / 2n, FINE, 100_010, 20],
  "written before the clock was put back": [FINE, FINE, 50_000, 20],
  "written in this second, the smallest unit": [WHOLE, WHOLE, 100_900, 1020],
  "written in an earlier one of those": [WHOLE, WHOLE, 101_020, 0],
};
for (const [what, [mtimeNs, ctimeNs, nowMs, waitMs]] of Object.entries(ages)) {
  test(`any write shows in the times of a file that was ${what} after ${waitMs} ms`, () => {
    const times = { mtimeNs: String(mtimeNs), ctimeNs: String(ctimeNs) };
    assert.equal(settlingMs(times, nowMs), waitMs);
  });
}
