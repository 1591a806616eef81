import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { backupPush } from "../../src/commands/backup-push.ts";
import { completionCommand } from "../../src/commands/completion.ts";
import { listExitCodes } from "../../src/commands/exit-codes.ts";
import { formatCommandHelp, formatExitCodes, formatOverview } from "../../src/commands/help.ts";
import { formatSettings } from "../../src/commands/flags.ts";
import { guideGroups } from "../../src/commands/guide.ts";
import { commands } from "../../src/commands/index.ts";
import { createContext } from "../../src/commands/context.ts";
import { SettingIndex, allSettings } from "../../src/config/settings.ts";
import { settingFlagNames } from "../../src/config/setting.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { commandLineProblem, listedProgram as program } from "../support/command-lines.ts";

async function completionScript(shell: "bash" | "zsh"): Promise<string> {
  const written: string[] = [];
  await completionCommand(program).run(
    shell,
    createContext({
      config: defaultConfig({ cpuCount: 1 }),
      log: silentLog,
      clock: systemClock,
      signal: new AbortController().signal,
      workingDirectory: "/",
      write: (text) => Promise.resolve(void written.push(text)),
      progress: { update: () => {}, end: () => {} },
    }),
  );
  return written.join("");
}

test("every command is called what the table calls it and has a help", async () => {
  const overview = await formatOverview(program);
  for (const [name, entry] of Object.entries(commands)) {
    const command = await entry.load(program);
    assert.equal(command.name, name);
    assert.ok(command.usage === name || command.usage.startsWith(`${name} `), command.usage);
    assert.match(command.summary, /^[A-Z].*\.$/);
    assert.ok(overview.includes(`\n  ${name} `), name);
    const help = await formatCommandHelp(command);
    assert.ok(help.startsWith(`Usage: walnut ${command.usage}`), name);
    for (const flag of command.flags) {
      assert.ok(help.includes(`--${flag.name}`), flag.name);
      assert.match(flag.text, /^[A-Z].*\.$/, `${name} --${flag.name}`);
      assert.match(flag.value ?? "<none>", /^<.+>$/, `${name} --${flag.name}`);
    }
  }
});

test("the guide has each command once, with examples that the program takes", async () => {
  const index = new SettingIndex();
  const guided = guideGroups.flatMap(({ guides }) => Object.entries(guides));
  assert.deepEqual(guided.map(([name]) => name).toSorted(), Object.keys(commands).toSorted());
  for (const [name, { examples, settings }] of guided) {
    assert.ok(examples.length > 0, name);
    for (const [words] of examples) {
      assert.ok(words === name || words.startsWith(`${name} `), words);
      const line = words.replace(/ > .*/, "");
      assert.equal(await commandLineProblem(line, { isWhole: true }), undefined, words);
    }
    for (const setting of settings) assert.ok(index.byName(setting), `${name}: ${setting}`);
  }
});

test("the overview begins with how to get a database back, and fits a terminal", async () => {
  const overview = await formatOverview(program);
  const restore = overview.indexOf("\nRestore:\n");
  assert.ok(overview.indexOf("\nTo get a database back:\n") < restore);
  for (const { title } of guideGroups.slice(1)) {
    assert.ok(overview.indexOf(`\n${title}:\n`) > restore, title);
  }
  for (const line of overview.split("\n")) assert.ok(line.length <= 80, line);
});

test("help says examples, defaults, units and exit codes, and breaks its lines", async () => {
  const help = await formatCommandHelp(backupPush);
  for (const part of [
    /^Examples:\n {2}walnut backup-push "\$PGDATA" /m,
    /^Settings that matter most:\n(.+\n)* {2}WALNUT_ARCHIVE_CHECK_TIMEOUT [^=]*Default: 60s\.$/m,
    /^ {2}WALNUT_DISK_RATE_LIMIT .*\n?.* In bytes per second\.$/m,
    /^Exit codes to tell apart:\n {2}20 {2}.*\n(.+\n)* {2}27 {2}backup-push has stored/m,
  ]) {
    assert.match(help, part);
  }
  for (const line of help.split("\n").slice(1)) assert.ok(line.length <= 85, line);
});

test("flags of a command are unique, and do not hide the flags of all commands", async () => {
  for (const [name, entry] of Object.entries(commands)) {
    const { flags } = await entry.load(program);
    const names = flags.flatMap(({ name: long, short }) =>
      short === undefined ? [long] : [long, short],
    );
    assert.equal(new Set(names).size, names.length, name);
    for (const global of ["help", "h", "config", "log-format", "log-level"]) {
      assert.ok(!names.includes(global), `${name} --${global}`);
    }
  }
});

test("the help of exit codes has every code", () => {
  const unbroken = formatExitCodes().replaceAll(/\n {3,}/g, " ");
  for (const { code, text } of listExitCodes()) {
    assert.match(unbroken, new RegExp(`^  ${code} +${text.replaceAll("(", "\\(")}`, "m"));
  }
});

test("the list of settings has every flag", () => {
  const text = formatSettings();
  for (const setting of allSettings) {
    assert.ok(text.includes(`--${settingFlagNames(setting)[0] ?? "?"}`), setting.name);
  }
});

test("bash completes commands and flags", async () => {
  const script = await completionScript("bash");
  const complete = (...words: string[]) => {
    const quoted = words.map((word) => `'${word}'`).join(" ");
    const line = `COMP_WORDS=(walnut ${quoted}); COMP_CWORD=${words.length}; _walnut`;
    const bash = spawnSync("bash", ["-c", `${script}\n${line}\nprintf '%s\\n' "\${COMPREPLY[@]}"`]);
    assert.equal(bash.stderr.toString(), "");
    return bash.stdout.toString().trim().split("\n");
  };
  const walCommands = Object.keys(commands).filter((name) => name.startsWith("wal"));
  assert.deepEqual(complete("wal"), walCommands);
  assert.deepEqual(complete("config", "--js"), ["--json"]);
  assert.deepEqual(complete("wal-push", "--s3-pre"), ["--s3-prefix"]);
  assert.deepEqual(complete("wal-push", "file"), [""]);
});

test("zsh's script names every command and closes every quote", async () => {
  const script = await completionScript("zsh");
  for (const name of Object.keys(commands)) assert.ok(script.includes(`${name}) flags=(`), name);
  // bash reads the same quoting; what only zsh understands is no syntax error for it.
  assert.equal(spawnSync("bash", ["-n"], { input: script }).stderr.toString(), "");
});
