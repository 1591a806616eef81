/** P23: keys of AWS that live for seconds, from each of its givers, and keys that are replaced. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import type { RetryPolicy } from "../../src/io/retry.ts";
import { openStorage } from "../../src/storage/open.ts";
import { AwsKeyGiver, GuardedBucket, awsKeySources } from "../support/aws-keys.ts";
import { patternSource, slowSource } from "../support/bodies.ts";
import { s3Config } from "../support/s3-config.ts";
import { TokenServer } from "../support/token-server.ts";
import { keysOf, text } from "./contract-lists.ts";
import { until } from "../support/until.ts";

const signal = new AbortController().signal;
const MIB = 1024 * 1024;
const LIFE_MS = 1200;
const policy: RetryPolicy = { attempts: 3, baseMs: 1, capMs: 5, totalMs: 60_000 };

let directory = "";
const environment = { ...process.env };
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-s3-identity-"));
});
after(async () => await rm(directory, { recursive: true }));
afterEach(() => {
  setEnvironment({});
  Object.assign(process.env, environment);
});

/** Nothing of the machine's own may answer instead. */
function setEnvironment(values: Readonly<Record<string, string>>): void {
  for (const name of Object.keys(process.env)) {
    if (name.startsWith("AWS_")) delete process.env[name];
  }
  const nowhere = join(directory, "nowhere");
  const isolated = { AWS_CONFIG_FILE: nowhere, AWS_SHARED_CREDENTIALS_FILE: nowhere };
  Object.assign(process.env, isolated, values);
}

async function open(stack: AsyncDisposableStack, { bucket, endpoint }: GuardedBucket) {
  const { accessKeyId: _, secretAccessKey: __, ...config } = s3Config(bucket);
  const options = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 2, retryPolicy: policy };
  const s3 = { ...config, endpoint, maxPartBytes: 5 * MIB };
  return stack.use(await openStorage(s3, options));
}

for (const { name, answer, environment: variables } of awsKeySources) {
  test(`keys of seconds are renewed while objects are stored: ${name}`, async () => {
    const tokenFile = join(directory, "pod-token");
    await writeFile(tokenFile, "the pod's");
    const giver = new AwsKeyGiver(LIFE_MS);
    await using server = await TokenServer.start((request) => answer(request, giver));
    setEnvironment(variables(server.origin, tokenFile));
    await using stack = new AsyncDisposableStack();
    const bucket = stack.use(await GuardedBucket.start((id, atMs) => giver.accepts(id, atMs)));
    const storage = await open(stack, bucket);
    let count = 0;
    await until("the first key has ended", async () => {
      await storage.put(String(count++).padStart(6, "0"), text("x"), { signal });
      return !giver.accepts("KEY0", Date.now());
    });
    const body = slowSource([11 * MIB, 7 * MIB], () =>
      until(
        "a key of the upload, and all before it, have ended",
        async () => giver.given.length >= 2 && giver.areEnded(Date.now()),
      ),
    );
    await storage.put("large", body, { signal });
    assert.equal((await keysOf(storage, "")).length, count + 1);
    assert.equal(bucket.bucket.objects.get("large")?.bytes.length, 18 * MIB);
    assert.ok(giver.given.length >= 3, `${giver.given.length} keys`);
    assert.deepEqual(bucket.refused, []);
  });
}

test("keys in a file that ended are named, and new ones taken up without a restart", async () => {
  const file = join(directory, "credentials");
  const write = async (id: string) =>
    await writeFile(file, `[default]\naws_access_key_id = ${id}\naws_secret_access_key = s\n`);
  await write("OLD");
  setEnvironment({ AWS_SHARED_CREDENTIALS_FILE: file, AWS_EC2_METADATA_DISABLED: "true" });
  let valid = "OLD";
  await using stack = new AsyncDisposableStack();
  const bucket = stack.use(await GuardedBucket.start((id) => id === valid));
  const storage = await open(stack, bucket);
  await storage.put("a", text("x"), { signal });
  valid = "NEW";
  await assert.rejects(storage.put("b", text("x"), { signal }), {
    name: "StorageAccessError",
    hint: /credentials expired/,
  });
  await write("NEW");
  await storage.put("b", patternSource(25 * MIB), { signal });
  assert.deepEqual(await keysOf(storage, ""), ["a", "b"]);
  assert.ok(bucket.refused.length <= 4, `${bucket.refused.length} refusals`);
});
