import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  formatManifestLine,
  type ManifestEntry,
  type ManifestHeader,
  type ManifestLine,
  parseManifest,
} from "../../src/layout/manifest.ts";

const header: ManifestHeader = {
  kind: "header",
  backup: "base_000000010000000000000003",
  systemId: 7710483330612974385n,
  hash: "xxh64",
  startLsn: 18446744073709551615n,
};
const entries: ManifestEntry[] = [
  {
    kind: "part",
    name: "part_001.tar.zst",
    sizeBytes: 1000,
    plainBytes: 20480,
    xxh64: "00ff00ff00ff00ff",
  },
  {
    kind: "file",
    name: "/base/5/1259",
    sizeBytes: 8192,
    mode: 0o600,
    mtimeNs: 1787335211482915337n,
    hash: "0123456789abcdef",
    part: "part_001.tar.zst",
    offsetBytes: 512,
  },
  { kind: "directory", name: "/base", mode: 0o700 },
  { kind: "link", name: "/postgresql.conf", target: "/etc/größe.conf" },
];
const lines = [
  '{"walnut":1,"backup":"base_000000010000000000000003","system_identifier":7710483330612974385,' +
    '"hash":"xxh64","start_lsn":18446744073709551615}',
  '{"part":"part_001.tar.zst","size":1000,"plain":20480,"xxh64":"00ff00ff00ff00ff"}',
  '{"file":"/base/5/1259","size":8192,"mode":384,"mtime":"1787335211482915337",' +
    '"hash":"0123456789abcdef","part":"part_001.tar.zst","at":512}',
  '{"dir":"/base","mode":448}',
  '{"link":"/postgresql.conf","to":"/etc/größe.conf"}',
  '{"end":true,"files":1,"parts":1,"bytes":8192}',
] as const;
const [headerLine, partLine, fileLine, directoryLine, linkLine, endLine] = lines;
const all: ManifestLine[] = [
  header,
  ...entries,
  { kind: "end", fileCount: 1, partCount: 1, sizeBytes: 8192 },
];

async function parse(text: string | Uint8Array, size = 11): Promise<ManifestLine[]> {
  const bytes = Buffer.from(text);
  const pieces = (async function* () {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
  })();
  return await Array.fromAsync(parseManifest(pieces));
}

test("lines are written as docs/FORMAT.md says", () => {
  assert.equal(all.map(formatManifestLine).join(""), `${lines.join("\n")}\n`);
});

test("lines are read back, in any order between header and end", async () => {
  assert.deepEqual(await parse(`${lines.join("\n")}\n`), all);
  const turned = [headerLine, linkLine, directoryLine, fileLine, partLine, endLine];
  assert.deepEqual(await parse(`${turned.join("\n")}\n`), [
    header,
    ...entries.toReversed(),
    all.at(-1),
  ]);
});

test("every manifest is read back", async () => {
  const text = fc.string({ unit: "grapheme", minLength: 1 }).filter((name) => name.isWellFormed());
  const mode = fc.integer({ min: 0, max: 0o7777 });
  const hex = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
  const hash = hex.map((value) => value.toString(16).padStart(16, "0"));
  const count = fc.nat({ max: 2 ** 40 });
  const entry: fc.Arbitrary<ManifestEntry> = fc.oneof(
    fc.record({
      kind: fc.constant("file" as const),
      name: text,
      sizeBytes: count,
      mode,
      mtimeNs: fc.bigInt({ min: -(10n ** 18n), max: 4n * 10n ** 18n }),
      hash,
      part: text,
      offsetBytes: count,
    }),
    fc.record({
      kind: fc.constant("part" as const),
      name: text,
      sizeBytes: count,
      plainBytes: count,
      xxh64: hash,
    }),
    fc.record({ kind: fc.constant("directory" as const), name: text, mode }),
    fc.record({ kind: fc.constant("link" as const), name: text, target: text }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(entry), fc.integer({ min: 1, max: 500 }), async (body, size) => {
      const files = body.filter((line) => line.kind === "file");
      const end = {
        kind: "end" as const,
        fileCount: files.length,
        partCount: body.filter((line) => line.kind === "part").length,
        sizeBytes: files.reduce((sum, file) => sum + file.sizeBytes, 0),
      };
      const whole = [header, ...body, end];
      const bytes = whole.map(formatManifestLine).join("");
      assert.deepEqual(
        await parse(bytes, size),
        whole.map((line) => ({ ...line })),
      );
    }),
  );
});

