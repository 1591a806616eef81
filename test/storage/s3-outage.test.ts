import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "../../src/io/clock.ts";
import { systemClock } from "../../src/io/clock.ts";
import { STORAGE_RETRY_POLICY } from "../../src/io/retry.ts";
import { openStorage } from "../../src/storage/open.ts";
import { patternBytes, patternSource } from "../support/bodies.ts";
import { s3Config } from "../support/s3-config.ts";
import { S3Emulation, errorDocument } from "../support/s3-emulation.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const BODY_BYTES = 5.5 * MIB;
const MINUTE_MS = 60_000;
/** Longer than any pause between attempts: so the clock tells a watchdog's wait from those. */
const REQUEST_TIMEOUT_MS = 10 * MINUTE_MS;

/** Pauses between attempts are over at once, and their time has passed. */
class HastyClock implements Clock {
  #skippedMs = 0;

  now(): number {
    return systemClock.now() + this.#skippedMs;
  }

  monotonicMs(): number {
    return systemClock.monotonicMs() + this.#skippedMs;
  }

  async sleep(ms: number, options: { readonly signal: AbortSignal }): Promise<void> {
    if (ms > STORAGE_RETRY_POLICY.capMs) return await systemClock.sleep(ms, options);
    options.signal.throwIfAborted();
    this.#skippedMs += ms;
  }
}

test("a store that is away for five minutes, twice, does not begin an upload anew (P20)", async () => {
  await using server = await S3Emulation.start();
  const clock = new HastyClock();
  const startedMs = clock.monotonicMs();
  const outages = new Map<string, number>();
  server.intercept = ({ operation, query }) => {
    // The last part: it is small, and sent often.
    const isPart = operation === "UploadPart" && query.get("partNumber") === "2";
    if (!isPart && operation !== "CompleteMultipartUpload") return undefined;
    const beganMs = outages.get(operation) ?? clock.monotonicMs();
    outages.set(operation, beganMs);
    const isAway = clock.monotonicMs() < beganMs + 5 * MINUTE_MS;
    return isAway ? { status: 503, body: errorDocument("ServiceUnavailable") } : undefined;
  };
  let opened = 0;
  const body = {
    isReopenable: true,
    open() {
      opened += 1;
      return patternSource(BODY_BYTES).open();
    },
  };
  const config = s3Config(server, { maxPartBytes: 5 * MIB });
  await using storage = await openStorage(config, {
    signal,
    clock,
    requestTimeoutMs: REQUEST_TIMEOUT_MS,
    uploadConcurrency: 1,
  });
  await storage.put("part_001.tar", body, { signal });
  assert.deepEqual([...outages.keys()], ["UploadPart", "CompleteMultipartUpload"]);
  assert.ok(clock.monotonicMs() - startedMs >= 10 * MINUTE_MS);
  assert.equal(opened, 1, "it was read once");
  assert.ok(server.objects.get("part_001.tar")?.bytes.equals(patternBytes(BODY_BYTES)));
});
