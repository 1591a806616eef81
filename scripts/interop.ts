/**
 * `npm run test:interop`: builds servers from the Go module registry into .cache/bin, holds S3's and
 * GCS's stores to their contract on each server that this machine has, archives, backs up and
 * restores there, and writes the table of docs/storage.md. Without Go it says what was left out.
 * Words after `--` are names of servers: only those are tried, and only their rows written.
 */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const root = dirname(import.meta.dirname);
const binaries = join(root, ".cache", "bin");

interface Server {
  readonly name: string;
  /** How its contract suite and its round trip begin their titles. */
  readonly contract: string;
  readonly roundTrip: string;
  /** What Go installs; absent where scripts/test-servers.sh does. */
  readonly module?: { readonly path: string; readonly version: string };
  readonly version: string;
  /** In what it differs from what the contract asks. */
  readonly quirks: string;
}

const goServer = (name: string, path: string, version: string, quirks: string): Server => ({
  name,
  contract: `s3 on ${name}:`,
  roundTrip: `S3 on ${name}`,
  module: { path, version },
  version,
  quirks,
});

const SERVERS: readonly Server[] = [
  goServer("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0", "none found"),
  goServer(
    "minio",
    "github.com/minio/minio",
    "v0.0.0-20260212201848-7aac2a2c5b7c",
    'lists of prefixes "." and ".." are errors',
  ),
  {
    ...goServer(
      "fake-gcs-server",
      "github.com/fsouza/fake-gcs-server",
      "v1.52.2",
      "lists have one page; ignores create-only for resumable uploads: a look, then a write",
    ),
    contract: "gcs on fake-gcs-server:",
    roundTrip: "GCS on fake-gcs-server",
  },
  goServer(
    "rclone",
    "github.com/rclone/rclone",
    "v1.75.1",
    "`serve s3`: ignores create-only: a look, then a write; a reader may get a mixture while an " +
      "object is replaced; lists know no start",
  ),
  {
    name: "swift",
    contract: "s3 on swift:",
    roundTrip: "S3 on swift",
    version: "Debian's",
    quirks: "refuses If-None-Match: a look, then a write; batches need Content-MD5",
  },
  {
    name: "moto",
    contract: "s3 on moto:",
    roundTrip: "S3 on moto",
    version: "of scripts/moto-requirements.txt",
    quirks: "checks no sums and no signatures",
  },
];

interface Ended {
  readonly code: number | null;
  readonly output: string;
}

function run(
  command: string,
  words: readonly string[],
  { env = {}, isShown = false }: { env?: Record<string, string>; isShown?: boolean } = {},
): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(command, words, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        output += chunk.toString();
        if (isShown) process.stdout.write(chunk);
      });
    }
    child.on("error", (error) => resolve({ code: null, output: error.message }));
    child.on("close", (code) => resolve({ code, output }));
  });
}

/** Undefined, or why it is not there. */
async function build({ name, module }: Server): Promise<string | undefined> {
  if (module === undefined) return undefined;
  const { path, version } = module;
  const built = await run("go", ["version", "-m", join(binaries, name)]);
  const isBuilt =
    built.code === 0 &&
    built.output.split("\n").some((line) => {
      const [kind, , found] = line.trim().split(/\s+/);
      return kind === "mod" && found === version;
    });
  if (isBuilt) return undefined;
  console.log(`building ${name} ${version}: some minutes, once`);
  mkdirSync(binaries, { recursive: true });
  const { code, output } = await run("go", ["install", `${path}@${version}`], {
    env: { GOBIN: binaries },
  });
  if (code === 0) return undefined;
  return `go install failed: ${output.trim().split("\n").at(-1) ?? ""}`;
}

interface Counted {
  readonly passed: number;
  readonly failed: number;
}

