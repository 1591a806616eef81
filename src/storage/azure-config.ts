/** A container and a prefix in it. Without key and SAS, an identity of the machine is used. */
export interface AzureConfig {
  readonly kind: "azure";
  readonly container: string;
  /** Segments joined by "/", "" for the whole container. */
  readonly prefix: string;
  readonly account: string;
  /** "https://account.blob.core.windows.net", or with the account in the path. */
  readonly endpoint: string;
  /** In base64. */
  readonly accessKey?: string;
  readonly sasToken?: string;
  /** Reads the SAS again from the file that it came from: undefined if it is not there now. */
  readonly rereadSasToken?: () => Promise<string | undefined>;
  /** Where tokens are given in a cloud that is not the public one. */
  readonly authorityHost?: string;
  readonly caFile?: string;
  /** Length of blocks. */
  readonly bufferBytes: number;
  /** Blocks of one object that are sent at the same time. */
  readonly maxBuffers?: number;
}
