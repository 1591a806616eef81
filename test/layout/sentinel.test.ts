import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { createHasher } from "../../src/io/hash.ts";
import { formatJson, parseJson } from "../../src/layout/json.ts";
import { formatMetadata, parseMetadata } from "../../src/layout/metadata.ts";
import {
  formatSentinel,
  parseSentinel,
  type Sentinel,
  sumSentinel,
} from "../../src/layout/sentinel.ts";
import { parseTablespaceSpec } from "../../src/layout/tablespace-spec.ts";
import { flipBit } from "../archive/workbench.ts";

const backup = "base_000000010000000000000005";

/** Written by WAL-G 3.0.9 from a server 15. */
const full =
  '{"LSN":50331688,"PgVersion":150020,"FinishLSN":50331904,"SystemIdentifier":7710483330612974385,' +
  '"UncompressedSize":6920907,"CompressedSize":650396,"DataCatalogSize":7015085,"ChkpNum":null,' +
  '"Version":2,"StartTime":"2026-11-21T04:53:18.545554Z","FinishTime":"2026-11-21T04:53:19.70958Z",' +
  '"DateFmt":"%Y-%m-%dT%H:%M:%S.%fZ","Hostname":"pg1",' +
  '"DataDir":"/var/lib/postgresql/walg/brotli-full/data","IsPermanent":false}';
const increment =
  '{"LSN":83886120,"DeltaLSN":50331688,"DeltaFrom":"base_000000010000000000000003",' +
  '"DeltaFullName":"base_000000010000000000000003","DeltaCount":1,"PgVersion":150020,' +
  '"FinishLSN":83886336,"SystemIdentifier":7710483310726148319,"UncompressedSize":246387,' +
  '"CompressedSize":48530,"DataCatalogSize":7047843,"ChkpNum":null,"Version":2,' +
  '"StartTime":"2026-11-21T04:53:16.279863Z","FinishTime":"2026-11-21T04:53:17.561289Z",' +
  '"DateFmt":"%Y-%m-%dT%H:%M:%S.%fZ","Hostname":"pg1",' +
  '"DataDir":"/var/lib/postgresql/walg/lz4-chain/data","IsPermanent":false}';
const metadata =
  '{"start_time":"2026-11-21T04:53:18.545554Z","finish_time":"2026-11-21T04:53:19.70958Z",' +
  '"date_fmt":"%Y-%m-%dT%H:%M:%S.%fZ","hostname":"pg1",' +
  '"data_dir":"/var/lib/postgresql/walg/brotli-full/data","pg_version":150020,' +
  '"start_lsn":50331688,"finish_lsn":50331904,"is_permanent":false,' +
  '"system_identifier":7710483330612974385,"uncompressed_size":6920907,"compressed_size":650396}';

for (const [what, text] of [
  ["a full backup", full],
  ["an increment", increment],
] as const) {
  test(`the sentinel that WAL-G wrote for ${what} is written again byte by byte`, () => {
    assert.equal(formatSentinel(parseSentinel(backup, text)), text);
  });
}

test("the sum of a sentinel tells of every bit that changed in it", async () => {
  const hasher = await createHasher("xxh64");
  const summed = (sentinel: Sentinel) => sumSentinel(sentinel, (bytes) => hasher.digestOf(bytes));
  const written = { ...parseSentinel(backup, increment), own: { changeSource: "wal-deltas" } };
  const text = Buffer.from(formatSentinel(summed(written)));
  /** As verify looks at it. */
  const isRight = (bytes: Buffer): boolean => {
    try {
      const sentinel = parseSentinel(backup, bytes.toString());
      const isAsWritten = formatSentinel(sentinel) === bytes.toString();
      return isAsWritten && summed(sentinel).own?.sum === sentinel.own?.sum;
    } catch {
      return false;
    }
  };
  assert.ok(isRight(text));
  for (let at = 0; at < text.length * 8; at += 1) {
    assert.ok(!isRight(flipBit(text, at >> 3, at & 7)), `bit ${at & 7} of byte ${at >> 3}`);
  }
});

test("values are read with their types", () => {
  const sentinel = parseSentinel(backup, increment);
  assert.equal(sentinel.systemId, 7710483310726148319n);
  assert.equal(sentinel.startLsn, 83886120n);
  assert.equal(sentinel.startTimeNs, 1795236796279863000n);
  assert.deepEqual(sentinel.base, {
    startLsn: 50331688n,
    name: "base_000000010000000000000003",
    fullName: "base_000000010000000000000003",
    stepCount: 1,
  });
  assert.equal(parseSentinel(backup, full).base, undefined);
});

