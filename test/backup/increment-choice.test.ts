import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import {
  type BaseCandidate,
  type BaseRequest,
  type BaseServer,
  chooseBase,
} from "../../src/backup/increment-choice.ts";
import type { BackupMetadata } from "../../src/layout/metadata.ts";
import { lsn } from "../../src/postgres/lsn.ts";

const SYSTEM_ID = 7_412_345_678_901_234_567n;
const server: BaseServer = {
  systemId: SYSTEM_ID,
  majorVersion: 17,
  history: { timeline: 2, ancestors: [{ timeline: 1, endLsn: lsn(5000n), reason: "" }] },
  currentLsn: lsn(9000n),
};
const latest: BaseRequest = { maxSteps: 7, origin: "latest", isPermanent: false };

interface Made {
  readonly timeline?: number;
  readonly end?: bigint;
  readonly on?: string;
  readonly full?: string;
  readonly isPermanent?: boolean;
  readonly sentinel?: object;
}

/** Backup number `number`, which ended at 1000 times that unless it is told. */
function made(number: number, made: Made = {}): BaseCandidate {
  const { timeline = 1, end = BigInt(number * 1000), on, full = nameOf(1) } = made;
  const metadata: BackupMetadata = {
    startTimeNs: 0n,
    finishTimeNs: 0n,
    hostname: "",
    dataDirectory: "",
    pgVersion: 170_004,
    startLsn: end - 10n,
    finishLsn: end,
    isPermanent: made.isPermanent ?? false,
    uncompressedBytes: 0,
    compressedBytes: 0,
  };
  const sentinel = {
    startLsn: end - 10n,
    finishLsn: end,
    systemId: SYSTEM_ID,
    pgVersion: 170_004,
    isFilesMetadataDisabled: false,
    isPermanent: false,
    ...(on === undefined ? {} : { base: { name: on, fullName: full, stepCount: 1 } }),
    ...made.sentinel,
  };
  return { name: nameOf(number, timeline), sentinel, metadata };
}

function nameOf(number: number, timeline = 1): string {
  return `base_${timeline.toString(16).toUpperCase().padStart(8, "0")}${String(number).padStart(16, "0")}`;
}

function chosen(candidates: readonly BaseCandidate[], request: Partial<BaseRequest> = {}): string {
  const choice = chooseBase(candidates, { ...latest, ...request }, server);
  if (choice.kind === "increment") return `${choice.name} ${choice.stepCount} ${choice.fullName}`;
  return `${choice.kind}: ${choice.reason}`;
}

const [one, two, three] = [made(1), made(2, { on: nameOf(1) }), made(3, { on: nameOf(2) })];

const choices: readonly (readonly [what: string, actual: string, expected: string])[] = [
  ["nothing there", chosen([]), "full: there is no earlier backup"],
  ["the newest", chosen([one, two, three]), `${nameOf(3)} 3 ${nameOf(1)}`],
  [
    "the full one of the newest",
    chosen([one, two], { origin: "latest-full" }),
    `${nameOf(1)} 1 ${nameOf(1)}`,
  ],
  ["no increments", chosen([one], { maxSteps: 0 }), "full: WALG_DELTA_MAX_STEPS is 0"],
  ["a full one on request", chosen([one], { fullReason: "why" }), "full: why"],
  [
    "too many steps",
    chosen([one, two, three], { maxSteps: 2 }),
    `full: WALG_DELTA_MAX_STEPS is 2, and ${nameOf(1)} has as many increments`,
  ],
  [
    "too many on one full backup, as deep as they may be",
    chosen([one, two, made(3, { on: nameOf(1) })], { maxSteps: 2, origin: "latest-full" }),
    `full: WALG_DELTA_MAX_STEPS is 2, and ${nameOf(1)} has as many increments`,
  ],
  [
    "by name",
    chosen([one, two, three], { from: { kind: "name", name: nameOf(2) } }),
    `${nameOf(2)} 2 ${nameOf(1)}`,
  ],
  [
    "an unknown name",
    chosen([one], { from: { kind: "name", name: "x" } }),
    "refused: backup x does not exist",
  ],
  [
    "by user data",
    chosen([made(1, { sentinel: { userData: "a" } }), two], {
      from: { kind: "user-data", value: "a" },
    }),
    `${nameOf(1)} 1 ${nameOf(1)}`,
  ],
  [
    "unknown user data",
    chosen([one], { from: { kind: "user-data", value: "a" } }),
    "refused: no backup has this user data",
  ],
  [
    "user data of two",
    chosen([made(1, { sentinel: { userData: "a" } }), made(2, { sentinel: { userData: "a" } })], {
      from: { kind: "user-data", value: "a" },
    }),
    `refused: 2 backups have this user data: ${nameOf(1)}, ${nameOf(2)}`,
  ],
  [
    "a permanent one is no base of one that is not",
    chosen([made(1, { isPermanent: true })]),
    `full: backup ${nameOf(1)} is permanent, and the new one is not`,
  ],
  [
    "but of another permanent one",
    chosen([made(1, { isPermanent: true })], { isPermanent: true }),
    `${nameOf(1)} 1 ${nameOf(1)}`,
  ],
  [
    "and where full ones are the bases",
    chosen([made(1, { isPermanent: true })], { origin: "latest-full" }),
    `${nameOf(1)} 1 ${nameOf(1)}`,
  ],
];

for (const [what, actual, expected] of choices) {
  test(`chooses: ${what}`, () => assert.equal(actual, expected));
}

