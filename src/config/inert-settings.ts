import type { Setting } from "./setting.ts";

/** Placeholder */
export const inertSettings: readonly Setting[] = [];