test("all fields stand in WAL-G's order, and markup is escaped", () => {
  const sentinel: Sentinel = {
    startLsn: 1n,
    base: { startLsn: 2n, name: "b", fullName: "f", stepCount: 3 },
    pgVersion: 170004,
    finishLsn: 4n,
    systemId: 18446744073709551615n,
    uncompressedBytes: 5,
    compressedBytes: 6,
    dataCatalogBytes: 7,
    spec: {
      basePrefix: "/data",
      tablespaces: [
        { name: "9", location: "/ts/9", link: "pg_tblspc/9" },
        { name: "16385", location: "/ts/<1>", link: "pg_tblspc/16385" },
      ],
    },
    userData: parseJson('{"z":1.50,"a":12345678901234567890}'),
    isFilesMetadataDisabled: true,
    checkpointNumber: 8,
    baseCheckpointNumber: 9,
    version: 2,
    startTimeNs: 1500000000n,
    finishTimeNs: 2000000000n,
    hostname: "a&b",
    dataDirectory: "/data",
    isPermanent: true,
  };
  const text = formatSentinel(sentinel);
  assert.equal(
    text,
    '{"LSN":1,"DeltaLSN":2,"DeltaFrom":"b","DeltaFullName":"f","DeltaCount":3,"PgVersion":170004,' +
      '"FinishLSN":4,"SystemIdentifier":18446744073709551615,"UncompressedSize":5,' +
      '"CompressedSize":6,"DataCatalogSize":7,"Spec":{' +
      String.raw`"16385":{"loc":"/ts/\u003c1\u003e","link":"pg_tblspc/16385"},` +
      '"9":{"loc":"/ts/9","link":"pg_tblspc/9"},"base_prefix":"/data","tablespaces":["9","16385"]},' +
      '"UserData":{"z":1.50,"a":12345678901234567890},"FilesMetadataDisabled":true,"ChkpNum":8,' +
      '"DeltaChkpNum":9,"Version":2,"StartTime":"1970-01-01T00:00:01.5Z",' +
      String.raw`"FinishTime":"1970-01-01T00:00:02Z","DateFmt":"%Y-%m-%dT%H:%M:%S.%fZ","Hostname":"a\u0026b",` +
      '"DataDir":"/data","IsPermanent":true}',
  );
  assert.deepEqual(parseSentinel(backup, text), { ...sentinel, embeddedFilesMetadata: undefined });
});

test("the names of a sentinel are read in any case", () => {
  const text = full.replace(/"(\w+)":/g, (_, name: string) => `"${name.toLowerCase()}":`);
  assert.deepEqual(parseSentinel(backup, text), parseSentinel(backup, full));
});

test("a null Spec and unknown names are passed over", () => {
  const text = `{"Spec":null,"Future":{"x":[1]},${full.slice(1)}`;
  assert.deepEqual(parseSentinel(backup, text), parseSentinel(backup, full));
});

test("a sentinel of WAL-E has its tablespaces", () => {
  const text =
    '{"expanded_size_bytes":"1","spec":{"base_prefix":"/d","tablespaces":["16385"],' +
    '"16385":{"loc":"/ts","link":"pg_tblspc/16385"}},"wal_segment_backup_stop":"0000"}';
  const sentinel = parseSentinel("base_000000010000000000000003_00000040", text);
  assert.deepEqual(sentinel.spec, {
    basePrefix: "/d",
    tablespaces: [{ name: "16385", location: "/ts", link: "pg_tblspc/16385" }],
  });
  assert.equal(sentinel.startLsn, undefined);
  assert.equal(sentinel.version, undefined);
});

test("a version 1 sentinel keeps what it says of files", () => {
  const text =
    '{"LSN":1,"DeltaFromLSN":2,"DeltaFrom":"base","Files":{"/a":{"MTime":"2020-01-01T00:00:00Z"}},' +
    '"TarFileSets":null,"PgVersion":90600,"FinishLSN":3}';
  const sentinel = parseSentinel(backup, text);
  assert.equal(sentinel.base?.startLsn, 2n);
  assert.equal(
    formatJson(sentinel.embeddedFilesMetadata ?? null),
    '{"Files":{"/a":{"MTime":"2020-01-01T00:00:00Z"}}}',
  );
});

