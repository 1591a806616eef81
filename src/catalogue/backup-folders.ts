import type { BackupName } from "../layout/backup-name.ts";
import { backupFolder, BACKUPS_FOLDER } from "../layout/keys.ts";
import type { ObjectKey } from "../storage/storage.ts";

const FIRST_CAPACITY = 8;

/** The objects below one backup's folder. */
export interface BackupFolder {
  readonly name: BackupName;
  readonly objectCount: number;
  readonly sizeBytes: number;
  /** Of the documents, which lie in no folder below: they grow with the number of files. */
  readonly documentBytes: number;
  /** Whether an object has this key, relative to the folder: "metadata.json". */
  has(relativeKey: string): boolean;
  /** Keys relative to the folder, in their order. */
  relativeKeys(): Iterable<string>;
  /** Whole keys, in their order. */
  keys(): Iterable<ObjectKey>;
}

/** All folders of backups, whether the backups exist or not. Names of parts are held once. */
export class BackupFolders {
  readonly #folders = new Map<BackupName, CompactFolder>();
  readonly #names = new Names();

  /** Takes an object in. False, and nothing is done, if it lies in no folder of a backup. */
  add(key: ObjectKey, sizeBytes: number): boolean {
    const rest = key.slice(BACKUPS_FOLDER.length);
    const slash = rest.indexOf("/");
    if (slash <= 0) return false;
    const name = rest.slice(0, slash);
    const folder = this.#folders.get(name) ?? new CompactFolder(name, this.#names);
    this.#folders.set(name, folder);
    folder.add(rest.slice(slash + 1), sizeBytes);
    return true;
  }

  get(name: BackupName): BackupFolder | undefined {
    return this.#folders.get(name);
  }

  all(): Iterable<BackupFolder> {
    return this.#folders.values();
  }
}

/** Each text once, by number. */
class Names {
  readonly #texts: string[] = [];
  readonly #codes = new Map<string, number>();

  codeOf(text: string): number {
    const known = this.#codes.get(text);
    if (known !== undefined) return known;
    const code = this.#texts.length;
    this.#texts.push(text);
    this.#codes.set(text, code);
    return code;
  }

  find(text: string): number | undefined {
    return this.#codes.get(text);
  }

  textOf(code: number): string {
    return this.#texts[code] ?? "";
  }
}

class CompactFolder implements BackupFolder {
  readonly name: BackupName;
  objectCount = 0;
  sizeBytes = 0;
  documentBytes = 0;
  readonly #names: Names;
  #codes = new Uint32Array(FIRST_CAPACITY);

  constructor(name: BackupName, names: Names) {
    this.name = name;
    this.#names = names;
  }

  add(relativeKey: string, sizeBytes: number): void {
    if (this.objectCount === this.#codes.length) {
      const larger = new Uint32Array(this.#codes.length * 2);
      larger.set(this.#codes);
      this.#codes = larger;
    }
    this.#codes[this.objectCount] = this.#names.codeOf(relativeKey);
    this.objectCount += 1;
    this.sizeBytes += sizeBytes;
    if (!relativeKey.includes("/")) this.documentBytes += sizeBytes;
  }

  has(relativeKey: string): boolean {
    const code = this.#names.find(relativeKey);
    if (code === undefined) return false;
    return this.#codes.subarray(0, this.objectCount).includes(code);
  }

  *relativeKeys(): Iterable<string> {
    for (const code of this.#codes.subarray(0, this.objectCount)) yield this.#names.textOf(code);
  }

  *keys(): Iterable<ObjectKey> {
    const folder = backupFolder(this.name);
    for (const relativeKey of this.relativeKeys()) yield `${folder}${relativeKey}`;
  }
}
