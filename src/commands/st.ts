import { ALL_STORAGES, DEFAULT_STORAGE } from "../config/failover-settings.ts";
import { ObjectNotFoundError, OperationError, StorageError, UsageError } from "../errors.ts";
import type { Command, Context, Flag, Words } from "./command.ts";
import { inStorage } from "./context.ts";
import type { Program } from "./index.ts";
import { storageNames } from "./storage-choice.ts";

/** One tool of `st`: what it does with the words behind its name. */
export type StorageTool = (words: Words, context: Context, program: ToolProgram) => Promise<void>;

export type ToolProgram = Pick<Program, "configureFile">;

interface ToolArguments {
  readonly words: Words;
  readonly tool: () => Promise<StorageTool>;
  /** The storage that is looked at, or "all". */
  readonly target: string;
  /** Whether "all" means each by itself, and not what they are together. */
  readonly isForEach: boolean;
}

const FOR_EACH: ReadonlySet<string> = new Set(["put", "rm", "check"]);
/** They say themselves between which storages. */
const FOR_NONE: ReadonlySet<string> = new Set(["copy", "transfer", "diff", "sync"]);

/** Loaded when they run. */
const TOOLS: ReadonlyMap<string, () => Promise<StorageTool>> = new Map([
  ["ls", async () => (await import("./st-list.ts")).listTool],
  ["stat", async () => (await import("./st-list.ts")).statTool],
  ["cat", async () => (await import("./st-objects.ts")).catTool],
  ["get", async () => (await import("./st-objects.ts")).getTool],
  ["put", async () => (await import("./st-objects.ts")).putTool],
  ["rm", async () => (await import("./st-objects.ts")).removeTool],
  ["check", async () => (await import("./st-check.ts")).checkTool],
  ["copy", async () => (await import("./st-transfer.ts")).copyTool],
  ["transfer", async () => (await import("./st-transfer.ts")).transferTool],
  ["diff", async () => (await import("./st-diff.ts")).diffTool],
  ["sync", async () => (await import("./st-diff.ts")).syncTool],
]);

const FLAGS: readonly Flag[] = [
  { name: "target", short: "t", value: "<name>", text: "The storage: default, a name, or all." },
  { name: "recursive", short: "r", text: "For ls: objects in all folders below." },
  { name: "glob", short: "g", text: "For ls: the path is a pattern with *, ? and [...]." },
  { name: "all-versions", text: "For ls: accepted; only the newest versions are shown." },
  { name: "decrypt", short: "d", text: "For cat: decrypt; copy: read decrypted." },
  { name: "decompress", text: "For cat: decompress by the extension." },
  { name: "no-decrypt", text: "For get: leave the object encrypted." },
  { name: "no-decompress", text: "For get: leave the object compressed." },
  { name: "no-compress", text: "For put: store the bytes as they are." },
  { name: "no-encrypt", text: "For put: do not encrypt." },
  { name: "force", short: "f", text: "For put: replace an object that is there." },
  { name: "read-stdin", short: "s", text: "For put: the content comes from standard input." },
  { name: "from", value: "<config>", text: "For copy: configuration of the source." },
  { name: "to", value: "<config>", text: "For copy: configuration of the target." },
  { name: "prefix", short: "p", value: "<path>", text: "For copy: only what lies there." },
  { name: "encrypt", short: "e", text: "For copy: write encrypted." },
  { name: "source", value: "<name>", text: "For transfer: the storage to take from." },
  { name: "overwrite", short: "o", text: "For transfer: replace what is there." },
  { name: "preserve", text: "For transfer: copy, do not move." },
  { name: "fail-fast", text: "For transfer: stop at the first failure." },
  {
    name: "concurrency",
    short: "c",
    value: "<count>",
    text: "For transfer: at the same time, 10.",
  },
  { name: "max-files", short: "m", value: "<count>", text: "For transfer: no more than so many." },
  { name: "max-backups", value: "<count>", text: "For transfer backups: no more than so many." },
  { name: "appearance-checks", value: "<count>", text: "For transfer: looks at the target, 3." },
  {
    name: "appearance-checks-interval",
    value: "<duration>",
    text: "For transfer: between two of them, 1s.",
  },
  { name: "content", text: "For diff and sync: compare all bytes, not names and sizes only." },
  { name: "restore", text: "For sync: bring back what only a mirror has." },
];

/** `walnut st` */
export function storageTools(program: ToolProgram): Command<ToolArguments> {
  return {
    name: "st",
    usage:
      "st ls [path] | stat <path> | cat <path> | get <path> <file> | put <file> <path> | rm <path> | " +
      "check read|write [path...] | copy --from <config> --to <config> | transfer files|backups|pg-wals | " +
      "diff | sync",
    summary: "Look at the store itself: its objects as they are.",
    details:
      "Paths are keys below the configured prefix; a slash in front or behind means nothing. get and " +
      "put decode and encode by the extension and by the configured key; cat does so only if asked. " +
      "rm takes an object or a folder with all in it, at once and without asking. diff proves that " +
      "each mirror (WALNUT_MIRROR) has what the first store has; sync makes it so, and puts a whole " +
      "object in the place of a damaged one in either of them.",
    flags: FLAGS,
    needsConfig: true,

    parse(words) {
      const [name = "", ...positionals] = words.positionals;
      const tool = TOOLS.get(name);
      if (tool === undefined) {
        throw new UsageError(name === "" ? "the tool is missing" : `st has no tool ${name}`, {
          hint: `Write st ${[...TOOLS.keys()].join(", st ")}.`,
        });
      }
      const rest: Words = {
        positionals,
        has: (flag) => words.has(flag),
        value: (flag) => words.value(flag),
        values: (flag) => words.values(flag),
      };
      const target = FOR_NONE.has(name) ? ALL_STORAGES : (words.value("target") ?? DEFAULT_STORAGE);
      return { tool, words: rest, target, isForEach: FOR_EACH.has(name) };
    },

    async run({ tool, words, target, isForEach }, context) {
      const run = await tool();
      const isEach = isForEach && target === ALL_STORAGES;
      if (isEach && words.has("read-stdin") && storageNames(context.config).length > 1) {
        throw new UsageError("--read-stdin has one content for one storage, not for all");
      }
      const targets = isEach ? storageNames(context.config) : [target];
      const failures: Failure[] = [];
      for (const name of targets) {
        const one = inStorage(context, name);
        const write = async (text: string) => await context.write(`${name}: ${text}`);
        try {
          await run(words, isEach ? { ...one, write } : one, program);
        } catch (error) {
          if (!(error instanceof OperationError) || targets.length === 1) throw error;
          failures.push({ name, error });
        }
      }
      requireEach(failures, targets.length);
    },
  };
}

interface Failure {
  readonly name: string;
  readonly error: OperationError;
}

/** What one of several storages has is there; one that does not answer has failed. */
function requireEach(failures: readonly Failure[], count: number): void {
  const missing = failures.filter(({ error }) => error instanceof ObjectNotFoundError);
  if (missing.length === count) throw missing[0]?.error;
  const failed = failures.filter((one) => !missing.includes(one));
  const [first] = failed;
  if (first === undefined) return;
  const reasons = failed.map(({ name, error }) => `${name}: ${error.message}`);
  const { hint } = first.error;
  throw new StorageError(`${failed.length} of ${count} storages failed: ${reasons.join("; ")}`, {
    isRetryable: false,
    ...(hint === undefined ? {} : { hint }),
    cause: first.error,
  });
}
