import assert from "node:assert/strict";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import { azureError, readAzureFailure } from "../../src/storage/azure-errors.ts";
import { parseListing } from "../../src/storage/azure-list.ts";
import { azurePartLimits } from "../../src/storage/azure-put.ts";

const action = { verb: "put", key: "a", storage: "azure://x/y" } as const;

function errorOf(status: number, code: string, headers: Record<string, string> = {}, text = "") {
  const failure = readAzureFailure(status, { "x-ms-error-code": code, ...headers }, text);
  return azureError(failure, action);
}

const rows: readonly (readonly [number, string, string, boolean | undefined])[] = [
  [404, "BlobNotFound", "ObjectNotFoundError", undefined],
  [404, "ContainerNotFound", "StorageError", false],
  [404, "ResourceNotFound", "StorageError", false],
  [404, "", "StorageError", false],
  [409, "BlobAlreadyExists", "ObjectExistsError", undefined],
  [412, "ConditionNotMet", "ObjectExistsError", undefined],
  [409, "BlobImmutableDueToPolicy", "StorageError", false],
  [409, "BlobArchived", "StorageError", false],
  [401, "InvalidAuthenticationInfo", "StorageAccessError", undefined],
  [403, "AuthenticationFailed", "StorageAccessError", undefined],
  [403, "AuthorizationPermissionMismatch", "StorageAccessError", undefined],
  [403, "SomethingNew", "StorageAccessError", undefined],
  [409, "PublicAccessNotPermitted", "StorageAccessError", undefined],
  [400, "InvalidBlockList", "StorageError", false],
  [400, "Md5Mismatch", "StorageError", true],
  [408, "", "StorageError", true],
  [429, "", "StorageError", true],
  [500, "InternalError", "StorageError", true],
  [500, "OperationTimedOut", "StorageError", true],
  [501, "NotImplemented", "StorageError", false],
  [502, "", "StorageError", true],
  [503, "ServerBusy", "StorageError", true],
  [302, "", "StorageError", false],
];

for (const [status, code, name, isRetryable] of rows) {
  test(`${status} ${code} is ${name}${isRetryable === true ? " to be repeated" : ""}`, () => {
    const error = errorOf(status, code);
    assert.equal(error.name, name);
    assert.equal(error instanceof StorageError ? error.isRetryable : undefined, isRetryable);
  });
}

test("Retry-After is obeyed", () => {
  const error = errorOf(503, "ServerBusy", { "retry-after": "7" });
  assert.ok(error instanceof StorageError);
  assert.equal(error.retryAfterMs, 7000);
});

test("code, message and detail come from the document where no header has them", () => {
  const text =
    '<?xml version="1.0"?><Error><Code>AuthenticationFailed</Code><Message>Server failed.\n' +
    "RequestId:1</Message><AuthenticationErrorDetail>Signature not valid in the specified time " +
    "frame</AuthenticationErrorDetail></Error>";
  const { code, message } = readAzureFailure(403, {}, text);
  assert.equal(code, "AuthenticationFailed");
  assert.equal(message, "Server failed. Signature not valid in the specified time frame");
});

function listing(blobs: string, marker = ""): string {
  return `<?xml version="1.0"?><EnumerationResults ContainerName="c"><Blobs>${blobs}</Blobs>${marker}</EnumerationResults>`;
}

const DATE = "Sat, 21 Nov 2026 10:00:00 GMT";

function blob(name: string, more = ""): string {
  const properties = `<Last-Modified>${DATE}</Last-Modified><Content-Length>5</Content-Length>${more}`;
  return `<Blob>${name}<Properties>${properties}</Properties></Blob>`;
}

test("a page of a list", () => {
  const names = [
    "<Name>a&amp;b&lt;c&#x1F418;&#228;</Name>",
    '<Name Encoded="true">x%EF%BF%BE%25</Name>',
    "<Name> blank </Name>",
  ];
  const text = listing(
    names.map((name) => blob(name)).join(""),
    "<NextMarker>2!8&amp;</NextMarker>",
  );
  assert.deepEqual(parseListing(text), {
    objects: ["a&b<c\u{1f418}ä", "x\ufffe%", " blank "].map((key) => ({
      key,
      sizeBytes: 5,
      modifiedAt: new Date("2026-11-21T10:00:00Z"),
    })),
    marker: "2!8&",
  });
  const directory = blob("<Name>d</Name>", "<ResourceType>directory</ResourceType>");
  assert.deepEqual(parseListing(listing(directory, "<NextMarker />")), { objects: [], marker: "" });
});

const whole = listing(blob("<Name>a</Name>"));
for (const [title, text] of [
  ["empty", ""],
  ["cut off", whole.slice(0, -5)],
  ["of a login page", "<html>log in</html>"],
  ["with a blob without a name", listing(blob(""))],
  ["with a blob without a length", listing("<Blob><Name>a</Name></Blob>")],
] as const) {
  test(`no list: a document ${title}`, () => {
    assert.equal(parseListing(text), undefined);
  });
}

test("50,000 blocks that begin small hold more than Azure does in 5 TiB", () => {
  const context = { transport: { name: "azure://x" }, maxPartBytes: 1024 };
  const limits = azurePartLimits(context, "a");
  const { minBytes, maxCount } = limits;
  const lengthOf = (number: number, firstBytes: number) => limits.lengthOf(number, firstBytes);
  let sizeBytes = 0;
  for (let number = 1; number <= maxCount; number++) sizeBytes += lengthOf(number, minBytes);
  assert.ok(sizeBytes > 5 * 2 ** 40, `${sizeBytes} bytes`);
  assert.equal(lengthOf(1, minBytes), lengthOf(4000, minBytes));
  assert.ok(lengthOf(maxCount, 2 ** 31) <= 4000 * 2 ** 20);
});
