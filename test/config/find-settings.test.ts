import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { findSettings } from "../../src/config/find-settings.ts";
import { general } from "../../src/config/general-settings.ts";
import { postgres } from "../../src/config/postgres-settings.ts";
import { storage } from "../../src/config/storage-settings.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

interface Given {
  readonly flags?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  readonly file?: Readonly<Record<string, unknown>>;
}

async function find({ flags = {}, env = {}, file }: Given) {
  using directory = scratchDirectory();
  if (file !== undefined) {
    writeFileSync(join(directory.path, ".walg.json"), JSON.stringify(file));
  }
  const found = await findSettings({
    flags: new Map(Object.entries(flags)),
    environment: env,
    homeDirectory: directory.path,
  });
  const shorten = (text: string) => text.replaceAll(directory.path, "~");
  return {
    found,
    problems: found.beside.problems.map(({ message }) => shorten(message)),
    hints: found.beside.problems.map(({ hint }) => hint),
    origin: (setting: Parameters<typeof found.origin>[0]) => {
      const origin = found.origin(setting);
      return origin === undefined
        ? undefined
        : `${origin.name} ${shorten(origin.source)} ${origin.text}`;
    },
  };
}

const precedence: readonly (readonly [string, Given, string | undefined])[] = [
  ["nothing", {}, undefined],
  ["flag", { flags: { "s3-prefix": "a" } }, "--s3-prefix the command line a"],
  ["WALNUT flag", { flags: { "walnut-s3-prefix": "a" } }, "--walnut-s3-prefix the command line a"],
  ["WAL-G's flag", { flags: { "walg-s3-prefix": "a" } }, "--walg-s3-prefix the command line a"],
  ["WAL-E's flag", { flags: { "wale-s3-prefix": "a" } }, "--wale-s3-prefix the command line a"],
  ["WALNUT_", { env: { WALNUT_S3_PREFIX: "a" } }, "WALNUT_S3_PREFIX the environment a"],
  ["WALG_", { env: { WALG_S3_PREFIX: "a" } }, "WALG_S3_PREFIX the environment a"],
  ["WALE_", { env: { WALE_S3_PREFIX: "a" } }, "WALE_S3_PREFIX the environment a"],
  ["no prefix", { env: { S3_PREFIX: "a" } }, undefined],
  ["file", { file: { WALG_S3_PREFIX: "a" } }, "WALG_S3_PREFIX ~/.walg.json a"],
  ["file in lower case", { file: { walnut_s3_prefix: "a" } }, "WALNUT_S3_PREFIX ~/.walg.json a"],
  [
    "flag before environment before file",
    {
      flags: { "s3-prefix": "a" },
      env: { WALNUT_S3_PREFIX: "b" },
      file: { WALNUT_S3_PREFIX: "c" },
    },
    "--s3-prefix the command line a",
  ],
  [
    "environment before file, whatever the prefix",
    { env: { WALE_S3_PREFIX: "b" }, file: { WALNUT_S3_PREFIX: "c" } },
    "WALE_S3_PREFIX the environment b",
  ],
  [
    "an empty variable is none",
    { env: { WALNUT_S3_PREFIX: "" }, file: { WALG_S3_PREFIX: "c" } },
    "WALG_S3_PREFIX ~/.walg.json c",
  ],
  [
    "an empty flag takes away",
    { flags: { "s3-prefix": "" }, env: { WALG_S3_PREFIX: "b" } },
    undefined,
  ],
  [
    "WALNUT_ overrides WALG_ and WALE_",
    { env: { WALE_S3_PREFIX: "c", WALG_S3_PREFIX: "b", WALNUT_S3_PREFIX: "a" } },
    "WALNUT_S3_PREFIX the environment a",
  ],
  [
    "the same value twice is no contradiction",
    { env: { WALE_S3_PREFIX: "b", WALG_S3_PREFIX: "b" } },
    "WALG_S3_PREFIX the environment b",
  ],
  [
    "line ends are cut",
    { env: { WALG_S3_PREFIX: "a \r\n\n" } },
    "WALG_S3_PREFIX the environment a ",
  ],
];

