import type { S3Config } from "../../src/storage/open.ts";
import type { S3Server } from "./s3-server.ts";

/** Settings for a test server, as config/ would make them; `prefix` keeps tests apart. */
export function s3Config(
  server: Pick<S3Server, "endpoint" | "bucket" | "accessKeyId" | "secretAccessKey">,
  settings: Partial<S3Config> = {},
): S3Config {
  const { endpoint, bucket, accessKeyId, secretAccessKey } = server;
  return {
    kind: "s3",
    bucket,
    prefix: "",
    endpoint,
    accessKeyId,
    secretAccessKey,
    isPathStyle: true,
    isDualStack: false,
    maxPartBytes: 20 * 1024 * 1024,
    useListObjectsV1: false,
    deleteBatchSize: 1000,
    ...settings,
  };
}