const wrong = [
  ["[]", /sentinel of .* is not a JSON object/],
  ['{"LSN":-1}', /LSN of sentinel of base_0.* is not an integer between 0 and 2\^64/],
  ['{"LSN":18446744073709551616}', /LSN .* is not an integer/],
  ['{"LSN":"1"}', /LSN .* is not an integer/],
  ['{"LSN":1.5}', /LSN .* is not an integer/],
  ['{"PgVersion":"170004"}', /PgVersion .* is not an integer/],
  ['{"CompressedSize":9007199254740993}', /CompressedSize .* between -2\^53/],
  ['{"StartTime":"yesterday"}', /not a time in RFC 3339: "yesterday"/],
  ['{"StartTime":1}', /StartTime .* is not a string/],
  ['{"IsPermanent":"no"}', /IsPermanent .* is not true or false/],
  ['{"Spec":[]}', /Spec .* is not an object/],
  ['{"Spec":{}}', /tablespace spec has no base_prefix/],
  ['{"Spec":{"base_prefix":"/d","tablespaces":["1"]}}', /tablespace spec has no 1/],
  ['{"Spec":{"base_prefix":"/d","tablespaces":[1]}}', /tablespaces .* not an array of strings/],
  [
    '{"Spec":{"base_prefix":"/d","tablespaces":["1"],"1":{"loc":"/x"}}}',
    /tablespace 1 has no link/,
  ],
  [
    '{"Spec":{"base_prefix":"/d","tablespaces":["1"],"1":{"link":"/x"}}}',
    /tablespace 1 has no loc/,
  ],
  ['{"Files":[]}', /Files .* is not an object/],
] as const;

test("refuses an increment's that names no base: it would be taken for a full backup", () => {
  const increment = `${backup}_D_000000010000000000000003`;
  for (const text of ["{}", '{"LSN":1}', '{"DeltaFrom":null}']) {
    assert.throws(() => parseSentinel(increment, text), {
      name: "FormatError",
      message: /^sentinel of base_.*_D_.* names no base/,
    });
    assert.equal(parseSentinel(backup, text).base, undefined);
  }
});

for (const [text, message] of wrong) {
  test(`refuses the sentinel ${text}`, () => {
    assert.throws(() => parseSentinel(backup, text), { name: "FormatError", message });
  });
}

test("no cut-off sentinel is read", () => {
  for (let length = 0; length < full.length; length += 1) {
    assert.throws(() => parseSentinel(backup, full.slice(0, length)), { name: /Format|Truncated/ });
  }
});

test("metadata.json that WAL-G wrote is written again byte by byte", () => {
  assert.equal(formatMetadata(parseMetadata(backup, metadata)), metadata);
  const withoutSystem = metadata.replace("7710483330612974385", "null");
  assert.equal(formatMetadata(parseMetadata(backup, withoutSystem)), withoutSystem);
  const withUserData = `${metadata.slice(0, -1)},"user_data":{"b":1.0,"a":[]}}`;
  assert.equal(formatMetadata(parseMetadata(backup, withUserData)), withUserData);
});

for (const name of ["start_time", "finish_time", "pg_version", "start_lsn", "finish_lsn"]) {
  test(`refuses metadata.json without ${name}`, () => {
    const text = metadata.replace(`"${name}"`, '"other"');
    assert.throws(() => parseMetadata(backup, text), {
      name: "FormatError",
      message: `metadata.json of ${backup} has no ${name}`,
    });
  });
}

test("metadata is read back", () => {
  const uint64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
  const timeUs = fc.bigInt({ min: 0n, max: 4n * 10n ** 15n }).map((us) => us * 1000n);
  fc.assert(
    fc.property(
      fc.record({
        startTimeNs: timeUs,
        finishTimeNs: timeUs,
        hostname: fc.string(),
        dataDirectory: fc.string({ unit: "binary" }),
        pgVersion: fc.nat(),
        startLsn: uint64,
        finishLsn: uint64,
        isPermanent: fc.boolean(),
        systemId: fc.option(uint64, { nil: undefined }),
        uncompressedBytes: fc.maxSafeNat(),
        compressedBytes: fc.maxSafeNat(),
        userData: fc.constantFrom(undefined, null, parseJson('{"a":[1,"<"]}')),
      }),
      (value) => assert.deepEqual(parseMetadata(backup, formatMetadata(value)), { ...value }),
    ),
  );
});

test("a restore spec may name no tablespace", () => {
  assert.deepEqual(parseTablespaceSpec(parseJson('{"base_prefix":"/d"}')), {
    basePrefix: "/d",
    tablespaces: [],
  });
});
