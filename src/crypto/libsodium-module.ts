/** crypto_secretstream_xchacha20poly1305_STATEBYTES and _ABYTES */
const STATE_BYTES = 52;
export const OVERHEAD_BYTES = 17;

export const TAG_MESSAGE = 0;
export const TAG_FINAL = 3;

type Native = (...args: number[]) => number;

/** The functions of libsodium that we use; numbers are addresses in its memory. */
interface SodiumModule {
  /** Another object whenever the memory has grown. */
  readonly HEAPU8: Uint8Array;
  readonly malloc: Native;
  readonly free: Native;
  readonly initPull: Native;
  readonly push: Native;
  readonly pull: Native;
}

/**
 * libsodium compiled to WebAssembly. Loading it takes some 25 ms, so only what needs it may. Its
 * wrappers make three buffers a message, so they are passed by.
 */
export async function loadSodium(): Promise<Sodium> {
  const wrappers = await import("libsodium-wrappers");
  await wrappers.ready;
  const exported: object = "default" in wrappers ? Object(wrappers.default) : wrappers;
  const raw: unknown = "libsodium" in exported ? exported.libsodium : undefined;
  if (typeof raw !== "object" || raw === null) throw new Error("libsodium has no raw functions");
  return new Sodium(nativeModule(raw));
}

function nativeModule(raw: object): SodiumModule {
  const members = new Map<string, unknown>(Object.entries(raw));
  const native = (name: string): Native => {
    const found = members.get(name);
    if (typeof found !== "function") throw new Error(`libsodium has no function ${name}`);
    return (...args) => Number(found(...args));
  };
  return {
    get HEAPU8() {
      const heap: unknown = "HEAPU8" in raw ? raw.HEAPU8 : undefined;
      if (!(heap instanceof Uint8Array)) throw new Error("libsodium has no memory");
      return heap;
    },
    malloc: native("_malloc"),
    free: native("_free"),
    initPull: native("_crypto_secretstream_xchacha20poly1305_init_pull"),
    push: native("_crypto_secretstream_xchacha20poly1305_push"),
    pull: native("_crypto_secretstream_xchacha20poly1305_pull"),
  };
}

/** Makes streams; one for all objects of a run. */
export class Sodium {
  readonly #module: SodiumModule;

  constructor(module: SodiumModule) {
    this.#module = module;
  }

  /**
   * The state of one stream, in either direction: what init_push makes of a random header and
   * init_pull makes of the same one are alike, so that the header may be chosen.
   *
   * @source crypto_secretstream_xchacha20poly1305_init_push, _init_pull in libsodium
   */
  stream(header: Uint8Array, key: Uint8Array, messageBytes: number): SecretStream {
    return new SecretStream(this.#module, { header, key, messageBytes });
  }
}

/** One stream; messages are of at most the length that it was made for. */
export class SecretStream implements Disposable {
  readonly #module: SodiumModule;
  readonly #state: number;
  readonly #plain: number;
  readonly #sealed: number;
  readonly #tag: number;

  constructor(
    module: SodiumModule,
    { header, key, messageBytes }: { header: Uint8Array; key: Uint8Array; messageBytes: number },
  ) {
    this.#module = module;
    this.#state = module.malloc(STATE_BYTES);
    this.#plain = module.malloc(messageBytes);
    this.#sealed = module.malloc(messageBytes + OVERHEAD_BYTES);
    this.#tag = module.malloc(8);
    module.HEAPU8.set(header, this.#sealed);
    module.HEAPU8.set(key, this.#plain);
    module.initPull(this.#state, this.#sealed, this.#plain);
    module.HEAPU8.fill(0, this.#plain, this.#plain + key.length);
  }

  /** Writes the sealed message, OVERHEAD_BYTES longer, to `target`. */
  push(message: Uint8Array, tag: number, target: Uint8Array): void {
    this.#module.HEAPU8.set(message, this.#plain);
    // Lengths are 64 bits in two words.
    this.#module.push(this.#state, this.#sealed, 0, this.#plain, message.length, 0, 0, 0, 0, tag);
    const end = this.#sealed + message.length + OVERHEAD_BYTES;
    target.set(this.#module.HEAPU8.subarray(this.#sealed, end));
  }

  /** Writes the message to `target` and gives its tag; undefined when it is not authentic. */
  pull(sealed: Uint8Array, target: Uint8Array): number | undefined {
    const { HEAPU8 } = this.#module;
    HEAPU8.set(sealed, this.#sealed);
    const result = this.#module.pull(
      this.#state,
      this.#plain,
      0,
      this.#tag,
      this.#sealed,
      sealed.length,
      0,
      0,
      0,
      0,
    );
    if (result !== 0) return undefined;
    const end = this.#plain + sealed.length - OVERHEAD_BYTES;
    target.set(this.#module.HEAPU8.subarray(this.#plain, end));
    return this.#module.HEAPU8[this.#tag];
  }

  [Symbol.dispose](): void {
    this.#module.HEAPU8.fill(0, this.#state, this.#state + STATE_BYTES);
    for (const address of [this.#state, this.#plain, this.#sealed, this.#tag]) {
      this.#module.free(address);
    }
  }
}