for (const [name, given, expected] of precedence) {
  test(`S3_PREFIX: ${name}`, async () => {
    const { origin, problems } = await find(given);
    assert.deepEqual(problems, []);
    assert.equal(origin(storage.s3Prefix), expected);
  });
}

const bareNames: readonly (readonly [string, Given, string | undefined])[] = [
  ["bare", { env: { AWS_REGION: "a" } }, "AWS_REGION the environment a"],
  ["WALG_", { env: { WALG_AWS_REGION: "a" } }, "WALG_AWS_REGION the environment a"],
  ["WALE_", { file: { WALE_AWS_REGION: "a" } }, "WALE_AWS_REGION ~/.walg.json a"],
  ["flag", { flags: { "aws-region": "a" } }, "--aws-region the command line a"],
  [
    "WALNUT_ before bare",
    { env: { AWS_REGION: "a", WALNUT_AWS_REGION: "b" } },
    "WALNUT_AWS_REGION the environment b",
  ],
];

for (const [name, given, expected] of bareNames) {
  test(`AWS_REGION: ${name}`, async () => {
    const { origin, problems } = await find(given);
    assert.deepEqual(problems, []);
    assert.equal(origin(storage.region), expected);
  });
}

test("AWS_ACCESS_KEY and AWS_SECRET_KEY are other names", async () => {
  const env = { AWS_ACCESS_KEY: "id", WALG_AWS_SECRET_KEY: "secret" };
  const { found, origin } = await find({ env });
  assert.equal(found.get(storage.accessKeyId), "id");
  assert.equal(origin(storage.secretAccessKey), "WALG_AWS_SECRET_KEY the environment secret");
});

test("libpq's names count from the environment and the file, without prefix only", async () => {
  const { found, problems } = await find({
    env: { PGHOST: "/run" },
    file: { PGPORT: 5433, PGPASSWORD: "geheim" },
  });
  assert.deepEqual(problems, []);
  assert.equal(found.get(postgres.host), "/run");
  assert.equal(found.get(postgres.port), 5433);
  assert.equal(found.get(postgres.password), "geheim");
  assert.equal(found.get(postgres.applicationName), "walnut");
});

const contradictions: readonly (readonly [string, Given, string])[] = [
  [
    "WALG_ and WALE_",
    { env: { WALG_S3_PREFIX: "a", WALE_S3_PREFIX: "b" } },
    "WALG_S3_PREFIX and WALE_S3_PREFIX from the environment contradict each other",
  ],
  [
    "bare and WALG_",
    { file: { AWS_REGION: "a", WALG_AWS_REGION: "b" } },
    "AWS_REGION and WALG_AWS_REGION from ~/.walg.json contradict each other",
  ],
  [
    "two names",
    { env: { AWS_ACCESS_KEY_ID: "a", AWS_ACCESS_KEY: "b" } },
    "AWS_ACCESS_KEY_ID and AWS_ACCESS_KEY from the environment contradict each other",
  ],
  [
    "two flags",
    { flags: { "s3-prefix": "a", "walg-s3-prefix": "b" } },
    "--s3-prefix and --walg-s3-prefix from the command line contradict each other",
  ],
];

for (const [name, given, message] of contradictions) {
  test(`refuses a contradiction: ${name}`, async () => {
    assert.deepEqual((await find(given)).problems, [message]);
  });
}

