/** One large file into each store and out of it, beside the plain tool for that store. */
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeSas, startAzurite } from "../../test/support/azurite.ts";
import { hasFakeGcsServer, startFakeGcsServer } from "../../test/support/fake-gcs-server.ts";
import { patternBytes } from "../../test/support/bodies.ts";
import { availableS3Servers, startS3Server } from "../../test/support/s3-server.ts";
import { chownTree, serverUser } from "../../test/support/server-user.ts";
import { isSshServerAvailable, startSshServer } from "../../test/support/ssh-server.ts";
import { type Contender, compare, formatTable } from "./figures.ts";
import { measure } from "./process.ts";

const MIB = 1024 * 1024;
const KEY = "large";

type Environment = Readonly<Record<string, string>>;

interface Store extends AsyncDisposable {
  /** "S3 (versitygw)" */
  readonly name: string;
  readonly settings: Environment;
  /** Beyond it the server itself is what is measured. */
  readonly mostMiB?: number;
  /** We are measured against the first. */
  readonly plain: readonly [PlainTool, ...PlainTool[]];
}

/** A tool that needs no explanation, and its words for each way. */
interface PlainTool {
  readonly name: string;
  readonly env: Environment;
  readonly put: (file: string) => readonly string[];
  /** Of the object that walnut has stored. */
  readonly get: (file: string) => readonly string[];
}

/** rclone, told of one remote by its environment. */
function rclone(folder: string, settings: Environment): PlainTool {
  const names = Object.entries(settings).map(([name, value]) => [`RCLONE_CONFIG_X_${name}`, value]);
  // It would wait for a "100 Continue" before each part: for a second where the server says none.
  const copy = ["rclone", "copyto", "--ignore-times", "--expect-continue-timeout", "0"];
  return {
    name: "rclone",
    env: Object.fromEntries(names),
    put: (file) => [...copy, file, `x:${folder}/plain`],
    get: (file) => [...copy, `x:${folder}/${KEY}`, file],
  };
}

