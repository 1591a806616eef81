/** A bucket of Google Cloud Storage and a prefix in it. */
export interface GcsConfig {
  readonly kind: "gcs";
  readonly bucket: string;
  /** Segments joined by "/", "" for the whole bucket. */
  readonly prefix: string;
  /** "https://storage.googleapis.com" unless given. */
  readonly endpoint?: string;
  /** An emulator takes no credentials. */
  readonly isAnonymous: boolean;
  /** JSON; without it gcloud's own, then the machine's service account. */
  readonly credentialsFile?: string;
  /** "host" or "host:port" of the machine's metadata service, where it is not the usual one. */
  readonly metadataHost?: string;
  /** 32 bytes in base64. */
  readonly encryptionKey?: string;
  /** Length of the pieces of large objects; a multiple of 256 KiB. */
  readonly chunkBytes: number;
}
