import type { S3Client, S3ClientConfig } from "@aws-sdk/client-s3";
import type { S3Config } from "./open.ts";

type Credentials = NonNullable<S3ClientConfig["credentials"]>;

/** How those who give credentials are asked. */
interface CredentialClientConfig {
  readonly region: string;
  readonly requestHandler: S3Client["config"]["requestHandler"];
}

/** Undefined leaves it to the SDK: environment, profile, container and instance roles. */
export async function findCredentials(
  config: S3Config,
  clientConfig: CredentialClientConfig,
): Promise<Credentials | undefined> {
  const { accessKeyId, secretAccessKey, sessionToken, roleArn } = config;
  const keys =
    accessKeyId === undefined || secretAccessKey === undefined
      ? undefined
      : { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) };
  if (roleArn === undefined) return keys;

  const { fromTemporaryCredentials } = await import("@aws-sdk/credential-providers");
  const chain = await openChain(config, clientConfig);
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

/** Files are read as they are now: the SDK would remember what they held. */
async function openChain({ profile }: S3Config, clientConfig: CredentialClientConfig) {
  const { fromNodeProviderChain } = await import("@aws-sdk/credential-providers");
  const chosen = profile === undefined ? {} : { profile };
  return fromNodeProviderChain({ clientConfig, ignoreCache: true, ...chosen });
}

/**
 * Looks for credentials anew, past all that the client remembers; undefined where the settings hold
 * them, which only a new start reads again.
 */
export async function rereadCredentials(
  client: S3Client,
  config: S3Config,
): Promise<Credentials | undefined> {
  if (config.accessKeyId !== undefined) return undefined;
  const region = await client.config.region();
  const clientConfig = { region, requestHandler: client.config.requestHandler };
  return (await findCredentials(config, clientConfig)) ?? (await openChain(config, clientConfig));
}

/** The SDK notes on credentials which of its sources they came from. */
function isFromTokenFile(credentials: object): boolean {
  const source: unknown = Reflect.get(credentials, "$source");
  return (
    typeof source === "object" && source !== null && "CREDENTIALS_STS_ASSUME_ROLE_WEB_ID" in source
  );
}