async function startS3(): Promise<Store> {
  const server = await startS3Server("versitygw");
  const { endpoint, bucket, accessKeyId, secretAccessKey } = server;
  return {
    name: "S3 (versitygw)",
    settings: {
      WALG_S3_PREFIX: `s3://${bucket}`,
      AWS_ENDPOINT: endpoint,
      AWS_S3_FORCE_PATH_STYLE: "true",
      AWS_ACCESS_KEY_ID: accessKeyId,
      AWS_SECRET_ACCESS_KEY: secretAccessKey,
    },
    plain: [
      rclone(bucket, {
        TYPE: "s3",
        PROVIDER: "Other",
        ENDPOINT: endpoint,
        ACCESS_KEY_ID: accessKeyId,
        SECRET_ACCESS_KEY: secretAccessKey,
        REGION: "us-east-1",
      }),
    ],
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

const CURL = ["curl", "--fail", "--silent", "--show-error"];

async function startGcs(): Promise<Store> {
  const server = await startFakeGcsServer();
  const { endpoint, bucket } = server;
  const upload = `${endpoint}/upload/storage/v1/b/${bucket}/o?uploadType=media&name=plain`;
  const object = `${endpoint}/storage/v1/b/${bucket}/o/${KEY}?alt=media`;
  return {
    name: "GCS (fake-gcs-server)",
    // It copies all that it has of an upload for each chunk.
    mostMiB: 512,
    settings: { WALG_GS_PREFIX: `gs://${bucket}`, STORAGE_EMULATOR_HOST: endpoint },
    // rclone sends chunks, as we do; curl one request, for which the length must be known.
    plain: [
      rclone(bucket, {
        TYPE: "google cloud storage",
        ENDPOINT: `${endpoint}/storage/v1/`,
        ANONYMOUS: "true",
        NO_CHECK_BUCKET: "true",
      }),
      {
        name: "curl",
        env: {},
        put: (file) => [...CURL, "-X", "POST", "-T", file, upload],
        get: (file) => [...CURL, "-o", file, object],
      },
    ],
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function startAzure(): Promise<Store> {
  const server = await startAzurite();
  const { account, accessKey, endpoint, container } = server;
  const parts = [`AccountName=${account}`, `AccountKey=${accessKey}`, `BlobEndpoint=${endpoint}`];
  const sas = makeSas(container, { expiresOn: new Date(Date.now() + 24 * 3_600_000) });
  const url = (name: string) => `${endpoint}/${container}/${name}?${sas}`;
  return {
    name: "Azure (Azurite)",
    settings: {
      WALG_AZ_PREFIX: `azure://${container}`,
      AZURE_STORAGE_CONNECTION_STRING: parts.join(";"),
    },
    plain: [
      {
        name: "curl",
        env: {},
        put: (file) => [...CURL, "-H", "x-ms-blob-type: BlockBlob", "-T", file, url("plain")],
        get: (file) => [...CURL, "-o", file, url(KEY)],
      },
    ],
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

async function startSftp(): Promise<Store> {
  const server = await startSshServer();
  const path = join(server.stores, "repository");
  mkdirSync(path);
  await chownTree(path, serverUser());
  const keyFile = join(server.directory, "ed25519");
  return {
    name: "SFTP (OpenSSH)",
    settings: {
      WALG_SSH_PREFIX: `ssh://127.0.0.1${path}`,
      SSH_PORT: `${server.port}`,
      SSH_USERNAME: server.username,
      SSH_PRIVATE_KEY_PATH: keyFile,
      WALNUT_SSH_KNOWN_HOSTS: join(server.directory, "known_hosts"),
    },
    plain: [
      rclone(path, {
        TYPE: "sftp",
        HOST: "127.0.0.1",
        PORT: `${server.port}`,
        USER: server.username,
        KEY_FILE: keyFile,
      }),
    ],
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

async function startSwift(): Promise<Store> {
  const server = await startS3Server("swift");
  const AUTH = `${server.endpoint}/auth/v1.0`;
  const [USER, password] = [server.accessKeyId, server.secretAccessKey];
  return {
    name: "Swift",
    settings: {
      WALG_SWIFT_PREFIX: `swift://${server.bucket}`,
      OS_AUTH_URL: AUTH,
      OS_USERNAME: USER,
      OS_PASSWORD: password,
    },
    plain: [rclone(server.bucket, { TYPE: "swift", USER, KEY: password, AUTH })],
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

async function startRclone(): Promise<Store> {
  const directory = mkdtempSync(join(tmpdir(), "walnut-bench-rclone-"));
  return {
    name: "rclone (a directory)",
    settings: {
      WALG_RCLONE_PREFIX: `rclone:here:${directory}`,
      RCLONE_CONF_BASE64: Buffer.from("[here]\ntype = local\n").toString("base64"),
    },
    // A stream, as ours is: of a file rclone would know the length and the sum beforehand.
    plain: [
      {
        ...rclone(directory, { TYPE: "local" }),
        put: (file) => ["sh", "-c", 'exec rclone rcat "x:$0/plain" < "$1"', directory, file],
      },
    ],
    [Symbol.asyncDispose]: async () => rmSync(directory, { recursive: true }),
  };
}

const STORES = new Map([
  ["s3", startS3],
  ["gcs", startGcs],
  ["azure", startAzure],
  ["sftp", startSftp],
  ["swift", startSwift],
  ["rclone", startRclone],
]);

/** Those that this machine has, or those that are asked for by name. */
async function storesToRun(
  names: readonly string[] | undefined,
): Promise<readonly (() => Promise<Store>)[]> {
  const missing = await missingStores();
  const wanted = names ?? [...STORES.keys()].filter((name) => !missing.includes(name));
  return wanted.map((name) => {
    const start = missing.includes(name) ? undefined : STORES.get(name);
    if (start === undefined) throw new Error(`no server for ${name}: npm run test:interop`);
    return start;
  });
}

async function missingStores(): Promise<readonly string[]> {
  const s3 = await availableS3Servers();
  return [
    ...(s3.includes("versitygw") ? [] : ["s3"]),
    ...(hasFakeGcsServer() ? [] : ["gcs"]),
    ...(isSshServerAvailable() ? [] : ["sftp"]),
    ...(s3.includes("swift") ? [] : ["swift"]),
    ...(existsSync("/usr/bin/rclone") ? [] : ["rclone"]),
  ];
}

/** Of bytes that nobody compresses. */
function writeLargeFile(path: string, sizeMiB: number): void {
  const descriptor = openSync(path, "w");
  try {
    for (let index = 0; index < sizeMiB; index++) {
      const bytes = patternBytes(MIB, index);
      if (writeSync(descriptor, bytes) !== bytes.length) throw new Error(`${path}: a short write`);
    }
  } finally {
    closeSync(descriptor);
  }
}

interface Size {
  readonly rounds: number;
  readonly sizeMiB: number;
  readonly base?: string | undefined;
  /** Of `STORES`; all that this machine has unless given. */
  readonly names?: readonly string[] | undefined;
}

/** One server at a time. What it has stored goes with it, and with that what it costs to hold. */
class Served implements AsyncDisposable {
  readonly #start: () => Promise<Store>;
  #store: Store | undefined;

  constructor(start: () => Promise<Store>) {
    this.#start = start;
  }

  get store(): Store {
    if (this.#store === undefined) throw new Error("no server was started");
    return this.#store;
  }

  async renew(): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.#store = await this.#start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store?.[Symbol.asyncDispose]();
    this.#store = undefined;
  }
}

/** Two tables for each store. Nothing is compressed or encrypted. */
export async function storeTables(
  binary: string,
  { rounds, sizeMiB, base = tmpdir(), names }: Size,
): Promise<string[]> {
  const home = mkdtempSync(join(base, "walnut-bench-stores-"));
  const tables: string[] = [];
  try {
    for (const start of await storesToRun(names)) {
      await using served = new Served(start);
      await served.renew();
      const ownMiB = Math.min(sizeMiB, served.store.mostMiB ?? sizeMiB);
      tables.push(...(await tablesOf(served, { binary, home, rounds, sizeMiB: ownMiB })));
    }
    return tables;
  } finally {
    rmSync(home, { recursive: true });
  }
}

/** Each upload has a server of its own; downloads are of the object that walnut uploaded. */
async function tablesOf(
  served: Served,
  { binary, home, rounds, sizeMiB }: Size & { readonly binary: string; readonly home: string },
): Promise<string[]> {
  const [file, copy] = [join(home, `file of ${sizeMiB} MiB`), join(home, "copy")];
  if (!existsSync(file)) writeLargeFile(file, sizeMiB);
  const { name, plain } = served.store;
  const walnut = (...words: readonly string[]): Contender["run"] => {
    const environment = { WALNUT_CACHE_DIR: join(home, "cache") };
    return () => {
      const env = { ...served.store.settings, ...environment };
      return measure([binary, "st", ...words], { cwd: home, env });
    };
  };
  /** Each server has tools of its own: they know its port. */
  const byPlain = (tool: number, words: (of: PlainTool) => readonly string[]) => () => {
    const found = served.store.plain[tool];
    if (found === undefined) throw new Error("a server without its tool");
    return measure(words(found), { cwd: home, env: found.env });
  };
  const table = async (title: string, contenders: readonly Contender[]) =>
    formatTable(`${title} of ${sizeMiB} MiB: ${name}`, await compare(contenders, rounds));

  const renew = async () => await served.renew();
  const put = walnut("put", "--no-compress", "--force", file, KEY);
  const up = await table("Upload", [
    ...plain.map((tool, index) => {
      return { name: tool.name, prepare: renew, run: byPlain(index, (own) => own.put(file)) };
    }),
    { name: "walnut st put", prepare: renew, run: put },
  ]);
  const fresh = async () => rmSync(copy, { force: true });
  // As durable as ours is.
  const synced = (words: readonly string[]) => ["sh", "-c", '"$@" && sync "$0"', copy, ...words];
  const down = await table("Download", [
    ...plain.flatMap((tool, index) => [
      { name: tool.name, prepare: fresh, run: byPlain(index, (own) => own.get(copy)) },
      {
        name: `${tool.name}, sync`,
        prepare: fresh,
        run: byPlain(index, (own) => synced(own.get(copy))),
      },
    ]),
    { name: "walnut st get", prepare: fresh, run: walnut("get", "--no-decompress", KEY, copy) },
  ]);
  return [up, down];
}
