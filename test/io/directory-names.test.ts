import assert from "node:assert/strict";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { LocalFileError } from "../../src/errors.ts";
import { listNames } from "../../src/io/directory-names.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const scratch = scratchDirectory();
after(() => scratch[Symbol.dispose]());
const place = scratch.path;
const { signal } = new AbortController();

/** More than one pipe holds. */
const names = Array.from({ length: 900 }, (_, number) => `${number}-ä\n${"x".repeat(200)}`);
names.push(".hidden", "-print", " ", "sub");
const large = join(place, "large");
mkdirSync(join(large, "sub"), { recursive: true });
writeFileSync(join(large, "sub", "deeper"), "");
for (const name of names) if (name !== "sub") writeFileSync(join(large, name), "");

async function listed(directory: string, largeBytes = 0): Promise<string[]> {
  const found: string[] = [];
  for await (const some of listNames(directory, { signal, largeBytes })) found.push(...some);
  return found.toSorted();
}

async function withPath<T>(path: string, work: () => Promise<T>): Promise<T> {
  const before = process.env["PATH"];
  process.env["PATH"] = path;
  try {
    return await work();
  } finally {
    process.env["PATH"] = before;
  }
}

function program(name: string, text: string): string {
  const folder = join(place, name);
  mkdirSync(folder);
  writeFileSync(join(folder, "find"), `#!/bin/sh\n${text}\n`);
  chmodSync(join(folder, "find"), 0o755);
  return folder;
}

test("lists a large directory with find, and without", async () => {
  assert.deepEqual(await listed(large), names.toSorted());
  const other = program("other", "exit 1");
  for (const path of [join(place, "nothing"), other]) {
    assert.deepEqual(await withPath(path, () => listed(large)), names.toSorted());
  }
  // What another find would say is told: it is used.
  const fake = program("fake", String.raw`printf './one\0./two\0'`);
  assert.deepEqual(await withPath(fake, () => listed(large)), ["one", "two"]);
});

test("a small directory needs no program", async () => {
  const small = join(place, "small");
  mkdirSync(small);
  writeFileSync(join(small, "file"), "");
  const fake = program("unasked", String.raw`printf './other\0'`);
  assert.deepEqual(await withPath(fake, () => listed(small, 10_000_000)), ["file"]);
});

test("a listing that ends too early is an error, and so is no directory", async () => {
  for (const [name, text] of [
    ["failed", String.raw`printf './one\0'; exit 1`],
    ["cut", String.raw`printf './one\0./tw'`],
    ["killed", String.raw`printf './one\0'; kill -9 $$`],
  ] as const) {
    const path = program(name, text);
    await assert.rejects(
      withPath(path, () => listed(large)),
      LocalFileError,
      name,
    );
  }
  await assert.rejects(listed(join(place, "absent")), LocalFileError);
});

test("a reader that stops early leaves no program behind", async () => {
  const path = program("endless", String.raw`while printf './one\0'; do :; done`);
  await withPath(path, async () => {
    for await (const some of listNames(large, { signal, largeBytes: 0 })) {
      assert.equal(some[0], "one");
      break;
    }
  });
});
