import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { findHomeConfigFile, readConfigFile } from "../../src/config/config-file.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const expected = {
  WALG_S3_PREFIX: "s3://bucket/folder",
  WALG_UPLOAD_CONCURRENCY: "4",
  WALG_TAR_DISABLE_FSYNC: "true",
  EXACT: "12345678901234567890",
};

const sources: Readonly<Record<string, string>> = {
  "a.json": `{"WALG_S3_PREFIX": "s3://bucket/folder", "walg_upload_concurrency": 4,
    "WALG_TAR_DISABLE_FSYNC": true, "exact": 12345678901234567890, "none": null}`,
  "a.yaml": `WALG_S3_PREFIX: s3://bucket/folder # comment
walg_upload_concurrency: 4
WALG_TAR_DISABLE_FSYNC: true
exact: 12345678901234567890
none:
`,
  "a.yml": `{WALG_S3_PREFIX: "s3://bucket/folder", walg_upload_concurrency: 3,
    walg_upload_concurrency: 4, WALG_TAR_DISABLE_FSYNC: true, exact: 12345678901234567890}`,
  "a.toml": `WALG_S3_PREFIX = "s3://bucket/folder"
walg_upload_concurrency = 4
WALG_TAR_DISABLE_FSYNC = true
exact = "12345678901234567890"
`,
  "a.env": `export WALG_S3_PREFIX=s3://bucket/folder
walg_upload_concurrency=4
WALG_TAR_DISABLE_FSYNC=true
EXACT="12345678901234567890"
`,
  "a.DOTENV": `WALG_S3_PREFIX: s3://bucket/folder
WALG_UPLOAD_CONCURRENCY: 4
WALG_TAR_DISABLE_FSYNC: true
EXACT: '12345678901234567890'
`,
};

for (const [name, source] of Object.entries(sources)) {
  test(`reads ${name}`, async () => {
    using directory = scratchDirectory();
    const path = join(directory.path, name);
    writeFileSync(path, source);
    const file = await readConfigFile(path);
    assert.equal(file.path, path);
    assert.deepEqual(Object.fromEntries(file.values), expected);
  });
}

const nested: Readonly<Record<string, string>> = {
  "a.json": '{"WALG_FAILOVER_STORAGES": {"b": {"AWS_REGION": "x", "n": [1, null]}}}',
  "a.yaml": "WALG_FAILOVER_STORAGES:\n  b:\n    AWS_REGION: x\n    n: [1, null]\n",
  "a.toml": '[WALG_FAILOVER_STORAGES.b]\nAWS_REGION = "x"\nn = [1]\n',
};

for (const [name, source] of Object.entries(nested)) {
  test(`keeps what is nested in ${name} in the form of JSON`, async () => {
    using directory = scratchDirectory();
    const path = join(directory.path, name);
    writeFileSync(path, source);
    const text = (await readConfigFile(path)).values.get("WALG_FAILOVER_STORAGES") ?? "";
    const n = name === "a.toml" ? [1] : [1, null];
    assert.deepEqual(JSON.parse(text), { b: { AWS_REGION: "x", n } });
  });
}

test("keeps numbers and dates in YAML and TOML the way they were written", async () => {
  using directory = scratchDirectory();
  const yaml = join(directory.path, "a.yaml");
  writeFileSync(yaml, "a: 1e3\nb: 007\nc: 1.50\nd: 0x10\ne: &x text\nf: *x\ng: yes\nh: ~\n");
  assert.deepEqual(Object.fromEntries((await readConfigFile(yaml)).values), {
    A: "1e3",
    B: "007",
    C: "1.50",
    D: "0x10",
    E: "text",
    F: "text",
    G: "yes",
  });
  const toml = join(directory.path, "a.toml");
  writeFileSync(toml, "a = 9007199254740993\nb = 1.5\nc = 2026-11-21T00:00:00Z\n");
  assert.deepEqual(Object.fromEntries((await readConfigFile(toml)).values), {
    A: "9007199254740993",
    B: "1.5",
    C: "2026-11-21T00:00:00.000Z",
  });
});

test("an empty YAML file holds nothing", async () => {
  using directory = scratchDirectory();
  const path = join(directory.path, "a.yaml");
  writeFileSync(path, "# nothing\n");
  assert.equal((await readConfigFile(path)).values.size, 0);
});

const unreadable: readonly (readonly [string, string, RegExp])[] = [
  ["a.json", '{\n  "A": 1,\n}', /a\.json can't be read: line 3, column 1: expected a key/],
  ["a.yaml", "A: 1\nB: [1\n", /a\.yaml can't be read: .*line [23]/],
  ["a.yaml", "- A\n", /a\.yaml can't be read: line 1: expected keys and values/],
  ["a.toml", "A = 1\nB = \n", /a\.toml can't be read: line 2, column \d+: /],
  ["a.toml", "A = 1\nA = 2\n", /a\.toml can't be read: line 2, column \d+: /],
  ["a.env", "A=1\nB\n", /a\.env can't be read: line 2: expected KEY=VALUE/],
  ["a.conf", "A=1\n", /a\.conf has no known format/],
  ["walnut", "A=1\n", /walnut has no known format/],
  ["a.json", `{"a": "${"x".repeat(5 * 1024 * 1024)}"}`, /a\.json is longer than 4194304 bytes/],
];

for (const [name, source, message] of unreadable) {
  test(`refuses ${name}: ${JSON.stringify(source.slice(0, 20))}`, async () => {
    using directory = scratchDirectory();
    const path = join(directory.path, name);
    writeFileSync(path, source);
    await assert.rejects(readConfigFile(path), { code: "config", message });
  });
}

test("refuses a file that is not there, and a directory", async () => {
  using directory = scratchDirectory();
  const path = join(directory.path, "a.json");
  await assert.rejects(readConfigFile(path), {
    code: "config",
    message: `config file ${path} does not exist`,
    hint: /--config or WALNUT_CONFIG/,
  });
  mkdirSync(path);
  await assert.rejects(readConfigFile(path), {
    code: "config",
    message: /EISDIR$/,
    hint: /directory/,
  });
});

test("finds the first file of the home directory", async () => {
  using home = scratchDirectory();
  const find = () => findHomeConfigFile(home.path);
  assert.equal(await find(), undefined);
  mkdirSync(join(home.path, ".walnut.json"));
  writeFileSync(join(home.path, ".walg.ini"), "");
  assert.equal(await find(), undefined);
  for (const name of [".walg.env", ".walg.yaml", ".walg.json", ".walnut.dotenv", ".walnut.toml"]) {
    writeFileSync(join(home.path, name), "");
    assert.equal(await find(), join(home.path, name));
  }
  assert.equal(await findHomeConfigFile(join(home.path, "no", "such")), undefined);
});
