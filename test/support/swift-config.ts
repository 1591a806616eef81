import type { SwiftConfig } from "../../src/storage/swift-config.ts";
import type { S3Server } from "./s3-server.ts";

/** Settings for the test server's native API; `prefix` keeps tests apart. */
export function swiftConfig(
  server: Pick<S3Server, "endpoint" | "bucket" | "accessKeyId" | "secretAccessKey">,
  settings: Partial<SwiftConfig> = {},
): SwiftConfig {
  const { endpoint, bucket, accessKeyId: user, secretAccessKey: key } = server;
  return {
    kind: "swift",
    container: bucket,
    prefix: "",
    login: { kind: "v1", url: `${endpoint}/auth/v1.0`, user, key },
    endpointType: "public",
    maxPartBytes: 20 * 1024 * 1024,
    ...settings,
  };
}
