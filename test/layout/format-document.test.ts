import assert from "node:assert/strict";
import { REMOVALS_FOLDER } from "../../src/retention/removal-note.ts";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PROBE_FOLDER, CREATE_ONLY_KEY } from "../../src/layout/backup-group.ts";
import { contentSumKey, formatContentSum, parseContentSum } from "../../src/layout/content-sum.ts";
import { formatIdentity, parseIdentity } from "../../src/layout/identity.ts";
import { formatJson, parseJson } from "../../src/layout/json.ts";
import { isJsonObject, objectMember } from "../../src/layout/json-value.ts";
import {
  CATCH_UP_FOLDER,
  changeMapKey,
  commitIndexKey,
  controlKey,
  copyName,
  filesMetadataKey,
  gapKey,
  identityKey,
  labelKey,
  manifestKey,
  mergeClaimKey,
  metadataKey,
  partKey,
  partRecordKey,
  quarantineKey,
  runClaimKey,
  sentinelKey,
  serverManifestKey,
  tarFolder,
  verifyMemoryKey,
  walKey,
  writerKey,
} from "../../src/layout/keys.ts";
import { formatManifestLine, parseManifest } from "../../src/layout/manifest.ts";
import { formatMetadata, parseMetadata } from "../../src/layout/metadata.ts";
import { formatSentinel, type OwnRecord, parseSentinel } from "../../src/layout/sentinel.ts";
import { ENCRYPTION_MARK_KEY, REKEY_FOLDER } from "../../src/layout/secrecy.ts";
import { deltaName } from "../../src/layout/wal-delta.ts";
import { formatWriterClaim, parseWriterClaim } from "../../src/layout/writer-claim.ts";

const text = readFileSync(join(import.meta.dirname, "..", "..", "docs", "FORMAT.md"), "utf8");

/** Content of the fenced block with this name. */
function block(name: string): string {
  const match = new RegExp(`\`\`\`\\w+ ${name}\n([^]*?)\n\`\`\``).exec(text);
  if (match?.[1] === undefined) throw new Error(`docs/FORMAT.md has no example ${name}`);
  return match[1];
}

/** The same on one line; blanks are for the reader. */
function example(name: string): string {
  return formatJson(parseJson(block(name)), { escape: "go" });
}

test("the keys in docs/FORMAT.md are those of the code", () => {
  const written = [...text.matchAll(/^\| `([^`]+)` +\|.*\| (?:WAL-G|ours) +\|$/gm)].map(
    ([, key]) => key,
  );
  assert.deepEqual(written, [
    `${walKey("<W>", "")}[.ext]`,
    `${walKey("<8 hex digits>.history", "")}[.ext]`,
    `${walKey("<W>.partial", "")}[.ext]`,
    `${walKey("<W>.<8 hex digits>.backup", "")}[.ext]`,
    `${walKey(deltaName("<W>"), "")}[.ext]`,
    sentinelKey("<B>"),
    metadataKey("<B>"),
    filesMetadataKey("<B>"),
    `${partKey("<B>", 1, "")}[.ext]`,
    `${tarFolder("<B>")}${copyName(0, "")}[.ext]`,
    `${controlKey("<B>", "")}[.ext]`,
    `${labelKey("<B>", "")}[.ext]`,
    manifestKey("<B>"),
    serverManifestKey("<B>"),
    mergeClaimKey("<B>", 0, "<id>").replace("-0-", "-<ms>-"),
    runClaimKey("<B>", 0, "<id>").replace("-0-", "-<ms>-"),
    partRecordKey("<B>", "<part>"),
    CATCH_UP_FOLDER,
    ENCRYPTION_MARK_KEY,
    `${REKEY_FOLDER}<key>`,
    identityKey,
    writerKey(0).replace("00000000", "<8 hex digits>"),
    gapKey("<W>"),
    `${changeMapKey("<W>", "")}[.ext]`,
    `${quarantineKey("<name>", "<16 hex digits>")}[.ext]`,
    `${quarantineKey("<name>", "<16 hex digits>")}.json`,
    commitIndexKey("<W>"),
    contentSumKey("<name>"),
    verifyMemoryKey,
    `${PROBE_FOLDER}<32 hex digits>`,
    CREATE_ONLY_KEY,
    `${REMOVALS_FOLDER}<time>-<id>.json`,
  ]);
});

test("the writer's claim in docs/FORMAT.md is what we write", () => {
  const claim = formatJson(parseJson(block("writer")));
  assert.equal(formatWriterClaim(parseWriterClaim(claim)), claim);
});

test("the sentinel in docs/FORMAT.md is what we write", () => {
  assert.equal(formatSentinel(parseSentinel("base", example("sentinel"))), example("sentinel"));
});

test("the table of the sentinel in docs/FORMAT.md names every member in its order", () => {
  const written = formatSentinel({
    startLsn: 1n,
    base: { startLsn: 1n, name: "b", fullName: "b", stepCount: 1 },
    finishLsn: 1n,
    systemId: 1n,
    dataCatalogBytes: 1,
    spec: { basePrefix: "/", tablespaces: [] },
    userData: null,
    isFilesMetadataDisabled: true,
    baseCheckpointNumber: 1,
    isPermanent: true,
    own: { isPagesVerified: true },
  });
  const object = parseJson(written);
  assert.ok(isJsonObject(object));
  const section = text.slice(text.indexOf("## Sentinel"), text.indexOf("## metadata.json"));
  const rows = [...section.matchAll(/^\| `(\w+)` +\|/gm)].map(([, member]) => member);
  assert.deepEqual(rows, [...object.keys()]);
});

test("docs/FORMAT.md names every member of ours in the sentinel", () => {
  const sentinel = formatSentinel({
    ...parseSentinel("base", example("sentinel")),
    own: {
      changeSource: "wal",
      isPagesVerified: true,
      corruptPages: 1,
      isRemote: true,
      filesMetadataHash: "0123456789abcdef",
      manifestHash: "0123456789abcdef",
      mergedFrom: "base",
      isResumed: true,
      sum: "0123456789abcdef",
    } satisfies Required<OwnRecord>,
  });
  const own = objectMember(parseJson(sentinel), "Walnut");
  assert.ok(own !== undefined && isJsonObject(own));
  const named = /^`Walnut` is ours[^]*?\n\n/m.exec(text)?.[0] ?? "";
  const names = [...own.keys()];
  assert.deepEqual(
    names.filter((name) => !named.includes(`\`${name}\`, `)),
    [],
  );
  assert.ok(names.length > 5);
});

test("the other examples in docs/FORMAT.md are what we write", async () => {
  assert.equal(formatMetadata(parseMetadata("base", example("metadata"))), example("metadata"));
  assert.equal(formatContentSum(parseContentSum(`${block("sum")}\n`)), `${block("sum")}\n`);
  assert.equal(formatIdentity(parseIdentity(example("identity"))), example("identity"));
  const bytes = (async function* () {
    yield Buffer.from(`${block("manifest")}\n`);
  })();
  const lines = await Array.fromAsync(parseManifest(bytes));
  assert.equal(lines.map(formatManifestLine).join(""), `${block("manifest")}\n`);
});
