import assert from "node:assert/strict";
import { test } from "node:test";
import { findSettings } from "../../src/config/find-settings.ts";
import {
  readProxies,
  readStorageConfig,
  readStorageFolder,
} from "../../src/config/storage-config.ts";

type Environment = Readonly<Record<string, string>>;

async function find(environment: Environment) {
  return await findSettings({ flags: new Map(), environment });
}

const plainS3 = {
  kind: "s3",
  isPathStyle: false,
  isDualStack: false,
  maxPartBytes: 20_971_520,
  useListObjectsV1: false,
  deleteBatchSize: 1000,
};

const good: readonly (readonly [Environment, unknown])[] = [
  [{}, undefined],
  [{ FILE_PREFIX: "/a" }, undefined],
  [{ WALG_FILE_PREFIX: "/a/b" }, { kind: "directory", path: "/a/b" }],
  [{ WALE_FILE_PREFIX: "/a//b/./c/" }, { kind: "directory", path: "/a/b/c" }],
  [{ WALG_FILE_PREFIX: "file://localhost/tmp" }, { kind: "directory", path: "/tmp" }],
  [{ WALG_FILE_PREFIX: "file:///tmp" }, { kind: "directory", path: "/tmp" }],
  [
    { WALG_S3_PREFIX: "s3://b", AWS_CA_BUNDLE: "/ca.pem" },
    { ...plainS3, bucket: "b", prefix: "", caFile: "/ca.pem" },
  ],
  [
    { WALG_S3_PREFIX: "s3://b", AWS_CA_BUNDLE: "/ca.pem", WALG_S3_CA_CERT_FILE: "/own.pem" },
    { ...plainS3, bucket: "b", prefix: "", caFile: "/own.pem" },
  ],
  [{ WALG_S3_PREFIX: "s3://bucket" }, { ...plainS3, bucket: "bucket", prefix: "" }],
  [{ WALE_S3_PREFIX: "s3://bucket/" }, { ...plainS3, bucket: "bucket", prefix: "" }],
  [{ WALG_S3_PREFIX: "S3A://b//x//y/" }, { ...plainS3, bucket: "b", prefix: "x/y" }],
  [{ WALG_S3_PREFIX: "s3://my_Bucket/a%20b" }, { ...plainS3, bucket: "my_Bucket", prefix: "a b" }],
  [{ WALG_S3_PREFIX: "s3://b/100%" }, { ...plainS3, bucket: "b", prefix: "100%" }],
  ...[
    ["s3:9000", "https://s3:9000"],
    ["http://s3:9000/", "http://s3:9000"],
    ["https://[::1]:9000/s3/", "https://[::1]:9000/s3"],
  ].map(([AWS_ENDPOINT = "", endpoint]): [Environment, object] => [
    { WALG_S3_PREFIX: "s3://b/p", AWS_ENDPOINT },
    { ...plainS3, bucket: "b", prefix: "p", endpoint },
  ]),
  [
    {
      WALG_S3_PREFIX: "s3://b/p",
      AWS_ENDPOINT: "http://s3:9000",
      AWS_REGION: "r",
      AWS_ACCESS_KEY_ID: "id",
      AWS_SECRET_ACCESS_KEY: "secret",
      AWS_SESSION_TOKEN: "token",
      AWS_PROFILE: "profile",
      AWS_ROLE_ARN: "arn",
      AWS_ROLE_SESSION_NAME: "session",
      AWS_S3_FORCE_PATH_STYLE: "true",
      AWS_DUAL_STACK: "true",
      S3_CA_CERT_FILE: "/ca.pem",
      S3_STORAGE_CLASS: "STANDARD_IA",
      S3_SSE: "aws:kms",
      S3_SSE_KMS_ID: "key",
      S3_MAX_PART_SIZE: "8MiB",
      S3_USE_LIST_OBJECTS_V1: "true",
      S3_DELETE_BATCH_SIZE: "10",
    },
    {
      kind: "s3",
      bucket: "b",
      prefix: "p",
      endpoint: "http://s3:9000",
      region: "r",
      accessKeyId: "id",
      secretAccessKey: "secret",
      sessionToken: "token",
      profile: "profile",
      roleArn: "arn",
      roleSessionName: "session",
      isPathStyle: true,
      isDualStack: true,
      caFile: "/ca.pem",
      storageClass: "STANDARD_IA",
      sse: "aws:kms",
      sseKmsKeyId: "key",
      maxPartBytes: 8_388_608,
      useListObjectsV1: true,
      deleteBatchSize: 10,
    },
  ],
  [
    { WALG_S3_PREFIX: "s3://b", WALG_S3_SSE_C: "x".repeat(32) },
    { ...plainS3, bucket: "b", prefix: "", sseCustomerKey: "x".repeat(32) },
  ],
];

for (const [environment, expected] of good) {
  test(`reads ${JSON.stringify(environment).slice(0, 80)}`, async () => {
    assert.deepEqual(readStorageConfig(await find(environment)), expected);
  });
}

