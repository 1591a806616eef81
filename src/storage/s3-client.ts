import { S3Client } from "@aws-sdk/client-s3";
import type { Clock } from "../io/clock.ts";
import { readCertificates } from "./certificates.ts";
import type { ProxyConfig } from "./http-proxy.ts";
import { HttpSender } from "./http-sender.ts";
import type { S3Config } from "./open.ts";
import { findCredentials } from "./s3-credentials.ts";
import { addSettingHeaders } from "./s3-headers.ts";
import type { StoreTraffic } from "./traffic.ts";

export interface S3ClientOptions {
  /** Silence of this length ends a request. */
  readonly requestTimeoutMs: number;
  readonly clock: Clock;
  readonly proxy?: ProxyConfig | undefined;
  /** Of the store, if it is shared or counted. */
  readonly traffic?: StoreTraffic | undefined;
}

/** What a bucket without a custom endpoint and without a region is asked in first. */
const DEFAULT_REGION = "us-east-1";

/** A client of the SDK that never retries, never streams, and sends what the settings ask for. */
export async function openS3Client(config: S3Config, options: S3ClientOptions): Promise<S3Client> {
  const { endpoint } = config;
  const certificates = await readCertificates(config.caFile, "S3_CA_CERT_FILE");
  const requestHandler = new HttpSender({
    timeoutMs: options.requestTimeoutMs,
    clock: options.clock,
    proxy: options.proxy,
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
  addSettingHeaders(client, config, options.clock);
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
