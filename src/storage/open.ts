import type { CallOptions, Storage } from "./storage.ts";

/** A directory on a local or mounted file system. */
export interface DirectoryConfig {
  readonly kind: "directory";
  /** Absolute; it must exist. */
  readonly path: string;
}

/** An S3 bucket and a prefix in it. What is absent is left to the SDK's own sources. */
export interface S3Config {
  readonly kind: "s3";
  readonly bucket: string;
  /** Segments joined by "/", "" for the whole bucket. */
  readonly prefix: string;
  readonly endpoint?: string;
  readonly region?: string;
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  readonly sessionToken?: string;
  readonly profile?: string;
  readonly roleArn?: string;
  readonly roleSessionName?: string;
  readonly isPathStyle: boolean;
  readonly isDualStack: boolean;
  readonly caFile?: string;
  readonly storageClass?: string;
  readonly sse?: string;
  readonly sseKmsKeyId?: string;
  readonly sseCustomerKey?: string;
  readonly maxPartBytes: number;
  readonly useListObjectsV1: boolean;
  readonly deleteBatchSize: number;
}

export type StorageConfig = DirectoryConfig | S3Config;

/** What every opened storage is wrapped with. */
export interface OpenOptions extends CallOptions {
  /** For one request; retries are not counted in. */
  readonly requestTimeoutMs: number;
  /** In all for one call with its retries; absent = the retries' own limit. */
  readonly callTimeoutMs?: number;
  readonly uploadConcurrency: number;
  readonly rateLimitBytesPerSecond?: number;
}

/** Opens the configured store and wraps it: rate limit, deadline, retry. */
export async function openStorage(_config: StorageConfig, _options: OpenOptions): Promise<Storage> {
  throw new Error("being built");
}
