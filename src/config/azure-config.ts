import { readFile } from "node:fs/promises";
import { ConfigError } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";
import type { AzureConfig } from "../storage/azure-config.ts";
import { azure } from "./azure-settings.ts";
import { readConfigFile } from "./config-file.ts";
import type { FoundSettings } from "./found-settings.ts";
import { settingNames } from "./setting.ts";
import { ENDPOINT_FORM, defined, isHttpUrl, parseStoreUrl } from "./store-url.ts";

interface Cloud {
  readonly suffix: string;
  /** Where it gives tokens; undefined for the SDK's own default. */
  readonly authorityHost?: string;
}

const PUBLIC_CLOUD: Cloud = { suffix: "core.windows.net" };

/** By the names of Azure's older SDKs, which WAL-G uses. */
const CLOUDS: ReadonlyMap<string, Cloud> = new Map([
  ["AZUREPUBLICCLOUD", PUBLIC_CLOUD],
  ["AZURECLOUD", PUBLIC_CLOUD],
  [
    "AZUREUSGOVERNMENTCLOUD",
    { suffix: "core.usgovcloudapi.net", authorityHost: "https://login.microsoftonline.us" },
  ],
  [
    "AZURECHINACLOUD",
    { suffix: "core.chinacloudapi.cn", authorityHost: "https://login.chinacloudapi.cn" },
  ],
  [
    "AZUREGERMANCLOUD",
    { suffix: "core.cloudapi.de", authorityHost: "https://login.microsoftonline.de" },
  ],
]);

/** What UseDevelopmentStorage=true stands for: Azurite's own account, known to everybody. */
const DEVELOPMENT_STORAGE =
  "AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq" +
  "/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1";

/** The store that AZ_PREFIX names. Throws ConfigError. */
export function readAzureConfig(found: FoundSettings): AzureConfig {
  const { bucket: container, folder } = parseStoreUrl(found, azure.prefix);
  const parts = readConnectionString(found);
  const cloud = readCloud(found);
  const account = found.get(azure.account) ?? parts.get("accountname");
  const endpoint = readEndpoint(account, parts, { found, cloud });
  const accessKey = found.get(azure.accessKey) ?? parts.get("accountkey");
  if (accessKey !== undefined) requireBase64(found, accessKey);
  const sasToken = found.get(azure.sasToken) ?? parts.get("sharedaccesssignature");
  const authorityHost = cloud.authorityHost;
  return {
    kind: "azure",
    container,
    prefix: folder,
    account: account ?? "",
    endpoint,
    ...defined("accessKey", accessKey),
    ...defined("sasToken", sasToken),
    ...defined("rereadSasToken", sasReader(found)),
    ...defined("authorityHost", authorityHost),
    ...defined("caFile", found.get(azure.caFile)),
    bufferBytes: found.get(azure.bufferSize),
    ...defined("maxBuffers", found.get(azure.maxBuffers)),
  };
}

function readEndpoint(
  account: string | undefined,
  parts: ReadonlyMap<string, string>,
  { found, cloud }: { readonly found: FoundSettings; readonly cloud: Cloud },
): string {
  const whole = parts.get("blobendpoint");
  if (whole !== undefined) {
    if (!isHttpUrl(whole)) {
      throw new ConfigError(
        `${found.describe(azure.connectionString)} has a BlobEndpoint that is no URL: ${whole}`,
        { hint: ENDPOINT_FORM },
      );
    }
    return whole.replace(/\/+$/, "");
  }
  if (account === undefined) {
    throw new ConfigError(`${found.describe(azure.prefix)} needs a storage account`, {
      hint: "Set AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING.",
    });
  }
  const suffix = found.get(azure.endpointSuffix) ?? parts.get("endpointsuffix") ?? cloud.suffix;
  if (!/^[a-z0-9-]+$/i.test(account) || !/^[a-z0-9.-]+(:\d+)?$/i.test(suffix)) {
    throw new ConfigError(
      `the storage account and the endpoint suffix make no host name: ${account}.blob.${suffix}`,
    );
  }
  const scheme = parts.get("defaultendpointsprotocol") ?? "https";
  return `${scheme === "http" ? "http" : "https"}://${account}.blob.${suffix}`;
}

function readCloud(found: FoundSettings): Cloud {
  const name = found.get(azure.environmentName);
  if (name === undefined) return PUBLIC_CLOUD;
  const cloud = CLOUDS.get(name.toUpperCase());
  if (cloud !== undefined) return cloud;
  // WAL-G takes any name and the public cloud for those that it does not know.
  throw new ConfigError(`${found.describe(azure.environmentName)} is no cloud: ${name}`, {
    hint: "For a cloud of your own, set AZURE_ENDPOINT_SUFFIX or AZURE_STORAGE_CONNECTION_STRING.",
  });
}

/** By lower-case names; empty without a connection string. */
function readConnectionString(found: FoundSettings): ReadonlyMap<string, string> {
  const given = (found.get(azure.connectionString) ?? "").trim();
  const text = given
    .split(";")
    .some((part) => /^\s*UseDevelopmentStorage\s*=\s*true\s*$/i.test(part))
    ? DEVELOPMENT_STORAGE
    : given;
  const parts = new Map<string, string>();
  for (const part of text.split(";")) {
    if (part.trim() === "") continue;
    const [, name, value] = /^\s*([A-Za-z]+)\s*=(.*)$/.exec(part) ?? [];
    if (name === undefined || value === undefined) {
      throw new ConfigError(`${found.describe(azure.connectionString)} is no connection string`, {
        hint: 'It has the form "AccountName=...;AccountKey=...;EndpointSuffix=core.windows.net".',
      });
    }
    if (value.trim() !== "") parts.set(name.toLowerCase(), value.trim());
  }
  return parts;
}

function requireBase64(found: FoundSettings, key: string): void {
  if (/^[A-Za-z0-9+/]+={0,2}$/.test(key)) return;
  const setting =
    found.get(azure.accessKey) === undefined ? azure.connectionString : azure.accessKey;
  throw new ConfigError(`${found.describe(setting)} has an account key that is not base64`, {
    hint: "Copy the key as the portal shows it, with its trailing = characters.",
  });
}

/** Reads the SAS from its file again; undefined for one whose place does not change. */
function sasReader(found: FoundSettings): (() => Promise<string | undefined>) | undefined {
  const path = found.get(azure.sasTokenFile);
  if (path !== undefined) {
    return async () => {
      try {
        return (await readFile(path, "utf8")).trim();
      } catch (error) {
        throw localFileError("read the SAS token in", path, error);
      }
    };
  }
  const { configFile } = found.beside;
  if (configFile === undefined || found.origin(azure.sasToken)?.source !== configFile) {
    return undefined;
  }
  return async () => {
    const { values } = await readConfigFile(configFile);
    const name = settingNames(azure.sasToken).find((one) => (values.get(one) ?? "") !== "");
    return name === undefined ? undefined : values.get(name);
  };
}
