import { createHash } from "node:crypto";
import type { S3Client } from "@aws-sdk/client-s3";
import type { Clock } from "../io/clock.ts";
import type { S3Config } from "./open.ts";

type Headers = Readonly<Record<string, string>>;

/** Requests that say how an object is to be kept. */
const CREATING: ReadonlySet<string> = new Set(["PutObjectCommand", "CreateMultipartUploadCommand"]);
/** Requests that a store answers only with the customer's own key of an object. */
const KEYED: ReadonlySet<string> = new Set([
  ...CREATING,
  "UploadPartCommand",
  "CompleteMultipartUploadCommand",
  "GetObjectCommand",
  "HeadObjectCommand",
]);
const DELETING = "DeleteObjectsCommand";

/** Adds to each request what the settings ask for; before it is signed. */
export function addSettingHeaders(client: S3Client, config: S3Config, clock: Clock): void {
  const everywhere = {
    ...config.requestHeaders,
    ...(config.isRequesterPays === true ? { "x-amz-request-payer": "requester" } : {}),
  };
  const creating = creationHeaders(config);
  const customerKey = customerKeyHeaders(config);
  client.middlewareStack.add(
    (next, { commandName = "" }) =>
      async (args) => {
        addHeaders(args.request, {
          ...everywhere,
          ...(CREATING.has(commandName) ? { ...creating, ...lockHeaders(config, clock) } : {}),
          ...(KEYED.has(commandName) ? customerKey : {}),
        });
        return await next(args);
      },
    { step: "build", name: "walnutSettingHeaders" },
  );
  addContentMd5(client, config);
}

function addHeaders(request: unknown, headers: Headers): void {
  if (typeof request !== "object" || request === null || !("headers" in request)) return;
  if (typeof request.headers === "object") Object.assign(request.headers ?? {}, headers);
}

/** Plain headers: stores have values that the SDK knows not of. */
function creationHeaders({ storageClass, sse, sseKmsKeyId, tags }: S3Config): Headers {
  return {
    ...(storageClass === undefined ? {} : { "x-amz-storage-class": storageClass }),
    ...(sse === undefined ? {} : { "x-amz-server-side-encryption": sse }),
    ...(sseKmsKeyId === undefined
      ? {}
      : { "x-amz-server-side-encryption-aws-kms-key-id": sseKmsKeyId }),
    ...(tags === undefined ? {} : { "x-amz-tagging": tags }),
  };
}

function lockHeaders({ lock }: S3Config, clock: Clock): Headers {
  if (lock === undefined) return {};
  const until = new Date(clock.now() + lock.periodSeconds * 1000);
  return {
    "x-amz-object-lock-mode": lock.mode,
    "x-amz-object-lock-retain-until-date": until.toISOString(),
  };
}

/** The key is given as its 32 bytes, or in base64. */
function customerKeyHeaders({ sseCustomerKey }: S3Config): Headers {
  if (sseCustomerKey === undefined) return {};
  const decoded = Buffer.from(sseCustomerKey, "base64");
  const key = decoded.length === 32 ? decoded : Buffer.from(sseCustomerKey);
  const prefix = "x-amz-server-side-encryption-customer";
  return {
    [`${prefix}-algorithm`]: "AES256",
    [`${prefix}-key`]: key.toString("base64"),
    [`${prefix}-key-md5`]: createHash("md5").update(key).digest("base64"),
  };
}

/**
 * Batches of deletes and, under a lock, bodies of objects must carry a checksum; MD5 is the only
 * one that all stores know.
 */
function addContentMd5(client: S3Client, { lock }: S3Config): void {
  const summed =
    lock === undefined ? [DELETING] : [DELETING, "PutObjectCommand", "UploadPartCommand"];
  client.middlewareStack.add(
    (next, { commandName = "" }) =>
      async (args) => {
        const { request } = args;
        if (summed.includes(commandName) && isRequest(request)) {
          for (const name of Object.keys(request.headers)) {
            if (/^x-amz-(sdk-)?checksum/i.test(name)) delete request.headers[name];
          }
          const hash = createHash("md5").update(request.body);
          request.headers["content-md5"] = hash.digest("base64");
        }
        return await next(args);
      },
    { step: "build", priority: "low", name: "walnutContentMd5" },
  );
}

function isRequest(
  request: unknown,
): request is { readonly headers: Record<string, string>; readonly body: string | Uint8Array } {
  if (typeof request !== "object" || request === null) return false;
  if (!("headers" in request) || !("body" in request)) return false;
  const { body } = request;
  return typeof body === "string" || body instanceof Uint8Array;
}