const unknown: readonly (readonly [Given, string, string | undefined])[] = [
  [{ env: { WALG_S3_PREFXI: "x" } }, "WALG_S3_PREFXI from the environment", "WALG_S3_PREFIX"],
  [
    { env: { WALNUT_LOG_FROMAT: "x" } },
    "WALNUT_LOG_FROMAT from the environment",
    "WALNUT_LOG_FORMAT",
  ],
  [{ env: { WALG_PGHOST: "x" } }, "WALG_PGHOST from the environment", "PGHOST"],
  [{ file: { WALE_FILE_PREFX: "x" } }, "WALE_FILE_PREFX from ~/.walg.json", "WALE_FILE_PREFIX"],
  [{ env: { WALG_WAL_TIMEOUT: "1s" } }, "WALG_WAL_TIMEOUT from the environment", undefined],
  [{ env: { WALG_FROBNICATION: "1s" } }, "WALG_FROBNICATION from the environment", undefined],
];

for (const [given, what, nearest] of unknown) {
  test(`refuses ${what}`, async () => {
    const { problems, hints } = await find(given);
    assert.deepEqual(problems, [`unknown setting ${what}`]);
    if (nearest !== undefined)
      assert.match(hints[0] ?? "", new RegExp(`Did you mean ${nearest}\\?`));
    assert.match(hints[0] ?? "", /`walnut flags` lists all\.$/);
  });
}

test("leaves the keys of others alone", async () => {
  const { problems } = await find({
    env: {
      PATH: "x",
      S3_PREFIX: "x",
      FILE_PREFIX: "x",
      OS_RELEASE: "x",
      WALRUS_KEY: "x",
      WALG_SERVICE_HOST: "10.0.0.1",
      WALG_SERVICE_PORT: "80",
      WALG_SERVICE_PORT_HTTP: "80",
      WALNUT_EXPORTER_PORT: "tcp://10.0.0.1:80",
      WALG_PORT_80_TCP: "tcp://10.0.0.1:80",
      WALG_PORT_80_TCP_ADDR: "10.0.0.1",
      WALG_NOTHING: "",
      SSH_PORT: "22/tcp",
      HTTP_EXPOSE_PPROF: "maybe",
    },
    file: { GOMAXPROCS: 2, PGBACKREST_STANZA: "main", anything: { at: "all" } },
  });
  assert.deepEqual(problems, []);
});

test("a service's variable is one, but a misspelt port is not", async () => {
  const { problems } = await find({ env: { WALG_S3_ENDPOIT_PORT: "443" } });
  assert.deepEqual(problems, ["unknown setting WALG_S3_ENDPOIT_PORT from the environment"]);
});

test("refuses a text that its type does not take, and does not show secrets", async () => {
  const { problems, hints } = await find({
    env: { WALG_UPLOAD_CONCURRENCY: "many", WALG_UPLOAD_QUEUE: "few" },
    file: { WALG_TAR_DISABLE_FSYNC: "yes", WALG_FAILOVER_STORAGES: "geheim" },
  });
  assert.deepEqual(problems, [
    'WALG_UPLOAD_CONCURRENCY = "many" from the environment is not a whole number',
    'WALG_UPLOAD_QUEUE = "few" from the environment is not a whole number',
    'WALG_TAR_DISABLE_FSYNC = "yes" from ~/.walg.json is not true or false',
    "WALG_FAILOVER_STORAGES from ~/.walg.json is not JSON",
  ]);
  assert.equal(hints[0], "It takes a whole number from 1 to 1024.");
});

test("a key where its path belongs is refused, and shown nowhere", async () => {
  const texts = [
    '{"type": "service_account", "private_key": "geheim"}',
    "-----BEGIN OPENSSH PRIVATE KEY-----\ngeheim",
    "geheim\nmehr",
    "ab".repeat(32),
    Buffer.alloc(32, 7).toString("base64"),
  ];
  for (const text of texts) {
    const { found, problems } = await find({ env: { SSH_PRIVATE_KEY_PATH: text } });
    assert.deepEqual(problems, [
      "SSH_PRIVATE_KEY_PATH from the environment holds what belongs into a file, not its path",
    ]);
    assert.deepEqual(found.beside.secrets, [text]);
  }
});

