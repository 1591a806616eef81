import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { arch, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import {
  canRename,
  installRenameProgram,
  renameProgram,
} from "../../src/archive/rename-program.ts";

let directory: string;
let program: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-rename-"));
  program = join(directory, "take");
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const run = (...words: string[]) => spawnSync(program, words, { encoding: "utf8" });

test("it renames one file, and does nothing else", async () => {
  await installRenameProgram(program);
  const from = join(directory, "from with a blank");
  const to = join(directory, "to");
  await writeFile(from, "content");
  assert.deepEqual(
    [run(from, to, "/none", "x")].map(({ status, stdout, stderr }) => ({ status, stdout, stderr })),
    [{ status: 0, stdout: "", stderr: "" }],
  );
  assert.equal(await readFile(to, "utf8"), "content");
  assert.ok(await canRename(program));
  assert.deepEqual((await readdir(directory)).toSorted(), ["take", "to"]);
});

/** This machine's program, and the other's where something runs it. */
const EMULATORS = new Map([["arm64", "/usr/bin/qemu-aarch64"]]);
const machines = ["x64", "arm64"].filter(
  (machine) => machine === arch() || existsSync(EMULATORS.get(machine) ?? ""),
);
for (const machine of machines) {
  const emulator = machine === arch() ? [] : [EMULATORS.get(machine) ?? ""];

  test(`${machine}: it renames, and waits only while a file is coming`, async () => {
    await writeFile(program, renameProgram(machine) ?? "", { mode: 0o700 });
    const [command, ...first] = [...emulator, program];
    const start = (...words: string[]) => spawn(command, [...first, ...words]);
    const status = async (...words: string[]) => (await once(start(...words), "exit"))[0];
    const [file, coming] = [join(directory, "file"), join(directory, "file.coming")];
    assert.equal(await status(file, coming), 1);
    await writeFile(file, "content");
    assert.equal(await status(file, coming), 0);
    assert.equal(await status(file, join(directory, "renamed"), "/none", "x"), 0);
    assert.equal(await readFile(join(directory, "renamed"), "utf8"), "content");

    await writeFile(coming, "");
    const waiting = start(file, coming);
    await once(waiting, "spawn");
    const ended = once(waiting, "exit");
    await writeFile(`${file}.new`, "content");
    await rename(`${file}.new`, file);
    assert.equal((await ended)[0], 0);
    await rm(file);
    const inVain = once(start(file, coming), "exit");
    await rm(coming);
    assert.equal((await inVain)[0], 1);
    // A prefetcher that is stopped keeps nobody for long.
    await writeFile(coming, "");
    assert.equal(await status(file, coming), 1);
  });

  test(`${machine}: where it can't rename it becomes another program, or ends as none does`, async () => {
    await writeFile(program, renameProgram(machine) ?? "", { mode: 0o700 });
    const [command, ...first] = [...emulator, program];
    const start = (...words: string[]) =>
      spawnSync(command, [...first, ...words], { encoding: "utf8", env: { WORD: "of ours" } });
    const [absent, to] = [join(directory, "absent"), join(directory, "to")];
    const script = 'echo "$WORD, $0, $*, $#"; exit 74';
    const became = start(absent, to, "/bin/sh", "-c", script, "name", "a b", "");
    assert.deepEqual([became.status, became.stdout], [74, "of ours, name, a b , 2\n"]);
    // What PostgreSQL never takes for the end of the archive.
    for (const words of [[], [absent], [absent, to, "/bin/sh"], [absent, to, "/none", "x"]]) {
      assert.equal(start(...words).status, 126, words.join(" "));
    }
  });
}

test("it is installed once, for its owner, and again when it is another file", async () => {
  await installRenameProgram(program);
  const first = await stat(program);
  assert.equal(first.mode & 0o777, 0o700);
  assert.ok(first.size < 400, String(first.size));
  await installRenameProgram(program);
  assert.equal((await stat(program)).ino, first.ino);
  await writeFile(program, "something else");
  await installRenameProgram(program);
  assert.deepEqual(await readFile(program), renameProgram(arch()));
  assert.deepEqual(await readdir(directory), ["take"]);
});

test("a program that can't run here is found out", async () => {
  assert.ok(!(await canRename(program)));
  await installRenameProgram(program);
  await chmod(program, 0o600);
  assert.ok(!(await canRename(program)));
  await rm(program);
  // Of the other kind of machine.
  const other = renameProgram(arch() === "arm64" ? "x64" : "arm64");
  await writeFile(program, other ?? "", { mode: 0o700 });
  assert.ok(!(await canRename(program)));
  assert.equal(renameProgram("s390x"), undefined);
});
