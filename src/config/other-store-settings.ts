import type { Setting } from "./setting.ts";

/** Prefixes of the stores that are known but not built. */
export const otherStorePrefixes: readonly Setting[] = [];

/** Settings of the stores that are known but not built. */
export const otherStoreSettings: readonly Setting[] = [...otherStorePrefixes];
