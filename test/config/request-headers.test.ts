import assert from "node:assert/strict";
import { test } from "node:test";
import { findSettings } from "../../src/config/find-settings.ts";
import { readRequestHeaders } from "../../src/config/request-headers.ts";

async function read(environment: Readonly<Record<string, string>>) {
  return readRequestHeaders(await findSettings({ flags: new Map(), environment }));
}

const HEADERS = "S3_REQUEST_ADDITIONAL_HEADERS";

const good: readonly (readonly [Readonly<Record<string, string>>, unknown])[] = [
  [{}, {}],
  [{ S3_RETENTION_PERIOD: "-1", [HEADERS]: " ", WALNUT_S3_TAGS: "" }, {}],
  [{ WALG_S3_RETENTION_PERIOD: "3600" }, { lock: { mode: "GOVERNANCE", periodSeconds: 3600 } }],
  [
    { S3_RETENTION_PERIOD: "1", S3_RETENTION_MODE: "COMPLIANCE" },
    { lock: { mode: "COMPLIANCE", periodSeconds: 1 } },
  ],
  [{ WALNUT_S3_TAGS: "team=db&cost%20center=" }, { tags: "team=db&cost%20center=" }],
  [{ WALNUT_S3_REQUESTER_PAYS: "true" }, { isRequesterPays: true }],
  [
    { [HEADERS]: 'X-Tenant: seven\nx-quoted: "a: b"\n' },
    { requestHeaders: { "x-tenant": "seven", "x-quoted": "a: b" } },
  ],
  [{ [HEADERS]: '{"X-Tenant": "eight"}' }, { requestHeaders: { "x-tenant": "eight" } }],
];
for (const [environment, expected] of good) {
  test(`reads ${JSON.stringify(environment)}`, async () => {
    assert.deepEqual(await read(environment), expected);
  });
}

const bad: readonly (readonly [Readonly<Record<string, string>>, RegExp])[] = [
  [{ [HEADERS]: "a b" }, /is no list of headers$/],
  [{ [HEADERS]: '{"a":1}' }, /is no list of headers$/],
  [{ [HEADERS]: "{" }, /is no list of headers$/],
  [{ [HEADERS]: "Authorization: geheim" }, /is no list of headers$/],
  [{ WALNUT_S3_TAGS: "a=1&a=2" }, /is no list of tags: "a=1&a=2"$/],
  [{ WALNUT_S3_TAGS: "a" }, /is no list of tags/],
  [{ S3_RETENTION_MODE: "ALWAYS" }, /S3_RETENTION_MODE/],
];
for (const [environment, message] of bad) {
  test(`refuses ${JSON.stringify(environment)}`, async () => {
    await assert.rejects(read(environment), { code: "config", message });
  });
}
