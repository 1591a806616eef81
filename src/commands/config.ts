import { randomUUID } from "node:crypto";
import type { FoundSettings } from "../config/found-settings.ts";
import { type Setting, isSecretText, preferredName } from "../config/setting.ts";
import { allSettings } from "../config/settings.ts";
import { StorageError, UsageError } from "../errors.ts";
import { bytesSource, readAll } from "../io/bytes.ts";
import { silentLog } from "../io/log.ts";
import { createMask } from "../io/mask.ts";
import type { Storage } from "../storage/storage.ts";
import { removeCheckObject } from "./check-object.ts";
import type { Command, Context } from "./command.ts";
import { createContext, inStorage } from "./context.ts";
import { usedStorages } from "./storage-choice.ts";
import type { Program } from "./index.ts";
import { requirePositionals } from "./words.ts";

interface ConfigArguments {
  readonly isCheck: boolean;
  readonly isJson: boolean;
}

/** One setting with a value, as `config --json` prints it. */
interface EffectiveSetting {
  /** As it was written, or the name to write it by. */
  readonly name: string;
  readonly value: string;
  /** "default", "the command line", "the environment", or the path of a file. */
  readonly origin: string;
  /** Why the value changes nothing, or is refused. */
  readonly note?: string;
}

/** `walnut config`: every effective setting with its origin, and whether they fit together. */
export function configCommand(
  program: Pick<Program, "settings" | "configure">,
): Command<ConfigArguments> {
  return {
    name: "config",
    usage: "config [check]",
    summary: "Print every effective setting and where it comes from; check the store.",
    details:
      "Secrets are shown as ***. When a setting is wrong, this follows on standard error, and " +
      "the exit code is that of other commands.\n\n" +
      "`config check` also writes, reads, lists and deletes a small object under a random name. " +
      "Run it as the user, and with the environment, of the PostgreSQL server.",
    flags: [{ name: "json", text: "Print a JSON array instead of lines." }],
    needsConfig: false,

    parse(words) {
      const [subject] = requirePositionals(words, ["check"], 1);
      if (subject !== undefined && subject !== "check") {
        throw new UsageError(`unknown argument ${JSON.stringify(subject)}`, {
          hint: "It is `config` or `config check`.",
        });
      }
      return { isCheck: subject === "check", isJson: words.has("json") };
    },

    async run({ isCheck, isJson }, context) {
      const found = await program.settings();
      const effective = effectiveSettings(found);
      await context.write(
        isJson ? `${JSON.stringify(effective, undefined, 2)}\n` : formatLines(effective),
      );
      const config = program.configure(found);
      if (!isCheck) return;

      const checked = createContext({ ...context, config });
      const names = usedStorages(config);
      for (const name of names) {
        const one = names.length > 1 ? inStorage(checked, name) : checked;
        await using storage = await one.openStorage("check");
        const isRemoving = await checkStorage(storage, context);
        const does = isRemoving ? "takes, gives, lists and deletes" : "takes, gives and lists";
        context.log.info(`the store ${does} objects`, { storage: storage.name });
      }
    },
  };
}

function effectiveSettings(found: FoundSettings): readonly EffectiveSetting[] {
  const mask = createMask(found.beside.secrets);
  return allSettings.flatMap((setting) => {
    const origin = found.origin(setting);
    const text = origin?.text ?? setting.default;
    if (text === undefined) return [];
    const note = effectNote(setting);
    return [
      {
        name: origin?.name ?? preferredName(setting),
        value: isSecretText(setting.type, text) ? "***" : mask(text),
        origin: origin?.source ?? "default",
        ...(note === undefined ? {} : { note }),
      },
    ];
  });
}

function effectNote({ effect }: Setting): string | undefined {
  if (effect.kind === "used") return undefined;
  return `${effect.kind === "refused" ? "not supported" : "no effect"}: ${effect.reason}`;
}

function formatLines(effective: readonly EffectiveSetting[]): string {
  const nameWidth = Math.max(...effective.map(({ name }) => name.length));
  const lines = effective.map(({ name, value, origin, note }) => {
    const about = [origin, ...(note === undefined ? [] : [note])].join("; ");
    return `${name.padEnd(nameWidth)} = ${value}  (${about})\n`;
  });
  return lines.join("");
}

/**
 * Goes through all that a store must do. The object is removed also when it fails; gives whether it
 * could be.
 */
async function checkStorage(
  storage: Storage,
  context: Pick<Context, "signal" | "log">,
): Promise<boolean> {
  const { signal } = context;
  let isRemoved = false;
  let isStored = false;
  const key = `walnut_check_${randomUUID()}`;
  const bytes = Buffer.from(`${key}\n`);
  try {
    await storage.put(key, bytesSource(bytes), { signal, ifAbsent: true });
    isStored = true;
    const stored = await readAll(storage.get(key, { signal }), bytes.length);
    const listed = await Array.fromAsync(storage.list(key, { signal }), (object) => object.key);
    if (!stored.equals(bytes) || listed.length !== 1) {
      throw new StorageError(`${storage.name} does not give back what it took`, {
        isRetryable: false,
      });
    }
  } finally {
    // Who may not write may not remove either: the first is what matters.
    const log = isStored ? context.log : silentLog;
    isRemoved = await removeCheckObject(storage, key, { signal, log });
  }
  return isRemoved;
}
