import { ConfigError, DamagedError, RefusedError } from "../errors.ts";
import { bytesSource } from "../io/bytes.ts";
import { ENCRYPTION_MARK_KEY, REKEY_FOLDER, SECRET_FOLDERS } from "../layout/secrecy.ts";
import { EncryptedStorage } from "../storage/encrypted.ts";
import { formatMark } from "../storage/encryption-guard.ts";
import { rekey } from "../storage/rekey.ts";
import type { Command, Context } from "./command.ts";
import { inStorage } from "./context.ts";
import { usedStorages } from "./storage-choice.ts";
import { requirePositionals } from "./words.ts";

interface RekeyArguments {
  readonly isConfirmed: boolean;
  readonly isPartialTaken: boolean;
}

/** So many problems are named one by one. */
const PROBLEMS_SHOWN = 20;

/** `walnut rekey`: see src/storage/REKEY.md. */
export const rekeyCommand: Command<RekeyArguments> = {
  name: "rekey",
  usage: "rekey [--confirm] [--partial]",
  summary: "Encrypt the repository's objects with the key in use.",
  details:
    "Configure the new key as the one in use, and the older ones to read with " +
    "(WALNUT_LIBSODIUM_OLD_KEY_PATHS, WALNUT_PGP_OLD_KEY_PATHS; for objects that are not encrypted " +
    "WALNUT_READ_UNENCRYPTED=true), on every host first: pushes use the new key from then on. " +
    "Without --confirm only shows what there is to do. Each object is written beside its place, " +
    "read back and only then put in its place; it may be stopped at any time and run again.",
  flags: [
    { name: "confirm", text: "Do it." },
    {
      name: "partial",
      text: "Also unfinished segments (.partial); only while no wal-receive writes them.",
    },
  ],
  needsConfig: true,

  parse(words) {
    requirePositionals(words, []);
    return { isConfirmed: words.has("confirm"), isPartialTaken: words.has("partial") };
  },

  async run(args, context) {
    const names = usedStorages(context.config);
    for (const name of names) {
      if (names.length > 1) await context.write(`Storage ${name}:\n`);
      await rekeyOne(args, names.length > 1 ? inStorage(context, name) : context);
    }
  },
};

/** An object is replaced where it is: each storage by itself. */
async function rekeyOne(
  { isConfirmed, isPartialTaken }: RekeyArguments,
  { config, log, signal, openStorage, progress, write }: Context,
): Promise<void> {
  await using storage = await openStorage();
  const { sealed, crypter } = requireEncryption(storage);
  let doneBytes = 0;
  const report = await rekey(sealed, crypter, {
    folders: SECRET_FOLDERS,
    stageFolder: REKEY_FOLDER,
    jobs: Math.min(config.uploadConcurrency, config.downloadConcurrency),
    isPartialTaken,
    isDryRun: !isConfirmed,
    onObject: ({ key, sizeBytes }) => {
      doneBytes += sizeBytes;
      progress.update({ activity: isConfirmed ? "encrypting anew" : "looking", doneBytes });
      log.debug(isConfirmed ? "object has the key in use" : "object would get the key in use", {
        key,
      });
    },
    signal,
  }).finally(() => progress.end());

  const { changedCount, changedBytes, currentCount, partialCount, problems } = report;
  const verb = isConfirmed ? "have got" : "would get";
  await write(
    `${changedCount} objects of ${changedBytes} bytes ${verb} the key in use ` +
      `(${crypter.kind} ${crypter.ownKeyIds.join(", ")}); ${currentCount} had it before.\n`,
  );
  if (partialCount > 0) {
    await write(`${partialCount} unfinished segments were left as they are: see --partial.\n`);
  }
  for (const { key, reason } of problems.slice(0, PROBLEMS_SHOWN)) {
    log.error("object can't be read and is left as it is", { key, reason });
  }
  if (problems.length > 0) {
    throw new DamagedError(`${problems.length} objects can't be read and are as they were`, {
      hint: "Configure all keys that they were encrypted with, and run it again.",
    });
  }
  if (!isConfirmed) {
    if (changedCount > 0) await write("Nothing was changed; --confirm does it.\n");
    return;
  }
  const mark = bytesSource(Buffer.from(formatMark(crypter)));
  await storage.put(ENCRYPTION_MARK_KEY, mark, { signal });
  if (partialCount === 0) await write("No object needs another key any more.\n");
}

function requireEncryption(storage: unknown) {
  if (!(storage instanceof EncryptedStorage)) throw new Error("the storage can't encrypt");
  const { sealed } = storage;
  const { crypter } = sealed.rules;
  if (crypter === undefined) {
    throw new ConfigError("no key is configured to encrypt with", {
      hint: "Set the new key, for example WALNUT_LIBSODIUM_KEY_PATH.",
    });
  }
  if (crypter.kind === "aws-kms") {
    throw new RefusedError("AWS KMS rotates its keys itself", {
      hint: "Turn rotation on in KMS; objects that were encrypted before stay readable.",
    });
  }
  return { sealed, crypter };
}
