import { StorageError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import type { Clock } from "../io/clock.ts";
import { SftpSession } from "./sftp-session.ts";
import type { SftpConnection } from "./sftp-connection.ts";

export interface SftpPoolOptions {
  readonly clock: Clock;
  connect(options: { readonly signal: AbortSignal }): Promise<SftpConnection>;
  /** Called with each new connection, before anything else uses it; must not fail. */
  onConnected(session: SftpSession): void;
}

/** A session for as long as it is not disposed of; others may use it at the same time. */
export interface SftpLease extends Disposable {
  readonly session: SftpSession;
}

interface Slot {
  readonly session: Promise<SftpSession>;
  leaseCount: number;
  idleSinceMs: number;
}

/** One core is busy with two or three of them; servers limit how many log in at the same time. */
const MAX_CONNECTIONS = 4;
/** Firewalls forget idle connections, and then the next request would wait for its time-out. */
const MAX_IDLE_MS = 50_000;

/** The connections of one store: made when they are needed, shared, and made again after a cut. */
export class SftpPool {
  readonly #options: SftpPoolOptions;
  readonly #ended = new AbortController();
  readonly #slots = new Set<Slot>();

  constructor(options: SftpPoolOptions) {
    this.#options = options;
  }

  async lease({ signal }: { readonly signal: AbortSignal }): Promise<SftpLease> {
    for (;;) {
      signal.throwIfAborted();
      this.#ended.signal.throwIfAborted();
      const slot = this.#takeSlot();
      slot.leaseCount++;
      const release = () => {
        slot.leaseCount--;
        slot.idleSinceMs = this.#options.clock.monotonicMs();
      };
      try {
        const session = await untilAborted(slot.session, signal);
        if (!session.connection.broken.aborted) return { session, [Symbol.dispose]: release };
      } catch (error) {
        release();
        throw error;
      }
      release();
      this.#slots.delete(slot);
    }
  }

  close(): void {
    const reason = new StorageError("the store was closed", { isRetryable: false });
    this.#ended.abort(reason);
    for (const { session } of this.#slots) {
      session.then(({ connection }) => connection.close(reason)).catch(() => {});
    }
    this.#slots.clear();
  }

  #takeSlot(): Slot {
    this.#endIdle();
    const [best] = [...this.#slots].toSorted((a, b) => a.leaseCount - b.leaseCount);
    const isSpare = best !== undefined && best.leaseCount === 0;
    if (isSpare || (best !== undefined && this.#slots.size >= MAX_CONNECTIONS)) return best;

    const slot: Slot = { session: this.#connect(), leaseCount: 0, idleSinceMs: 0 };
    this.#slots.add(slot);
    slot.session.then(
      ({ connection }) =>
        connection.broken.addEventListener("abort", () => this.#slots.delete(slot)),
      () => this.#slots.delete(slot),
    );
    return slot;
  }

  async #connect(): Promise<SftpSession> {
    const session = new SftpSession(await this.#options.connect({ signal: this.#ended.signal }));
    if (this.#ended.signal.aborted) session.connection.close(this.#ended.signal.reason);
    else this.#options.onConnected(session);
    return session;
  }

  #endIdle(): void {
    const nowMs = this.#options.clock.monotonicMs();
    for (const slot of this.#slots) {
      if (slot.leaseCount > 0 || nowMs - slot.idleSinceMs < MAX_IDLE_MS) continue;
      this.#slots.delete(slot);
      slot.session.then(({ connection }) => connection.close()).catch(() => {});
    }
  }
}