const s3 = { WALG_S3_PREFIX: "s3://b" };
const bad: readonly (readonly [Environment, RegExp])[] = [
  [
    { WALG_FILE_PREFIX: "backups" },
    /^WALG_FILE_PREFIX from .* is not an absolute path: "backups"$/,
  ],
  [{ WALG_FILE_PREFIX: "~/backups" }, /is not an absolute path/],
  [{ WALG_FILE_PREFIX: "file://host/backups" }, /is not an absolute path/],
  [
    { WALG_S3_PREFIX: "bucket/folder" },
    /^WALG_S3_PREFIX from .* is no URL of a store: bucket\/folder/,
  ],
  [{ WALG_S3_PREFIX: "s3:///folder" }, /is no URL of a store/],
  [{ WALG_S3_PREFIX: "s3://b/a?x=1" }, /is no URL of a store/],
  [{ WALG_S3_PREFIX: "s3://b/a#x" }, /is no URL of a store/],
  [{ WALG_S3_PREFIX: "s3://user:pw@b/a" }, /is no URL of a store/],
  [
    { ...s3, WALG_FILE_PREFIX: "/a" },
    /^two stores are configured: WALG_FILE_PREFIX from the environment, and WALG_S3_PREFIX from/,
  ],
  [
    { ...s3, WALG_GS_PREFIX: "gs://b" },
    /^two stores are configured: WALG_S3_PREFIX .*WALG_GS_PREFIX/,
  ],
  ...["http://[::1", "ftp://s3", "http://s3:99999", "http://", "s3 3"].map(
    (AWS_ENDPOINT): [Environment, RegExp] => [
      { ...s3, AWS_ENDPOINT },
      /^AWS_ENDPOINT from the environment is no URL of a server: /,
    ],
  ),
  [{ ...s3, AWS_ACCESS_KEY_ID: "a" }, /^AWS_ACCESS_KEY_ID from .* has no AWS_SECRET_ACCESS_KEY$/],
  [
    { ...s3, AWS_SECRET_ACCESS_KEY: "a" },
    /^AWS_SECRET_ACCESS_KEY from .* has no AWS_ACCESS_KEY_ID$/,
  ],
  [{ ...s3, AWS_SESSION_TOKEN: "a" }, /^AWS_SESSION_TOKEN from .* has no AWS_ACCESS_KEY_ID$/],
  [{ ...s3, S3_SSE: "aws:kms" }, /^S3_SSE from .* asks for KMS but there is no S3_SSE_KMS_ID$/],
  [{ ...s3, S3_SSE_KMS_ID: "k" }, /^S3_SSE_KMS_ID from .* needs S3_SSE=aws:kms$/],
  [{ ...s3, S3_SSE: "AES256", S3_SSE_KMS_ID: "k" }, /needs S3_SSE=aws:kms$/],
  [{ ...s3, S3_SSE: "AES256", S3_SSE_C: "k" }, /^S3_SSE_C from .* contradicts S3_SSE$/],
];

for (const [environment, message] of bad) {
  test(`refuses ${JSON.stringify(environment)}`, async () => {
    const found = await find(environment);
    assert.throws(() => readStorageConfig(found), { code: "config", message });
  });
}

test("the folder below the prefix is joined by single slashes and stays inside", async () => {
  const cases: readonly (readonly [string, string | undefined | RegExp])[] = [
    ["", undefined],
    ["/", undefined],
    ["a", "a"],
    ["/a//b/", "a/b"],
    ["../other", /leaves the prefix of the store: \.\.\/other$/],
    ["a/./b", /leaves the prefix of the store/],
  ];
  for (const [text, expected] of cases) {
    const found = await find({ WALG_STORAGE_PREFIX: text });
    if (expected instanceof RegExp) {
      assert.throws(() => readStorageFolder(found), { code: "config", message: expected });
    } else {
      assert.equal(readStorageFolder(found), expected);
    }
  }
});

test("proxies are taken in capitals or small letters, walnut's own first", async () => {
  const cases: readonly (readonly [Environment, unknown])[] = [
    [{ NO_PROXY: "a" }, undefined],
    [
      { HTTPS_PROXY: "http://a", http_proxy: "http://b", no_proxy: "c" },
      { https: "http://a", http: "http://b", noProxy: "c" },
    ],
    [{ https_proxy: "http://a", HTTPS_PROXY: "http://b" }, { https: "http://b" }],
    [{ WALNUT_HTTPS_PROXY: "http://a", HTTPS_PROXY: "http://b" }, { https: "http://a" }],
    [
      { HTTP_PROXY: "http://b", WALNUT_NO_PROXY: "*", NO_PROXY: "c" },
      { http: "http://b", noProxy: "*" },
    ],
  ];
  for (const [environment, proxies] of cases) {
    assert.deepEqual(readProxies(await find(environment)), proxies);
  }
});
