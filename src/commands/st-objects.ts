import { createReadStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { codecByExtension, codecOf } from "../codec/table.ts";
import { ConfigError, ObjectNotFoundError, RefusedError, UsageError } from "../errors.ts";
import { CHUNK_BYTES } from "../io/bytes.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { writeFileDurably } from "../io/durable.ts";
import { localFileError } from "../io/system-error.ts";
import { COMPRESSED_EXTENSIONS } from "../layout/keys.ts";
import { cleanPath, listBelow } from "../storage/folder.ts";
import type { ObjectKey, Storage } from "../storage/storage.ts";
import type { Context } from "./command.ts";
import type { StorageTool } from "./st.ts";
import { onePath, requirePositionals } from "./words.ts";

/** Objects removed with one request. */
const BATCH_KEYS = 1000;
const CODEC_JOBS = 1;

/** `st cat`: the bytes as they are stored, unless asked for more. */
export const catTool: StorageTool = async (words, context) => {
  const key = requireKey(onePath(words));
  await using storage = await openView(context, words.has("decrypt"));
  const content = readObject(storage, key, {
    isDecompressed: words.has("decompress"),
    signal: context.signal,
  });
  const { writeBytes } = context;
  if (writeBytes === undefined) throw new ConfigError("nothing takes the bytes of an object here");
  for await (const chunk of content) await writeBytes(chunk);
};

/** `st get`: decoded, unless asked for less. The file appears whole. */
export const getTool: StorageTool = async (words, context) => {
  const [path = "", destination = ""] = requirePositionals(words, ["the path", "the file"]);
  const key = requireKey(path);
  const { signal } = context;
  await using storage = await openView(context, !words.has("no-decrypt"));
  const isDecompressed = !words.has("no-decompress");
  const content = readObject(storage, key, { isDecompressed, signal });
  const file = resolve(context.workingDirectory, destination);
  const isDirectory = await stat(file).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  const name = isDecompressed ? withoutExtension(basename(key)) : basename(key);
  const target = isDirectory ? join(file, name) : file;
  await writeFileDurably(target, content, { signal, mode: 0o644 });
  context.log.info("stored object was fetched", { key, path: target });
};

/** `st put`: compressed under the name with its extension, unless asked for less. */
export const putTool: StorageTool = async (words, context) => {
  const isStdin = words.has("read-stdin");
  const names = isStdin ? ["the path"] : ["the file", "the path"];
  const positionals = requirePositionals(words, names);
  const file = isStdin ? undefined : resolve(context.workingDirectory, positionals[0] ?? "");
  const { signal, config } = context;
  const isCompressed = !words.has("no-compress") && config.compressionMethod !== "none";
  const codec = codecOf(isCompressed ? config.compressionMethod : "none");
  const path = requireKey(positionals.at(-1) ?? "");
  const key = codec.extension === "" ? path : `${path}.${codec.extension}`;

  await using storage = await openView(context, !words.has("no-encrypt"));
  const level = config.compressionLevel;
  const options = { jobs: config.codecJobs, signal, ...(level === undefined ? {} : { level }) };
  const body: ByteSource = {
    isReopenable: file !== undefined,
    open: () => codec.compress(readLocal(file), options),
  };
  await storage.put(key, body, { signal, ifAbsent: !words.has("force") });
  context.log.info("object was stored", { key });
};

/** `st rm`: an object, or a folder with all in it. */
export const removeTool: StorageTool = async (words, context) => {
  const given = onePath(words);
  const path = cleanPath(given);
  const { signal, log } = context;
  await using storage = await context.openStorage();
  let count = 0;
  let batch: ObjectKey[] = [];
  const flush = async (): Promise<void> => {
    if (batch.length > 0) await storage.delete(batch, { signal });
    count += batch.length;
    batch = [];
  };
  for await (const { key } of listBelow(storage, path, { signal })) {
    batch.push(key);
    if (batch.length === BATCH_KEYS) await flush();
  }
  await flush();
  if (count === 0) throw new ObjectNotFoundError(given, storage.name);
  log.info("objects were removed", { count, path: given });
};

/** With or without encryption in between. */
export async function openView(context: Context, isDecoded: boolean): Promise<Storage> {
  if (isDecoded || context.openStored === undefined) return await context.openStorage();
  return await context.openStored();
}

function requireKey(path: string): ObjectKey {
  const key = cleanPath(path);
  if (key === "") throw new UsageError(`${JSON.stringify(path)} names no object`);
  return key;
}

function readObject(
  storage: Storage,
  key: ObjectKey,
  { isDecompressed, signal }: { readonly isDecompressed: boolean; readonly signal: AbortSignal },
): ByteStream {
  const stored = storage.get(key, { signal });
  const extension = key.slice(key.lastIndexOf(".") + 1);
  const isKnown = COMPRESSED_EXTENSIONS.some((known) => known === extension);
  if (!isDecompressed || !isKnown) return stored;
  const codec = codecByExtension(extension);
  if (codec === undefined) {
    throw new RefusedError(`walnut cannot read ${extension}, in which ${key} is compressed`, {
      hint: "--no-decompress gives the bytes as they are.",
    });
  }
  return codec.decompress(stored, { jobs: CODEC_JOBS, signal });
}

function withoutExtension(name: string): string {
  const known = COMPRESSED_EXTENSIONS.find((extension) => name.endsWith(`.${extension}`));
  return known === undefined ? name : name.slice(0, -known.length - 1);
}

/** Undefined: standard input. */
async function* readLocal(file: string | undefined): ByteStream {
  try {
    yield* file === undefined ? readStdin() : readFileInChunks(file);
  } catch (error) {
    throw localFileError("read", file ?? "standard input", error);
  }
}

async function* readStdin(): ByteStream {
  const stream = createReadStream("", { fd: 0 });
  for await (const chunk of stream) if (chunk instanceof Uint8Array) yield chunk;
}

/** Into the same memory again and again: a stream's buffers pile up until they are collected. */
async function* readFileInChunks(file: string): ByteStream {
  await using handle = await open(file, "r");
  const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  for (;;) {
    // No position: a pipe has none.
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
  }
}