const faults: readonly (readonly [what: string, candidate: BaseCandidate, reason: RegExp])[] = [
  ["another cluster", made(2, { sentinel: { systemId: 1n } }), /^is of cluster 1, not of \d+$/],
  [
    "no cluster",
    made(2, { sentinel: { systemId: undefined } }),
    /^is of cluster unknown, not of \d+$/,
  ],
  [
    "another release",
    made(2, { sentinel: { pgVersion: 160_000 } }),
    /^is of PostgreSQL 16, not of \d+$/,
  ],
  ["no end", made(2, { sentinel: { finishLsn: undefined } }), /^does not tell its LSNs$/],
  ["no start", made(2, { sentinel: { startLsn: undefined } }), /^does not tell its LSNs$/],
  ["no sentinel", { name: nameOf(2) }, /^has a sentinel that can't be read$/],
  ["no metadata", { ...made(2), metadata: undefined }, /^has no metadata\.json that can be read$/],
  ["no file list", made(2, { sentinel: { isFilesMetadataDisabled: true } }), /files_metadata/],
  [
    "a fault that was found",
    { ...made(2), fault: { reason: "is damaged", isDamage: true } },
    /^is damaged$/,
  ],
  [
    "the end of a timeline that was left before",
    made(2, { end: 5001n }),
    /^ended at 0\/1389 on timeline 1, which is no part of the history of timeline 2$/,
  ],
  ["an unknown timeline", made(2, { timeline: 3 }), /no part of the history/],
  [
    "a position that the server has not reached",
    made(2, { timeline: 2, end: 9001n }),
    /Finish LSN of backup .* greater than current LSN 0\/2328$/,
  ],
  ["a base that is gone", made(2, { on: nameOf(7) }), /^is based on .*7, which does not exist$/],
  ["a catch-up backup", made(2, { on: "" }), /^is based on no backup, but on a position/],
  ["a name of WAL-E", { ...made(2), name: `${nameOf(2)}_00000028` }, /^was made by WAL-E$/],
];

for (const [what, candidate, reason] of faults) {
  test(`is never a base: ${what}`, () => {
    const choice = chooseBase([one, candidate], latest, server);
    assert.equal(choice.kind === "increment" && choice.name, one.name, "an older one is taken");
    assert.ok(choice.kind === "increment");
    assert.match(choice.passedOver[0]?.reason ?? "", reason);
    const from = { kind: "name" as const, name: candidate.name };
    const named = chooseBase([one, candidate], { ...latest, from }, server);
    assert.equal(named.kind, "refused");
    const onTop = made(4, { on: candidate.name });
    const top = chooseBase([one, candidate, onTop], latest, server);
    assert.equal(top.kind === "increment" && top.name, one.name, "nor is what is based on it");
  });
}

test("tells what is damaged from what is only of no use", () => {
  const damaged = { ...made(2), fault: { reason: "is cut off", isDamage: true } };
  const candidates = [one, damaged, made(3, { on: nameOf(2) }), made(4, { on: nameOf(9) })];
  const choice = chooseBase([...candidates, made(5, { timeline: 3 })], latest, server);
  assert.ok(choice.kind === "increment");
  const told = choice.passedOver.map(({ name, isDamage }) => [name.slice(-1), isDamage]);
  assert.deepEqual(told, [
    ["5", false],
    ["4", true],
    ["3", true],
    ["2", true],
  ]);
});

test("whatever there is, a base is whole, of this history, and no later than the server", () => {
  const candidate = fc.record({
    number: fc.integer({ min: 1, max: 8 }),
    timeline: fc.integer({ min: 1, max: 3 }),
    end: fc.bigInt({ min: 100n, max: 10_000n }),
    on: fc.option(fc.integer({ min: 1, max: 8 }), { nil: undefined }),
    isPermanent: fc.boolean(),
  });
  const request = fc.record({
    maxSteps: fc.nat(5),
    origin: fc.constantFrom("latest" as const, "latest-full" as const),
    isPermanent: fc.boolean(),
  });
  const candidates = fc.uniqueArray(candidate, { selector: ({ number }) => number });
  fc.assert(
    fc.property(candidates, request, (list, wanted) => {
      const names = new Map(list.map(({ number, timeline }) => [number, nameOf(number, timeline)]));
      const all = list.map(({ number, on, ...rest }) => {
        const base = on === undefined || on >= number ? undefined : (names.get(on) ?? "gone");
        return made(number, { ...rest, ...(base === undefined ? {} : { on: base }) });
      });
      const choice = chooseBase(all, wanted, server);
      if (choice.kind !== "increment") return;
      const known = new Map(all.map((entry) => [entry.name, entry]));
      assert.ok(choice.stepCount <= wanted.maxSteps);
      assert.equal(choice.chain[0], choice.name);
      assert.equal(choice.chain.at(-1), choice.fullName);
      assert.equal(choice.chain.length, choice.stepCount);
      for (const [index, name] of choice.chain.entries()) {
        const sentinel = known.get(name)?.sentinel;
        assert.equal(sentinel?.base?.name, choice.chain[index + 1]);
        const end = sentinel?.finishLsn ?? 0n;
        const timeline = Number.parseInt(name.slice(5, 13), 16);
        assert.ok(timeline === 1 ? end <= 5000n : timeline === 2 && end <= 9000n, name);
      }
    }),
    { numRuns: 500 },
  );
});
