import assert from "node:assert/strict";
import { copyFile, mkdir, open, readdir, rename, rm, utimes, writeFile } from "node:fs/promises";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fc } from "../support/property.ts";
import { formatNote, parseNote, PushNotes, readFileIdentity } from "../../src/archive/push-note.ts";

const NAME = "000000010000000000000003";
const OTHER = "000000010000000000000004";

let directory: string;
let notes: PushNotes;
let path: string;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-notes-"));
  await mkdir(join(directory, "notes"));
  await mkdir(join(directory, "wal"));
  notes = new PushNotes(join(directory, "notes"), join(directory, "wal"));
  path = join(directory, "wal", NAME);
});
after(() => rm(directory, { recursive: true, force: true }));

/** A file with a true note. */
async function noted(): Promise<void> {
  await writeFile(path, Buffer.alloc(64 * 1024, 7));
  assert.ok(await notes.add(NAME, await readFileIdentity(path)));
  assert.ok(await notes.isTrue(NAME));
}

async function writeAt(position: number, byte: number): Promise<void> {
  await using handle = await open(path, "r+");
  await handle.write(Buffer.of(byte), 0, 1, position);
}

test("a note of another repository is not believed, and goes; readers ask again", async () => {
  const places = [join(directory, "notes"), join(directory, "wal")] as const;
  const [one, other] = ["one", "other"].map((name) => new PushNotes(...places, name));
  await writeFile(path, Buffer.alloc(64 * 1024, 7));
  assert.ok(await one?.add(NAME, await readFileIdentity(path)));
  assert.equal(await one?.isTrue(NAME), true);
  await one?.vouchFor("4711");
  assert.equal(await other?.isTrue(NAME), false);
  assert.equal(await one?.isTrue(NAME), false, "it is gone");
  await noted();
  assert.equal(await one?.isTrue(NAME), false, "of no repository");
  await other?.forgetReaders();
  assert.equal(one?.isVouchedFor("4711"), false);
});

const changes: Readonly<Record<string, () => Promise<void>>> = {
  "a tail that is written again": () => writeAt(64 * 1024 - 1, 8),
  "the middle with the times put back": async () => {
    await writeAt(30_000, 8);
    await utimes(path, 1, 1);
  },
  "the same bytes once more": () => writeAt(0, 7),
  "a shorter file": async () => {
    await using handle = await open(path, "r+");
    await handle.truncate(8192);
  },
  "a copy in its place": async () => {
    await copyFile(path, `${path}.copy`);
    await rename(`${path}.copy`, path);
  },
  "no file": () => rm(path),
};

for (const [what, change] of Object.entries(changes)) {
  test(`a note is not believed after ${what}, and goes`, async () => {
    await noted();
    await change();
    assert.equal(await notes.isTrue(NAME), false);
    assert.deepEqual(await notes.list(), []);
  });
}

test("a recycled file has no note under its new name", async () => {
  await noted();
  await rename(path, join(directory, "wal", OTHER));
  assert.equal(await notes.isTrue(OTHER), false);
  assert.equal(await notes.isTrue(NAME), false);
});

test("no note is made of a file that changed while it was pushed", async () => {
  await writeFile(path, Buffer.alloc(64 * 1024, 7));
  const before = await readFileIdentity(path);
  await writeAt(100, 9);
  assert.equal(await notes.add(NAME, before), false);
  assert.deepEqual(await readdir(join(directory, "notes")), []);
});

test("a note that can't be written is known to who made it, as long as it is true", async () => {
  const nowhere = join(directory, "nowhere");
  const [own, other] = [1, 2].map(() => new PushNotes(nowhere, join(directory, "wal"), "one"));
  await writeFile(path, Buffer.alloc(64 * 1024, 7));
  assert.equal(await own?.add(NAME, await readFileIdentity(path)), true);
  assert.equal(await own?.isTrue(NAME), true);
  assert.equal(await other?.isTrue(NAME), false);
  await writeAt(100, 9);
  assert.equal(await own?.isTrue(NAME), false);
  assert.equal(await own?.add(NAME, await readFileIdentity(path)), true);
  await own?.remove(NAME);
  assert.equal(await own?.isTrue(NAME), false);
});

test("only the newest archiver is vouched for", async () => {
  await noted();
  await notes.vouchFor("100");
  await notes.vouchFor("101");
  assert.equal(notes.isVouchedFor("100"), false);
  assert.ok(notes.isVouchedFor("101"));
  assert.deepEqual(await notes.list(), [NAME]);
});

test("a note survives its text, and no part of it is taken for one", () => {
  const text = fc.string();
  const identity = fc.record({
    inode: text,
    sizeBytes: text,
    mtimeNs: text,
    ctimeNs: text,
    firstHash: text,
    lastHash: text,
    systemId: text,
  });
  fc.assert(
    fc.property(identity, fc.nat(), (note, cut) => {
      const line = formatNote(note);
      assert.deepEqual({ ...parseNote(line) }, { ...note });
      assert.equal(parseNote(line.slice(0, cut % line.length)), undefined);
    }),
  );
});
