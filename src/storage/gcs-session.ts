import type { GcsTransport } from "./gcs-transport.ts";
import type { CallOptions, ObjectKey, SendOptions } from "./storage.ts";

/** How far an upload is. */
export interface SessionState {
  /** What GCS says of the object, if it is complete. */
  readonly text?: string;
  /** How many bytes of it are stored, if it is not. */
  readonly storedBytes: number;
}

export interface ChunkPlace {
  /** Where in the object the bytes begin. */
  readonly startBytes: number;
  /** Of the whole object, if they are its last. */
  readonly end?: { readonly totalBytes: number; readonly crc32c: string } | undefined;
}

/** GCS puts the object in its place before it answers. */
const COMPLETE_PATIENCE = 5;

/**
 * A resumable upload of the JSON API. It needs no right but to create objects, leaves none of its
 * own behind, and ends by itself after a week.
 */
export class UploadSession {
  readonly #transport: GcsTransport;
  readonly #key: ObjectKey;
  readonly #location: URL;

  /** `location` is what GCS said; only its path and query count, so no other host gets anything. */
  constructor(transport: GcsTransport, key: ObjectKey, location: URL) {
    this.#transport = transport;
    this.#key = key;
    this.#location = location;
  }

  async send(
    bytes: Uint8Array,
    { startBytes, end }: ChunkPlace,
    options: SendOptions,
  ): Promise<SessionState> {
    const endBytes = startBytes + bytes.length;
    const range = bytes.length === 0 ? "*" : `${startBytes}-${endBytes - 1}`;
    const headers = {
      "content-range": `bytes ${range}/${end?.totalBytes ?? "*"}`,
      ...(end === undefined ? {} : { "x-goog-hash": `crc32c=${end.crc32c}` }),
    };
    const verb = end === undefined ? "upload a chunk of" : "complete the upload of";
    return await this.#put(
      verb,
      { headers, body: bytes },
      {
        ...options,
        patience: COMPLETE_PATIENCE,
      },
    );
  }

  /** Asks how far it is. */
  async state(totalBytes: number | undefined, options: CallOptions): Promise<SessionState> {
    const headers = { "content-range": `bytes */${totalBytes ?? "*"}` };
    return await this.#put("ask for the upload of", { headers }, options);
  }

  /** Takes away what was sent. */
  async cancel(options: CallOptions): Promise<void> {
    const call = {
      ...this.#place("cancel the upload of"),
      method: "DELETE",
      expected: [499],
    } as const;
    await this.#transport.sendForText(call, options);
  }

  async #put(
    verb: string,
    request: { readonly headers: Readonly<Record<string, string>>; readonly body?: Uint8Array },
    options: SendOptions & { readonly patience?: number },
  ): Promise<SessionState> {
    const call = {
      ...this.#place(verb),
      method: "PUT",
      isKeyed: true,
      // "Resume Incomplete".
      expected: [308],
      ...request,
    } as const;
    const { status, headers, text } = await this.#transport.sendForText(call, options);
    if (status !== 308) return { text, storedBytes: 0 };
    const [, last] = /^bytes=0-(\d+)$/.exec(headers["range"] ?? "") ?? [];
    return { storedBytes: last === undefined ? 0 : Number(last) + 1 };
  }

  #place(verb: string) {
    const { pathname: path, searchParams } = this.#location;
    return { verb, key: this.#key, path, query: Object.fromEntries(searchParams) };
  }
}
