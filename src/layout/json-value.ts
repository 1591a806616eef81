/**
 * A JSON value without loss: integers of any length are bigint, all other numbers keep their text,
 * objects keep the order of their keys (also of keys that look like numbers).
 */
export type JsonValue =
  | null
  | boolean
  | string
  | bigint
  | JsonDecimal
  | readonly JsonValue[]
  | JsonObject;

/** Of several members with one name the last counts, as in Go and in JavaScript. */
export interface JsonObject extends ReadonlyMap<string, JsonValue> {}

/** A number with a fraction, an exponent or a minus before zero, as it was written. */
export class JsonDecimal {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return value instanceof Map;
}

export function isJsonArray(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value);
}

/** An object of those members whose value is defined, in this order. */
export function jsonObject(
  members: Iterable<readonly [name: string, value: JsonValue | undefined]>,
): JsonObject {
  const object = new Map<string, JsonValue>();
  for (const [name, value] of members) {
    if (value !== undefined) object.set(name, value);
  }
  return object;
}

/**
 * Member of an object by name; an exact match goes before one in other case, as in Go. Undefined if
 * there is none and if `value` is no object.
 */
export function objectMember(value: JsonValue | undefined, name: string): JsonValue | undefined {
  if (!isJsonObject(value)) return undefined;
  const exact = value.get(name);
  if (exact !== undefined) return exact;
  const lower = name.toLowerCase();
  let found: JsonValue | undefined;
  for (const [key, member] of value) {
    if (key.toLowerCase() === lower) found = member;
  }
  return found;
}

/** Whether both mean the same: the order of members does not count, nor how a number is written. */
export function isJsonEqual(left: JsonValue, right: JsonValue): boolean {
  if (isJsonObject(left)) {
    if (!isJsonObject(right) || left.size !== right.size) return false;
    for (const [name, member] of left) {
      const other = right.get(name);
      if (other === undefined || !isJsonEqual(member, other)) return false;
    }
    return true;
  }
  if (isJsonArray(left)) {
    if (!isJsonArray(right) || left.length !== right.length) return false;
    return left.every((item, index) => {
      const other = right[index];
      return other !== undefined && isJsonEqual(item, other);
    });
  }
  if (left instanceof JsonDecimal || right instanceof JsonDecimal) {
    return isNumber(left) && isNumber(right) && numberOf(left) === numberOf(right);
  }
  return left === right;
}

function isNumber(value: JsonValue): value is bigint | JsonDecimal {
  return typeof value === "bigint" || value instanceof JsonDecimal;
}

function numberOf(value: bigint | JsonDecimal): number {
  return Number(value instanceof JsonDecimal ? value.text : value);
}
