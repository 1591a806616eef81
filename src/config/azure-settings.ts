import { defaulted, setting } from "./setting.ts";
import { bytes, duration, integer, path, secret, text } from "./value-types.ts";

const ANY = { form: "any" } as const;

/** A container of Azure's blob service. */
export const azure = {
  prefix: setting("AZ_PREFIX", text, "Store in Azure: azure://container/folder."),
  account: setting("AZURE_STORAGE_ACCOUNT", text, "Storage account.", ANY),
  accessKey: setting("AZURE_STORAGE_ACCESS_KEY", secret, "Its key.", ANY),
  sasToken: setting(
    "AZURE_STORAGE_SAS_TOKEN",
    secret,
    "Shared access signature with the permissions rcwdl. In a config file, it is read again when the store refuses it.",
    ANY,
  ),
  sasTokenFile: setting(
    "AZURE_STORAGE_SAS_TOKEN_FILE",
    path,
    "File that holds it, which is read again when the store refuses it.",
    ANY,
  ),
  connectionString: setting(
    "AZURE_STORAGE_CONNECTION_STRING",
    secret,
    "Account, key or SAS, and endpoint in one, as Azure's portal shows it.",
    ANY,
  ),
  environmentName: setting(
    "AZURE_ENVIRONMENT_NAME",
    text,
    "Name of the cloud: AzurePublicCloud unless given, AzureUSGovernmentCloud, AzureChinaCloud, AzureGermanCloud.",
    ANY,
  ),
  endpointSuffix: setting(
    "AZURE_ENDPOINT_SUFFIX",
    text,
    "What follows the account and blob in the host's name, for a cloud that has no name: core.windows.net.",
    ANY,
  ),
  caFile: setting("AZURE_CA_CERT_FILE", path, "File of PEM certificates to trust for Azure.", ANY),
  bufferSize: defaulted(
    "AZURE_BUFFER_SIZE",
    bytes(1024),
    "Size of the blocks of large objects, at least 1 MiB; grows with the object so that 50,000 blocks are enough.",
    { ...ANY, default: "8388608", unit: "bytes" },
  ),
  maxBuffers: setting(
    "AZURE_MAX_BUFFERS",
    integer(1, 64),
    "Blocks of one object that are sent at the same time; WALNUT_UPLOAD_CONCURRENCY unless given.",
    ANY,
  ),
  tryTimeout: setting(
    "AZURE_TRY_TIMEOUT",
    duration({ minMs: 0, plainUnit: "m" }),
    "Time limit of a request.",
    {
      ...ANY,
      effect: { kind: "none", reason: "a request ends when nothing is heard for a while" },
    },
  ),
} as const;
