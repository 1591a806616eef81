import { isDeepStrictEqual } from "node:util";
import { backupChoice, findBackup } from "../backup/catalogue.ts";
import { copyRepository } from "../catalogue/copy.ts";
import type { Config } from "../config/config.ts";
import { OperationError, UsageError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import type { BackupName } from "../layout/backup-name.ts";
import type { Storage } from "../storage/storage.ts";
import type { Command, Context } from "./command.ts";
import { openSides } from "./context.ts";
import type { Program } from "./index.ts";
import { requirePositionals } from "./words.ts";

interface CopyArguments {
  readonly fromFile: string;
  readonly toFile: string;
  readonly name: string | undefined;
  readonly isWithHistory: boolean;
}

/** Objects at the same time, as in WAL-G. */
const COPY_JOBS = 8;

/** `walnut copy` */
export function copyCommand(program: Pick<Program, "configureFile">): Command<CopyArguments> {
  return {
    name: "copy",
    usage: "copy --from <config> --to <config> [--backup-name <name|LATEST>] [--with-history]",
    summary: "Copy backups, with the WAL that they need, to another repository.",
    details:
      "Both configurations are files. A backup comes with all that it is based on; without a name " +
      "all backups are copied. Objects are copied as they are stored: keys are not needed for it " +
      "but to read the history of timelines. A copy that was interrupted goes on when it is " +
      "started again; a backup appears at the target when everything that it needs is there.",
    flags: [
      { name: "from", short: "f", value: "<config>", text: "Configuration of the source." },
      { name: "to", short: "t", value: "<config>", text: "Configuration of the target." },
      { name: "backup-name", short: "b", value: "<name>", text: "One backup, or LATEST." },
      { name: "with-history", short: "w", text: "Copy all WAL behind the backups, too." },
    ],
    needsConfig: false,

    parse(words) {
      requirePositionals(words, []);
      const [fromFile, toFile] = [words.value("from"), words.value("to")];
      if (fromFile === undefined) throw new UsageError("flag --from is missing");
      if (toFile === undefined) throw new UsageError("flag --to is missing");
      const isWithHistory = words.has("with-history");
      return { fromFile, toFile, name: words.value("backup-name"), isWithHistory };
    },

    async run({ fromFile, toFile, name, isWithHistory }, context) {
      const { log, signal } = context;
      const [from, to] = [
        await program.configureFile(fromFile),
        await program.configureFile(toFile),
      ];
      warnOfKeys(from, to, log);
      const source = await openSide(from, context);
      await using _source = source.stored;
      const target = await openSide(to, context);
      await using _target = target.stored;
      if (source.stored.name === target.stored.name) {
        throw new UsageError(`source and target are the same: ${source.stored.name}`);
      }
      const counts = await copyRepository(source, target, {
        names: await chosenNames(source.readable, name, signal),
        isWithHistory,
        jobs: COPY_JOBS,
        signal,
        onCopied: (key, isNew) => log.debug(isNew ? "copied" : "there already", { key }),
      });
      log.info("Success copy.", { ...counts, from: source.stored.name, to: target.stored.name });
    },
  };
}

/** Who gives the target other keys may expect that they are used. */
function warnOfKeys(from: Config, to: Config, log: Log): void {
  if (isDeepStrictEqual(from.encryption, to.encryption)) return;
  const what =
    from.encryption === undefined
      ? "the copies stay unencrypted, though the target's configuration has a key"
      : "the copies stay encrypted as the source is, with keys that the target's configuration lacks";
  log.warning(what, {
    hint: "Objects are copied as they are. `walnut rekey` encrypts those of a repository anew.",
  });
}

/** Objects are copied unopened, so a key that can't be used is no reason to stop. */
async function openSide(config: Config, context: Context) {
  const isEncrypted = config.encryption !== undefined;
  try {
    return { ...(await openSides({ ...context, config })), isEncrypted };
  } catch (error) {
    if (!isEncrypted || !(error instanceof OperationError)) throw error;
    const { encryption: _, ...plain } = config;
    const sides = await openSides({ ...context, config: plain });
    context.log.warning("no key: what is encrypted is copied unread", { why: error.message });
    return { ...sides, isEncrypted };
  }
}

async function chosenNames(
  storage: Storage,
  name: string | undefined,
  signal: AbortSignal,
): Promise<readonly BackupName[] | undefined> {
  if (name === undefined) return undefined;
  return [await findBackup(storage, backupChoice(name), { signal })];
}
