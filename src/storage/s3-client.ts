import { createHash } from "node:crypto";
import { S3Client } from "@aws-sdk/client-s3";
import type { S3ClientConfig } from "@aws-sdk/client-s3";
import type { Clock } from "../io/clock.ts";
import { readCertificates } from "./certificates.ts";
import { HttpSender } from "./http-sender.ts";
import type { S3Config } from "./open.ts";
import type { StoreTraffic } from "./traffic.ts";

export interface S3ClientOptions {
  /** Silence of this length ends a request. */
  readonly requestTimeoutMs: number;
  readonly clock: Clock;
  /** Of the store, if it is shared or counted. */
  readonly traffic?: StoreTraffic | undefined;
}

/** What a bucket without a custom endpoint and without a region is asked in first. */
const DEFAULT_REGION = "us-east-1";

type Credentials = NonNullable<S3ClientConfig["credentials"]>;
type Headers = Readonly<Record<string, string>>;

/** A client of the SDK that never retries, never streams, and sends what the settings ask for. */
export async function openS3Client(config: S3Config, options: S3ClientOptions): Promise<S3Client> {
  const { endpoint } = config;
  const certificates = await readCertificates(config.caFile);
  const requestHandler = new HttpSender({
    timeoutMs: options.requestTimeoutMs,
    clock: options.clock,
    traffic: options.traffic,
    ...(certificates === undefined ? {} : { certificates }),
  });
  const region = config.region ?? (await findRegion(config));
  const credentials = await findCredentials(config, { region, requestHandler });
  const client = new S3Client({
    region,
    requestHandler,
    maxAttempts: 1,
    customUserAgent: "walnut",
    forcePathStyle: config.isPathStyle,
    // Other stores refuse or misread the trailing checksums that the SDK would add of itself.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    expectContinueHeader: false,
    ...(credentials === undefined ? {} : { credentials }),
    ...(config.profile === undefined ? {} : { profile: config.profile }),
    ...(endpoint === undefined
      ? { useDualstackEndpoint: config.isDualStack, followRegionRedirects: true }
      : { endpoint }),
  });
  addContentMd5(client);
  addObjectHeaders(client, config);
  return client;
}

/** The profile's region, if there is one; else the SDK follows where AWS says the bucket is. */
async function findRegion({ endpoint, profile }: S3Config): Promise<string> {
  if (endpoint !== undefined) return DEFAULT_REGION;
  const probe = new S3Client(profile === undefined ? {} : { profile });
  try {
    return await probe.config.region();
  } catch {
    return DEFAULT_REGION;
  } finally {
    probe.destroy();
  }
}

/** Undefined leaves it to the SDK: environment, profile, container and instance roles. */
async function findCredentials(
  config: S3Config,
  clientConfig: { readonly region: string; readonly requestHandler: HttpSender },
): Promise<Credentials | undefined> {
  const { accessKeyId, secretAccessKey, sessionToken, profile, roleArn } = config;
  const keys =
    accessKeyId === undefined || secretAccessKey === undefined
      ? undefined
      : { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) };
  if (roleArn === undefined) return keys;

  const { fromNodeProviderChain, fromTemporaryCredentials } =
    await import("@aws-sdk/credential-providers");
  const chain = fromNodeProviderChain({
    clientConfig,
    ...(profile === undefined ? {} : { profile }),
  });
  return async () => {
    const own = keys ?? (await chain());
    // On Kubernetes AWS_ROLE_ARN belongs to the token file: the chain has assumed that role itself.
    if (isFromTokenFile(own)) return own;
    const RoleSessionName = config.roleSessionName ?? "walnut";
    return await fromTemporaryCredentials({
      masterCredentials: own,
      params: { RoleArn: roleArn, RoleSessionName },
      clientConfig,
    })();
  };
}

/** The SDK notes on credentials which of its sources they came from. */
function isFromTokenFile(credentials: object): boolean {
  const source: unknown = Reflect.get(credentials, "$source");
  return (
    typeof source === "object" && source !== null && "CREDENTIALS_STS_ASSUME_ROLE_WEB_ID" in source
  );
}

/** DeleteObjects must carry a checksum; MD5 is the only one that all stores know. */
function addContentMd5(client: S3Client): void {
  client.middlewareStack.add(
    (next, { commandName }) =>
      async (args) => {
        const { request } = args;
        if (commandName === "DeleteObjectsCommand" && isRequest(request)) {
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

/** Storage class and encryption, as plain headers: stores have values that the SDK knows not of. */
function addObjectHeaders(client: S3Client, config: S3Config): void {
  const creating = creationHeaders(config);
  const customerKey = customerKeyHeaders(config);
  const headersOf: Readonly<Record<string, Headers>> = {
    PutObjectCommand: { ...creating, ...customerKey },
    CreateMultipartUploadCommand: { ...creating, ...customerKey },
    UploadPartCommand: customerKey,
    CompleteMultipartUploadCommand: customerKey,
    GetObjectCommand: customerKey,
    HeadObjectCommand: customerKey,
  };
  client.middlewareStack.add(
    (next, { commandName }) =>
      async (args) => {
        const headers = headersOf[commandName ?? ""];
        if (headers !== undefined) addHeaders(args.request, headers);
        return await next(args);
      },
    { step: "build", name: "walnutObjectHeaders" },
  );
}

function addHeaders(request: unknown, headers: Headers): void {
  if (typeof request !== "object" || request === null || !("headers" in request)) return;
  if (typeof request.headers === "object") Object.assign(request.headers ?? {}, headers);
}

function creationHeaders({ storageClass, sse, sseKmsKeyId }: S3Config): Headers {
  return {
    ...(storageClass === undefined ? {} : { "x-amz-storage-class": storageClass }),
    ...(sse === undefined ? {} : { "x-amz-server-side-encryption": sse }),
    ...(sseKmsKeyId === undefined
      ? {}
      : { "x-amz-server-side-encryption-aws-kms-key-id": sseKmsKeyId }),
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
