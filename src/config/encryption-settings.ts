import type { Setting } from "./setting.ts";

/** Placeholder */
export const encryptionSettings: readonly Setting[] = [];
