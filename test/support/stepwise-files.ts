import { AsyncLocalStorage } from "node:async_hooks";
import { createRequire } from "node:module";

/** A process that is killed at one of its steps: at any call that changes the file system. */
interface StepwiseRun {
  readonly dieAt: number;
  readonly onDeath: () => void;
  count: number;
}

const CHANGES = [
  "chmod",
  "link",
  "mkdir",
  "open",
  "rename",
  "rm",
  "symlink",
  "unlink",
  "writeFile",
];
const SYNC_CHANGES = ["openSync", "mkdirSync", "writeSync", "fchmodSync", "ftruncateSync"];

/** The dead close nothing, and a handle that is collected open is an error. */
const handles: unknown[] = [];
const runs = new AsyncLocalStorage<StepwiseRun>();

/** How a run ended: by itself, after so many steps, or killed at one. */
export type StepwiseEnd =
  | { readonly kind: "ended"; readonly steps: number }
  | { readonly kind: "failed"; readonly error: unknown }
  | { readonly kind: "killed" };

/**
 * Runs `work` as a process that a kill -9 hits at its step `dieAt` (from 1 on): this one and all
 * later changes of the file system never happen, of a write its first half does. Needs
 * `hookFiles` before the modules that work with files are loaded.
 */
export async function runUntilStep(
  dieAt: number,
  work: () => Promise<unknown>,
): Promise<StepwiseEnd> {
  const death = Promise.withResolvers<StepwiseEnd>();
  const onDeath = (): void => death.resolve({ kind: "killed" });
  const run: StepwiseRun = { dieAt, onDeath, count: 0 };
  const life = runs.run(run, async (): Promise<StepwiseEnd> => {
    try {
      await work();
      return { kind: "ended", steps: run.count };
    } catch (error) {
      return run.count >= dieAt ? { kind: "killed" } : { kind: "failed", error };
    }
  });
  return await Promise.race([life, death.promise]);
}

/** Puts itself between this process and its file system. */
export function hookFiles(): void {
  const require = createRequire(import.meta.url);
  for (const name of CHANGES) hook(require("node:fs/promises"), name, hookedCall);
  for (const name of SYNC_CHANGES) hook(require("node:fs"), name, hookedSyncCall);
}

type Call = (...args: unknown[]) => unknown;
type Hook = (name: string, real: Call, isDead: () => boolean) => Call;

function hook(target: unknown, name: string, hooked: Hook): void {
  if (typeof target !== "object" || target === null) throw new TypeError(`no place for ${name}`);
  const real: unknown = Reflect.get(target, name);
  if (typeof real !== "function") throw new TypeError(`no function ${name}`);
  const call: Call = (...args) => Reflect.apply(real, target, args);
  Reflect.set(target, name, hooked(name, call, takeStep));
}

/** Whether the process is dead at this step. */
function takeStep(): boolean {
  const run = runs.getStore();
  if (run === undefined) return false;
  run.count += 1;
  if (run.count >= run.dieAt) run.onDeath();
  return run.count >= run.dieAt;
}

const forever = (): Promise<never> => new Promise(() => {});

function hookedCall(name: string, real: Call, isDead: () => boolean): Call {
  return async (...args) => {
    const isReading = name === "open" && (args[1] === undefined || args[1] === "r");
    if (!isReading && isDead()) return await forever();
    const result: unknown = await real(...args);
    if (name === "open") hookHandle(result, isDead);
    if (name === "open") handles.push(result);
    return result;
  };
}

function hookHandle(handle: unknown, isDead: () => boolean): void {
  hook(handle, "write", (_, real) => async (...args) => {
    if (!isDead()) return await real(...args);
    await real(...halfOf(args));
    return await forever();
  });
  hook(
    handle,
    "sync",
    (_, real) =>
      async (...args) =>
        isDead() ? await forever() : await real(...args),
  );
}

/** Of (bytes, offset, length). */
function halfOf([bytes, offset, length]: readonly unknown[]): unknown[] {
  return [bytes, offset, Math.floor(Number(length) / 2)];
}

function hookedSyncCall(name: string, real: Call, isDead: () => boolean): Call {
  return (...args) => {
    if (!isDead()) return real(...args);
    throw new Error(`killed at ${name}`);
  };
}
