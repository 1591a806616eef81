import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type ExitPlace,
  errorExitCode,
  exitCodes,
  listExitCodes,
  restoreExitCode,
} from "../../src/commands/exit-codes.ts";
import {
  ConfigError,
  DamagedError,
  InterruptedError,
  NotInArchiveError,
  ObjectNotFoundError,
  StorageError,
  UsageError,
} from "../../src/errors.ts";

function place(existing: readonly string[], ...positionals: readonly string[]): ExitPlace {
  return {
    workingDirectory: "/data",
    positionals,
    fileExists: (path) => existing.includes(path),
  };
}

test("every failure but those of wal-fetch has a code of its own in 1..125", () => {
  const { stopping, ...others } = exitCodes;
  assert.equal(stopping.code, 201);
  const codes = [...Object.values(others).map(({ code }) => code), errorExitCode(new Error("x"))];
  for (const code of codes) assert.ok(code >= 1 && code <= 125, String(code));
  assert.equal(new Set(codes).size, codes.length);
});

test("the list is sorted and says what each code means", () => {
  const codes = listExitCodes().map(({ code }) => code);
  assert.deepEqual(
    codes,
    codes.toSorted((one, other) => one - other),
  );
  assert.ok(codes.includes(74) && codes.includes(75) && codes.includes(200));
  for (const { text } of listExitCodes()) assert.match(text, /^[a-zP].*[^.]$/);
});

test("the code follows from the error", () => {
  assert.equal(errorExitCode(new UsageError("x")), exitCodes.usage.code);
  assert.equal(errorExitCode(new NotInArchiveError("x")), 74);
  assert.equal(errorExitCode(new TypeError("x")), 70);
  assert.equal(errorExitCode("thrown text"), 70);
});

const failures: Readonly<Record<string, unknown>> = {
  usage: new UsageError("x"),
  config: new ConfigError("x"),
  damaged: new DamagedError("x"),
  interrupted: new InterruptedError("x"),
  storage: new StorageError("x", { isRetryable: true }),
  "another object is missing": new ObjectNotFoundError("key", "store"),
  bug: new TypeError("x"),
  "no error": undefined,
};

for (const [name, error] of Object.entries(failures)) {
  test(`restore_command, ${name}: the server stops, a standby asks again`, () => {
    assert.equal(restoreExitCode(error, place([])), 200);
    assert.equal(restoreExitCode(error, place(["/data/recovery.signal"])), 200);
    assert.equal(restoreExitCode(error, place(["/data/standby.signal"])), 75);
  });
}

test("restore_command: 74 only for what the archive has proved not to hold", () => {
  const error = new NotInArchiveError("x");
  assert.equal(restoreExitCode(error, place([])), 74);
  assert.equal(restoreExitCode(error, place(["/data/standby.signal"])), 74);
});

test("restore_command finds the data directory by the destination, too", () => {
  const error = new StorageError("x", { isRetryable: true });
  const cases: readonly (readonly [string, string, number])[] = [
    ["/other/standby.signal", "/other/pg_wal/RECOVERYXLOG", 75],
    ["/data/sub/standby.signal", "sub/pg_wal/RECOVERYXLOG", 75],
    ["/data/standby.signal", "pg_wal/RECOVERYXLOG", 75],
    ["/data/standby.signal", "RECOVERYXLOG", 75],
    ["/other/pg_wal/standby.signal", "/other/pg_wal/RECOVERYXLOG", 200],
    ["/standby.signal", "/RECOVERYXLOG", 75],
    ["/elsewhere/standby.signal", "/other/pg_wal/RECOVERYXLOG", 200],
  ];
  for (const [signalFile, destination, code] of cases) {
    const name = "000000010000000000000001";
    assert.equal(restoreExitCode(error, place([signalFile], name, destination)), code, destination);
  }
});
