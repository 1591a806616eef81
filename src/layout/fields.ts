import { FormatError } from "../errors.ts";
import {
  isJsonArray,
  isJsonObject,
  type JsonObject,
  type JsonValue,
  objectMember,
} from "./json-value.ts";
import { parseTime, type TimeNs } from "./time.ts";

const UINT64_END = 1n << 64n;

/**
 * Members of one JSON object, read with their types. A member that is absent or null gives
 * undefined; one of another type throws FormatError with the document and the name.
 */
export class Fields {
  readonly #document: string;
  readonly #object: JsonObject;

  /** `document` names the object in messages: "sentinel of base_...". */
  constructor(document: string, value: JsonValue) {
    if (!isJsonObject(value)) throw new FormatError(`${document} is not a JSON object`);
    this.#document = document;
    this.#object = value;
  }

  value(name: string): JsonValue | undefined {
    return objectMember(this.#object, name);
  }

  has(name: string): boolean {
    return this.value(name) !== undefined;
  }

  uint64(name: string): bigint | undefined {
    const value = this.value(name);
    if (value === undefined || value === null) return undefined;
    if (typeof value === "bigint" && value >= 0n && value < UINT64_END) return value;
    throw this.#wrong(name, "an integer between 0 and 2^64 - 1");
  }

  /** An integer that a JavaScript number holds exactly. */
  integer(name: string): number | undefined {
    const value = this.value(name);
    if (value === undefined || value === null) return undefined;
    const number = typeof value === "bigint" ? Number(value) : Number.NaN;
    if (Number.isSafeInteger(number)) return number;
    throw this.#wrong(name, "an integer between -2^53 and 2^53");
  }

  string(name: string): string | undefined {
    const value = this.value(name);
    if (value === undefined || value === null) return undefined;
    if (typeof value === "string") return value;
    throw this.#wrong(name, "a string");
  }

  boolean(name: string): boolean | undefined {
    const value = this.value(name);
    if (value === undefined || value === null) return undefined;
    if (typeof value === "boolean") return value;
    throw this.#wrong(name, "true or false");
  }

  time(name: string): TimeNs | undefined {
    const text = this.string(name);
    return text === undefined ? undefined : parseTime(text);
  }

  object(name: string): JsonObject | undefined {
    const value = this.value(name);
    if (value === undefined || value === null) return undefined;
    if (isJsonObject(value)) return value;
    throw this.#wrong(name, "an object");
  }

  strings(name: string): readonly string[] | undefined {
    const value = this.value(name);
    if (value === undefined || value === null) return undefined;
    if (!isJsonArray(value)) throw this.#wrong(name, "an array of strings");
    return value.map((item) => {
      if (typeof item === "string") return item;
      throw this.#wrong(name, "an array of strings");
    });
  }

  /** The value that a reader can't do without: throws FormatError when it is undefined. */
  required<T>(name: string, value: T | undefined): T {
    if (value !== undefined) return value;
    throw new FormatError(`${this.#document} has no ${name}`);
  }

  #wrong(name: string, wanted: string): FormatError {
    return new FormatError(`${name} of ${this.#document} is not ${wanted}`);
  }
}