/** What JUnit's report says of the tests whose titles begin so. */
function count(report: string, title: string): Counted {
  const cases = report.matchAll(/<testcase name="([^"]*)"[^>]*?(\/>|>([\s\S]*?)<\/testcase>)/g);
  let passed = 0;
  let failed = 0;
  for (const [, name = "", , body = ""] of cases) {
    if (!name.includes(title)) continue;
    if (body.includes("<failure")) failed += 1;
    else passed += 1;
  }
  return { passed, failed };
}

function cell({ passed, failed }: Counted): string {
  if (passed + failed === 0) return "not run";
  return failed === 0 ? `${passed} passed` : `**${failed} of ${passed + failed} failed**`;
}

const BEGIN = "<!-- written by npm run test:interop -->";
const END = "<!-- end -->";

/** Writes the rows of servers that were tried, and leaves the others as they are. */
function writeTable(tried: ReadonlyMap<string, string>): void {
  const path = join(root, "docs", "storage.md");
  const text = readFileSync(path, "utf8");
  const [start, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (start < 0 || end < start) throw new Error(`${path} has no place for the table`);
  const before = text.slice(start, end).split("\n");
  const rows = SERVERS.map(
    ({ name }) => tried.get(name) ?? before.find((line) => line.startsWith(`| ${name} |`)) ?? "",
  );
  const head =
    "| server | version | contract | archive, back up, restore | found |\n| --- | --- | --- | --- | --- |";
  const table = `${BEGIN}\n\n${head}\n${rows.filter((row) => row !== "").join("\n")}\n\n`;
  writeFileSync(path, text.slice(0, start) + table + text.slice(end));
}

async function test(servers: readonly Server[]): Promise<number> {
  const scratch = mkdtempSync(join(tmpdir(), "walnut-interop-"));
  try {
    const suites = [
      "./test/storage/s3-contract.test.ts",
      "./test/storage/gcs-contract.test.ts",
      "./test/e2e/cloud-stores.test.ts",
    ];
    const reportFile = join(scratch, "report.xml");
    const reporter = ["--reporter=junit", `--reporter-outfile=${reportFile}`];
    const titles = servers.flatMap(({ contract, roundTrip }) => [contract, `${roundTrip}$`]);
    const filter = `--test-name-pattern=${titles.join("|")}`;
    const words = ["test", "--timeout=120000", filter, ...reporter, ...suites];
    const env = { WALNUT_INTEROP: "1", WALNUT_LEFT_OUT: join(scratch, "left-out") };
    const { code } = await run(process.execPath, words, { env, isShown: true });
    const report = readFileSync(reportFile, "utf8");
    const rows = new Map<string, string>();
    for (const { name, version, contract, roundTrip, quirks } of servers) {
      const cells = [contract, roundTrip].map((title) => cell(count(report, title)));
      rows.set(name, `| ${[name, version, ...cells, quirks].join(" | ")} |`);
    }
    writeTable(rows);
    console.log([...rows.values()].join("\n"));
    return code ?? 1;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

const names = process.argv.slice(2);
const unknown = names.filter((one) => SERVERS.every(({ name }) => name !== one));
if (unknown.length > 0) throw new Error(`no server is called ${unknown.join(", ")}`);
const wanted = SERVERS.filter(({ name }) => names.length === 0 || names.includes(name));
const go = await run("go", ["version"]);
const leftOut = new Map<string, string>();
for (const server of wanted) {
  const isWithoutGo = server.module !== undefined && go.code !== 0;
  const reason = isWithoutGo ? "there is no Go toolchain" : await build(server);
  if (reason !== undefined) leftOut.set(server.name, reason);
}
// Those of scripts/test-servers.sh alone are part of `npm test`.
const tried = wanted.filter(({ name }) => !leftOut.has(name));
const isNothingLeft = names.length === 0 && tried.every(({ module }) => module === undefined);
if (!isNothingLeft && tried.length > 0) process.exitCode = await test(tried);
for (const [name, reason] of leftOut) console.log(`left out: ${name}: ${reason}`);
if (isNothingLeft) console.log("no server of the Go module registry was tried");
