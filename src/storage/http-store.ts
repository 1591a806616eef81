import type { ProxyConfig } from "./http-proxy.ts";
import type { RepeatOptions } from "./repeat.ts";
import type { StoreTraffic } from "./traffic.ts";

/** What every store by HTTP is opened with. */
export interface HttpStoreOptions extends RepeatOptions {
  /** Silence of this length ends a request. */
  readonly requestTimeoutMs: number;
  readonly proxy?: ProxyConfig | undefined;
  /** Of the store, if it is shared or counted. */
  readonly traffic?: StoreTraffic | undefined;
}
