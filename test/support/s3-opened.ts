import { systemClock } from "../../src/io/clock.ts";
import { systemRandom } from "../../src/io/retry.ts";
import type { RetryEvent } from "../../src/io/retry.ts";
import type { S3Config } from "../../src/storage/open.ts";
import { openS3Storage } from "../../src/storage/s3.ts";
import { s3Config } from "./s3-config.ts";
import { S3Emulation } from "./s3-emulation.ts";
import type { S3Quirks } from "./s3-emulation.ts";

/** An emulated store of its own, and the storage opened on it, with what it repeats. */
export async function openEmulated(
  quirks: S3Quirks = {},
  given: Partial<S3Config> | ((server: S3Emulation) => Partial<S3Config>) = {},
) {
  const server = await S3Emulation.start(quirks);
  const settings = typeof given === "function" ? given(server) : given;
  const retries: RetryEvent[] = [];
  const storage = await openS3Storage(s3Config(server, settings), {
    clock: systemClock,
    random: systemRandom,
    retryPolicy: { attempts: 4, baseMs: 1, capMs: 1, totalMs: 10_000 },
    onRetry: (event) => retries.push(event),
    requestTimeoutMs: 10_000,
    uploadConcurrency: 3,
  });
  return { server, storage, retries, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}