const sha256Header = headerLine.replace("xxh64", "sha256");
const wrong: [what: string, text: readonly string[], message: RegExp][] = [
  ["nothing", [], /ends after line 0 without its end/],
  ["no end", [headerLine, fileLine], /ends after line 2 without its end/],
  ["text behind the end", [...lines, fileLine], /line 7 stands behind the end/],
  ["an empty line", [headerLine, "", endLine], /line 2 is no JSON/],
  ["no JSON", [headerLine, "{"], /line 2 is no JSON: \{/],
  ["no object", [headerLine, "7"], /line 2 is not a JSON object: 7/],
  ["an array", [headerLine, "[]"], /line 2 is of no known kind/],
  ["no header", [fileLine], /line 1 has no walnut/],
  ["a header twice", [headerLine, headerLine], /line 2 is of no known kind/],
  ["another version", [headerLine.replace(":1,", ":2,")], /has version 2, we read 1/],
  ["a bad backup", [headerLine.replace("base_0", "base_x")], /names no backup: base_x/],
  ["another hash", [headerLine.replace("xxh64", "md5")], /unknown hash md5/],
  ["a large id", [headerLine.replace("7710483330612974385", "7".repeat(30))], /system_identifier/],
  ["a missing id", [headerLine.replace("system_id", "xystem_id")], /has no system_identifier/],
  ["a missing LSN", [headerLine.replace("start_lsn", "lsn")], /has no start_lsn/],
  ["an unknown kind", [headerLine, '{"device":"/x"}'], /line 2 is of no known kind/],
  ["a false end", [headerLine, endLine.replace("true", "false")], /of no known kind/],
  ["an empty name", [headerLine, fileLine.replace("/base/5/1259", "")], /no text in file: ""/],
  ["a name that is a number", [headerLine, '{"dir":1,"mode":448}'], /no text in dir: 1/],
  ["a missing size", [headerLine, fileLine.replace("size", "sise")], /no count in size/],
  ["a negative size", [headerLine, fileLine.replace("8192", "-1")], /no count in size: -1/],
  ["half a byte", [headerLine, fileLine.replace("8192", "0.5")], /no count in size: 0.5/],
  ["a huge size", [headerLine, fileLine.replace("8192", "1e300")], /no count in size: 1e\+300/],
  ["a file type in the mode", [headerLine, fileLine.replace("384", "33152")], /no permission bits/],
  ["a time with a point", [headerLine, fileLine.replace("1787335211", "1.")], /no nanoseconds/],
  ["a time with zeros in front", [headerLine, fileLine.replace("1787", "0787")], /as we write it/],
  ["a short hash", [headerLine, fileLine.replace("0123", "")], /no xxh64 in hash/],
  ["upper case in the hash", [headerLine, fileLine.replace("abc", "ABC")], /no xxh64 in hash/],
  ["the other hash", [sha256Header, fileLine], /no sha256 in hash/],
  ["a part without hash", [headerLine, partLine.replace('"xxh64"', '"x"')], /no text in xxh64/],
  ["a link to nothing", [headerLine, '{"link":"/a","to":""}'], /no text in to/],
  ["a member too many", [headerLine, '{"dir":"/a","mode":1,"x":1}'], /not written as we write it/],
  [
    "a member twice",
    [headerLine, '{"dir":"/b","dir":"/a","mode":1}'],
    /not written as we write it/,
  ],
  ["blanks", [headerLine, '{"dir": "/a","mode":1}'], /not written as we write it/],
  ["a count of files too many", [...lines.slice(0, 5), endLine.replace("1,", "2,")], /fileCount 2/],
  ["a part less", [headerLine, fileLine, endLine], /promises partCount 1 but holds 0/],
  ["other bytes", [...lines.slice(0, 5), endLine.replace("8192", "8191")], /sizeBytes 8191/],
];

for (const [what, text, message] of wrong) {
  test(`refuses ${what}`, async () => {
    await assert.rejects(parse(text.map((line) => `${line}\n`).join("")), (error: unknown) => {
      assert.ok(error instanceof Error);
      assert.match(error.name, /^(FormatError|TruncatedError)$/);
      assert.match(error.message, message);
      return true;
    });
  });
}

test("no cut-off manifest is read", async () => {
  const bytes = Buffer.from(`${lines.join("\n")}\n`);
  for (let length = 0; length < bytes.length; length += 1) {
    await assert.rejects(parse(bytes.subarray(0, length), 4096), { name: /Format|Truncated/ });
  }
});

test("no changed bit of a manifest gives the same lines", async () => {
  const bytes = Buffer.from(`${lines.join("\n")}\n`);
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const changed = Buffer.from(bytes);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const read = await parse(changed, 4096).catch(() => undefined);
    assert.notDeepEqual(read, all, `bit ${bit}`);
  }
});

test("a line without end is refused before it fills the memory", async () => {
  await assert.rejects(parse(`${headerLine}\n{"dir":"${"x".repeat(200_000)}`, 65536), {
    name: "FormatError",
    message: "manifest has a line of more than 65536 bytes",
  });
});

test("bytes that are not UTF-8 are refused", async () => {
  const bytes = Buffer.concat([Buffer.from(`${headerLine}\n{"dir":"`), Buffer.from([0xff])]);
  await assert.rejects(parse(bytes), { name: "FormatError", message: "manifest is not UTF-8" });
});
