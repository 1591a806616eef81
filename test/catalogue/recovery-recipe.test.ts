import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { recoveryCommands, recoverySettings } from "../../src/catalogue/recovery-recipe.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const recipe = { backup: "base_000000010000000000000002", timeline: 1, lsn: lsn(0x5000028n) };
/** A blank, a quote, and what PostgreSQL reads in a line (a backslash) and in a command (%). */
const PREFIX = "--s3-prefix=s3://b/a%20b's\\c";

test("the printed commands pass every word on as it is", () => {
  using directory = scratchDirectory();
  const program = join(directory.path, "my tools", "walnut");
  const place = join(directory.path, "it's new");
  mkdirSync(join(directory.path, "my tools"));
  mkdirSync(place);
  const script = `#!/bin/sh\nprintf '%s\\n' "$@" > "${directory.path}/words"\n`;
  writeFileSync(program, script, { mode: 0o755 });

  const commands = recoveryCommands(recipe, [program, PREFIX], place);
  execFileSync("/bin/sh", ["-e", "-c", commands.join("\n")]);

  const words = readFileSync(join(directory.path, "words"), "utf8").trimEnd().split("\n");
  assert.deepEqual(words, [PREFIX, "backup-fetch", place, recipe.backup]);
  assert.ok(existsSync(join(place, "recovery.signal")));
  const [line = ""] = readFileSync(join(place, "postgresql.auto.conf"), "utf8").split("\n");
  const text = /^restore_command = '(.*)'$/.exec(line)?.[1] ?? "";
  // As PostgreSQL reads the line, and then the command. @source guc-file.l, percentrepl.c
  const command = text.replace(
    /''|\\(.)/g,
    (pair: string, letter?: string) => letter ?? pair.slice(1),
  );
  const called = command.replaceAll("%f", "F").replaceAll("%p", "P").replaceAll("%%", "%");
  execFileSync("/bin/sh", ["-c", called]);
  const fetched = readFileSync(join(directory.path, "words"), "utf8").trimEnd().split("\n");
  assert.deepEqual(fetched, [PREFIX, "wal-fetch", "F", "P"]);
});

test("the server that they make archives nothing, and stops right before the record", () => {
  assert.deepEqual(recoverySettings(recipe, ["walnut"]), [
    ["restore_command", 'exec walnut wal-fetch "%f" "%p"'],
    ["recovery_target_lsn", "0/5000028"],
    ["recovery_target_inclusive", "false"],
    ["recovery_target_timeline", "1"],
    ["recovery_target_action", "promote"],
    ["archive_mode", "off"],
  ]);
});
