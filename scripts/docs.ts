/**
 * Makes the parts of docs/ that the tables of the program say already.
 *
 *   npm run docs              writes docs/settings.md and docs/exit-codes.md
 *   npm run docs -- --check   fails if they are not what they would be now
 */
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { listExitCodes } from "../src/commands/exit-codes.ts";
import { type Setting, settingFlagNames, settingNames } from "../src/config/setting.ts";
import { settingGroups } from "../src/config/settings.ts";

const directory = join(dirname(import.meta.dirname), "docs");

const pages: Readonly<Record<string, () => string>> = {
  "settings.md": renderSettings,
  "exit-codes.md": renderExitCodes,
};

function renderSettings(): string {
  const parts = [
    "# Settings",
    "",
    "Made from the table in `src/config/` by `npm run docs`; `walnut flags` prints the same, and",
    "`walnut config` the values in effect with their origins.",
    "",
    "A setting is looked for on the command line, in the environment, in the config file, and then",
    "has its default. An empty variable counts as unset; an empty flag (`--s3-prefix=`) takes away",
    "what the environment and the file say. Among several names of one setting in one place,",
    "`WALNUT_` overrides the others; different values under other names are an error, and so are",
    "names with one of our prefixes that are not in this table.",
    "",
    "The config file is `--config FILE`, `WALNUT_CONFIG`, `WALG_CONFIG_PATH`, or the first of",
    "`~/.walnut.*` and `~/.walg.*`, ending in `json`, `toml`, `yaml`, `yml`, `env` or `dotenv`. It",
    "holds the same names, in upper or lower case; other names in it are left alone. Secrets belong",
    "into this file, with mode 0600: a flag is seen by all who may list the machine's processes, and",
    "in archive_command by every role of the server (`SHOW archive_command`).",
    "",
    "Durations are written as in Go: `500ms`, `30s`, `1m`, `1h30m`. Sizes are bytes, or have a",
    "unit: `512KiB`, `64MiB`, `1GB`. Booleans are `true` or `false` (`1`, `t`, `0`, `f`).",
    "",
  ];
  for (const { title, settings } of settingGroups) {
    const head = ["| flag | variables | type | default | |", "|---|---|---|---|---|"];
    parts.push(`## ${title}`, "", ...head, ...settings.map(renderSetting), "");
  }
  return parts.join("\n");
}

function renderSetting(setting: Setting): string {
  const [flag = ""] = settingFlagNames(setting);
  const names = settingNames(setting).map((name) => `\`${name}\``);
  const standard = setting.default === undefined ? "" : `\`${setting.default}\``;
  const type = setting.type.name === "choice" ? setting.type.text : setting.type.name;
  const cells = [`\`--${flag}\``, names.join(", "), type, standard, describe(setting)];
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}

function describe({ text, unit, effect }: Setting): string {
  const about = unit === undefined ? text : `${text} In ${unit}.`;
  switch (effect.kind) {
    case "used":
      return about;
    case "none":
    case "warning":
      return `${about} **No effect**: ${effect.reason}.`;
    case "refused":
      return `${about} **Refused**: ${effect.reason}.`;
  }
  return effect satisfies never;
}

function renderExitCodes(): string {
  const rows = listExitCodes().map(({ code, text }) => `| ${code} | ${text} |`);
  return [
    "# Exit codes",
    "",
    "Made from the table in `src/commands/exit-codes.ts` by `npm run docs`; `walnut help",
    "exit-codes` prints the same.",
    "",
    "| code | meaning |",
    "| --- | --- |",
    "| 0 | all is done and safe |",
    ...rows,
    "",
    "A run that was stopped by SIGTERM, SIGINT or SIGHUP leaves everything in order and then ends",
    "by that signal, so that its caller can tell it from a failure.",
    "",
    "`wal-push`, as every command but `wal-fetch`, answers in 1 to 125: above that, PostgreSQL's",
    "archiver restarts itself and does not count the failure. The exception is 201: a server that",
    "stops has nothing to wait for but this file, and the store has been silent for ten seconds.",
    "Then the archiver is to end; with any other code it would call five times more, and the stop",
    "would take six times WALNUT_WAL_TIMEOUT. The file stays in pg_wal until the server runs again.",
    "",
    "`wal-fetch` answers 74 only when the archive has proved not to hold the file. PostgreSQL takes",
    "every code in 1 to 125 as that and, in archive recovery, opens the database there; so any other",
    "failure, also of the command line or the configuration, gives 200, which stops the server. A",
    "standby (`standby.signal` in the data directory) does not open but asks again, so there it",
    "gives 75.",
    "",
  ].join("\n");
}

const isCheck = process.argv.includes("--check");
for (const [name, render] of Object.entries(pages)) {
  const path = join(directory, name);
  const text = render();
  if (!isCheck) {
    writeFileSync(path, text);
  } else if (readFileSync(path, "utf8") !== text) {
    console.error(`docs/${name} is not up to date: run \`npm run docs\``);
    process.exitCode = 1;
  }
}
