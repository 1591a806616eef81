import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fc } from "../support/property.ts";
import { ServerManifestCheck } from "../../src/backup/server-manifest.ts";
import { Spool } from "../../src/backup/spool.ts";
import type { ServerManifestHash } from "../../src/connection/backup-stream.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { crc32c } from "../../src/postgres/crc32c.ts";

const directory = mkdtempSync(join(tmpdir(), "walnut-manifest-"));
after(() => rmSync(directory, { recursive: true }));

const FILES = new Map([
  ["backup_label", Buffer.from("START WAL LOCATION")],
  ["base/5/1259", Buffer.alloc(8192, 7)],
  ["pg_tblspc/16385/PG_18_202506291/5/a name", Buffer.alloc(0)],
]);

function checksum(bytes: Uint8Array, hash: ServerManifestHash): string {
  if (hash === "SHA256") return createHash("sha256").update(bytes).digest("hex");
  const text = Buffer.alloc(4);
  text.writeUInt32LE(crc32c(bytes));
  return text.toString("hex");
}

/** As the server writes it. */
function manifestOf(hash: ServerManifestHash, version: 1 | 2): string {
  const system = version === 2 ? '"System-Identifier": 7412345678901234567,\n' : "";
  const files = [...FILES].map(([path, bytes]) => {
    const name =
      path === "backup_label" && version === 2
        ? `"Encoded-Path": "${Buffer.from(path).toString("hex")}"`
        : `"Path": ${JSON.stringify(path)}`;
    return (
      `{ ${name}, "Size": ${bytes.length}, "Last-Modified": "2026-11-21 10:00:00 GMT", ` +
      `"Checksum-Algorithm": "${hash}", "Checksum": "${checksum(bytes, hash)}" }`
    );
  });
  const text =
    `{ "PostgreSQL-Backup-Manifest-Version": ${version},\n${system}"Files": [\n${files.join(",\n")}\n],\n` +
    '"WAL-Ranges": [\n{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }\n],\n';
  const sha256 = createHash("sha256").update(text).digest("hex");
  return `${text}"Manifest-Checksum": "${sha256}"}\n`;
}

async function compare(
  manifest: string | Buffer,
  files: ReadonlyMap<string, Buffer>,
  hash: ServerManifestHash = "CRC32C",
): Promise<string> {
  const check = await ServerManifestCheck.create(hash);
  for (const [path, bytes] of files) {
    await readAll(check.observed(path, bytes.length, bytesSource(bytes).open()));
  }
  using kept = new Spool(directory);
  await check.compare(bytesSource(Buffer.from(manifest)).open(), kept);
  return (await readAll(kept.read())).toString();
}

for (const hash of ["CRC32C", "SHA256"] as const) {
  for (const version of [1, 2] as const) {
    test(`a manifest of version ${version} with ${hash} is compared and kept`, async () => {
      const manifest = manifestOf(hash, version);
      assert.equal(await compare(manifest, FILES, hash), manifest);
    });
  }
}

const good = manifestOf("CRC32C", 2);
const label = Buffer.from("START WAL LOCATIOM");
const wrong: readonly (readonly [string, string, ReadonlyMap<string, Buffer>, RegExp])[] = [
  ["a bit of a file", good, new Map([...FILES, ["backup_label", label]]), /backup_label is not as/],
  ["a longer file", good, new Map([...FILES, ["base/5/1259", label]]), /1259 is not as/],
  ["a file that is missing", good, new Map([...FILES].slice(1)), /backup_label is not as/],
  ["a file too many", good, new Map([...FILES, ["x", label]]), /^.*: 4 files came, .* has 3/],
  ["its own checksum", good.replace("0/2000100", "0/2000101"), FILES, /not have its own checksum/],
  ["no end", good.slice(0, good.lastIndexOf('"Manifest')), FILES, /ends among its checksum/],
  ["half a line", good.slice(0, -9), FILES, /ends within a line/],
  ["a line of nobody's", good.replace('"Files": [', '"Filez": ['), FILES, /has the line/],
  ["a line behind its end", `${good}{}\n`, FILES, /has the line "\{\}"/],
  ["another version", good.replace('Version": 2', 'Version": 3'), FILES, /has the line/],
];

for (const [what, manifest, files, message] of wrong) {
  test(`${what} is found`, async () => {
    await assert.rejects(compare(manifest, files), { message });
  });
}

test("no changed byte of a manifest passes", async () => {
  const place = fc.record({ at: fc.nat(good.length - 1), by: fc.integer({ min: 1, max: 255 }) });
  await fc.assert(
    fc.asyncProperty(place, async ({ at, by }) => {
      const bytes = Buffer.from(good);
      bytes[at] = (bytes[at] ?? 0) ^ by;
      await assert.rejects(compare(bytes, FILES));
    }),
    { numRuns: process.env["WALNUT_LONG"] === "1" ? 3000 : 100 },
  );
});