test("collects every secret, also one that is overridden or in another's place", async () => {
  const { found } = await find({
    flags: { "aws-secret-access-key": "one-1" },
    env: { AWS_SECRET_ACCESS_KEY: "two-2", SSH_PASSWORD: "three-3" },
    file: { AWS_SECRET_KEY: "four-4", PGPASSWORD: "five-5" },
  });
  const secrets = found.beside.secrets.toSorted();
  assert.deepEqual(secrets, ["five-5", "four-4", "one-1", "three-3", "two-2"]);
});

/** The names of config files in `flags` and `environment` are those in the home directory. */
async function findWithFiles(
  files: Readonly<Record<string, string>>,
  flags: Readonly<Record<string, string>>,
  environment: Readonly<Record<string, string>>,
) {
  using directory = scratchDirectory();
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory.path, name), text);
  const place = ([name, text]: readonly [string, string]) =>
    [name, /CONFIG/i.test(name) && text !== "" ? join(directory.path, text) : text] as const;
  const found = await findSettings({
    flags: new Map(Object.entries(flags).map(place)),
    environment: Object.fromEntries(Object.entries(environment).map(place)),
    homeDirectory: directory.path,
  });
  return {
    prefix: found.get(general.storagePrefix),
    problems: found.beside.problems.map(({ message }) => message.replaceAll(directory.path, "~")),
    file: found.beside.configFile?.replace(directory.path, "~"),
  };
}

const files = {
  "flag.json": '{"WALG_STORAGE_PREFIX": "flag"}',
  "walnut.env": "WALG_STORAGE_PREFIX=walnut\n",
  "walg.yaml": "WALG_STORAGE_PREFIX: walg\n",
  ".walnut.toml": 'WALG_STORAGE_PREFIX = "home"\n',
  ".walg.json": '{"WALG_STORAGE_PREFIX": "old home"}',
};

test("takes the config file of the flag, then of the variables, then of the home", async () => {
  const cases: readonly (readonly [string, Record<string, string>, string | undefined])[] = [
    ["flag.json", { WALNUT_CONFIG: "walnut.env", WALG_CONFIG_PATH: "walg.yaml" }, "flag"],
    ["", { WALNUT_CONFIG: "walnut.env" }, undefined],
    ["none", { WALNUT_CONFIG: "walnut.env", WALG_CONFIG_PATH: "walg.yaml" }, "walnut"],
    ["none", { WALG_CONFIG_PATH: "walg.yaml" }, "walg"],
    ["none", {}, "home"],
  ];
  for (const [flag, environment, prefix] of cases) {
    const found = await findWithFiles(files, flag === "none" ? {} : { config: flag }, environment);
    assert.equal(found.prefix, prefix);
  }
});

test("a named config file that is missing or broken is a problem; the rest is read", async () => {
  const environment = { WALG_STORAGE_PREFIX: "x" };
  assert.deepEqual(await findWithFiles({}, { config: "absent.json" }, environment), {
    prefix: "x",
    problems: ["config file ~/absent.json does not exist"],
    file: undefined,
  });
  const { problems } = await findWithFiles({ ".walg.json": "{" }, {}, {});
  assert.deepEqual(problems, [
    "config file ~/.walg.json can't be read: line 1, column 2: expected a key in double quotes",
  ]);
});

test("works without a home directory", async () => {
  const found = await findSettings({ flags: new Map(), environment: {} });
  assert.deepEqual(found.beside.problems, []);
});

test("hands on the SDK's variables that stand in the file only", async () => {
  const { found } = await find({
    env: { AWS_CONFIG_FILE: "/env", AWS_SHARED_CREDENTIALS_FILE: "" },
    file: {
      AWS_CONFIG_FILE: "/file",
      AWS_SHARED_CREDENTIALS_FILE: "/keys",
      AWS_REGION: "x",
      OTHER: "y",
    },
  });
  assert.deepEqual([...found.beside.sdkVariables], [["AWS_SHARED_CREDENTIALS_FILE", "/keys"]]);
});
