/** A container of OpenStack's object store. */
export interface SwiftConfig {
  readonly kind: "swift";
  readonly container: string;
  /** Segments joined by "/", "" for the whole container. */
  readonly prefix: string;
  readonly login: SwiftLogin;
  /** Of the store, where the catalogue names several. */
  readonly region?: string;
  /** Which of the store's endpoints: "public", "internal", "admin". */
  readonly endpointType: string;
  /** The store itself, in place of what the login says. */
  readonly storageUrl?: string;
  readonly caFile?: string;
  /** Length of the segments of large objects; grows with the object. */
  readonly maxPartBytes: number;
}

/** How a token is got. */
export type SwiftLogin =
  | { readonly kind: "v1"; readonly url: string; readonly user: string; readonly key: string }
  /** `body` is what Keystone is asked with: the whole request for a token. */
  | { readonly kind: "v3"; readonly url: string; readonly body: object }
  /** Somebody else got it; it can't be renewed. */
  | { readonly kind: "token"; readonly token: string };
