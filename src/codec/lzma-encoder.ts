import { type Match, type MatchEffort, MatchFinder, NO_MATCH } from "./lzma-matches.ts";
import {
  ALIGN_BITS,
  DISTANCE_ALIGN,
  DISTANCE_MODEL,
  DISTANCE_SLOT,
  DISTANCE_SLOT_BITS,
  END_DISTANCE,
  FIRST_DIRECT_SLOT,
  FIRST_MATCH_STATE,
  FIRST_MODEL_SLOT,
  IS_LONG_REPEAT_0,
  IS_MATCH,
  IS_REPEAT,
  IS_REPEAT_0,
  IS_REPEAT_1,
  IS_REPEAT_2,
  LENGTH_CHOICE,
  LENGTH_CHOICE_2,
  LENGTH_HIGH,
  LENGTH_LOW,
  LENGTH_MIDDLE,
  type LzmaProperties,
  MATCH_LENGTH,
  MAX_MATCH_BYTES,
  MAX_POSITION_STATES,
  MIN_MATCH_BYTES,
  REPEAT_LENGTH,
  lengthState,
  literalStart,
  newProbabilities,
  stateAfterLiteral,
  stateAfterMatch,
  stateAfterRepeat,
} from "./lzma-model.ts";
import { RangeEncoder } from "./lzma-range-encoder.ts";

/** Levels 0 to 9. */
const EFFORTS: readonly MatchEffort[] = [
  { tryCount: 2, niceBytes: 16 },
  { tryCount: 4, niceBytes: 32 },
  { tryCount: 8, niceBytes: 48 },
  { tryCount: 16, niceBytes: 64 },
  { tryCount: 24, niceBytes: 96 },
  { tryCount: 32, niceBytes: 128 },
  { tryCount: 48, niceBytes: 160 },
  { tryCount: 96, niceBytes: 200 },
  { tryCount: 192, niceBytes: MAX_MATCH_BYTES },
  { tryCount: 384, niceBytes: MAX_MATCH_BYTES },
];

/** A decision looks at the match here and at the one after it. */
const LOOK_AHEAD_BYTES = MAX_MATCH_BYTES + 1;

/** Worth a literal more, or two: repeating a distance costs few bits, a new long one many. */
const FAR_BYTES = 512;
const VERY_FAR_BYTES = 32 * 1024;

/**
 * Encodes one raw LZMA stream, greedily with a look at the next position: what XZ Utils call the
 * fast mode. It refers back 2 MiB.
 */
export class LzmaEncoder {
  readonly #properties: LzmaProperties;
  readonly #positionMask: number;
  readonly #range: RangeEncoder;
  readonly #matches: MatchFinder;
  readonly #niceBytes: number;
  #totalBytes = 0;
  #state = 0;
  readonly #distances = [0, 0, 0, 0];
  /** Of the current position, if it was looked at before. */
  #foundMatch: Match | undefined;

  constructor(properties: LzmaProperties, level: number) {
    const effort = EFFORTS[level];
    if (effort === undefined) throw new RangeError(`lzma has no level ${level}`);
    this.#properties = properties;
    this.#positionMask = (1 << properties.positionBits) - 1;
    this.#range = new RangeEncoder(newProbabilities(properties));
    this.#matches = new MatchFinder(effort);
    this.#niceBytes = effort.niceBytes;
  }

  /** Encodes `bytes`, at most 64 KiB, but for the last few, which wait for what follows them. */
  update(bytes: Uint8Array): void {
    this.#matches.append(bytes);
    while (this.#matches.availableBytes >= LOOK_AHEAD_BYTES) this.#encodeNext();
  }

  /** Encodes the rest and the end marker. */
  end(): void {
    while (this.#matches.availableBytes > 0) this.#encodeNext();
    this.#encodeMatch(MIN_MATCH_BYTES, END_DISTANCE);
    this.#range.flush();
  }

  /** The output since the last call. */
  take(): Uint8Array {
    return this.#range.take();
  }

  #encodeNext(): void {
    const match = this.#foundMatch ?? this.#matches.find(0);
    this.#foundMatch = undefined;

    const repeat = this.#longestRepeat();
    if (isRepeatBetter(repeat, match, this.#niceBytes)) {
      this.#encodeRepeat(repeat.matchBytes, repeat.distance);
      this.#advance(repeat.matchBytes);
      return;
    }
    if (match.matchBytes > 0 && !this.#isNextBetter(match)) {
      this.#encodeMatch(match.matchBytes, match.distance);
      this.#advance(match.matchBytes);
      return;
    }
    this.#encodeLiteral();
    this.#advance(1);
  }

  /** Its `distance` is an index into the last distances. */
  #longestRepeat(): Match {
    let longestBytes = MIN_MATCH_BYTES - 1;
    let longestIndex = 0;
    // No objects on the way: this runs for every position, and memory grows faster than it is
    // freed.
    for (let index = 0; index < this.#distances.length; index += 1) {
      const matchBytes = this.#matches.repeatedBytes(this.#distances[index] ?? 0);
      if (matchBytes <= longestBytes) continue;
      longestBytes = matchBytes;
      longestIndex = index;
    }
    if (longestBytes < MIN_MATCH_BYTES) return NO_MATCH;
    return { matchBytes: longestBytes, distance: longestIndex };
  }

  #isNextBetter(match: Match): boolean {
    if (match.matchBytes >= this.#niceBytes) return false;
    const next = this.#matches.find(1);
    if (next.matchBytes <= match.matchBytes) return false;
    this.#foundMatch = next;
    return true;
  }

  #advance(count: number): void {
    this.#matches.advance(count);
    this.#totalBytes += count;
  }

  #encodeLiteral(): void {
    this.#range.bit(IS_MATCH + this.#stateIndex(), 0);
    const symbol = this.#matches.byteAt(0);
    const previous = this.#totalBytes === 0 ? 0 : this.#matches.byteAt(-1);
    const start = literalStart(this.#properties, this.#totalBytes, previous);
    if (this.#state < FIRST_MATCH_STATE) this.#range.tree(start, 8, symbol);
    else this.#encodeUnmatched(start, symbol, this.#matches.byteAt(-(this.#distances[0] ?? 0) - 1));
    this.#state = stateAfterLiteral(this.#state);
  }

  /** The byte where the last match would go on: it is known not to be this one. */
  #encodeUnmatched(start: number, symbol: number, matched: number): void {
    let index = 1;
    let isSame = true;
    for (let shift = 7; shift >= 0; shift -= 1) {
      const bit = (symbol >> shift) & 1;
      const matchedBit = (matched >> shift) & 1;
      this.#range.bit(start + index + (isSame ? (1 + matchedBit) << 8 : 0), bit);
      isSame &&= bit === matchedBit;
      index = (index << 1) | bit;
    }
  }

  #encodeRepeat(matchBytes: number, index: number): void {
    const range = this.#range;
    range.bit(IS_MATCH + this.#stateIndex(), 1);
    range.bit(IS_REPEAT + this.#state, 1);
    range.bit(IS_REPEAT_0 + this.#state, index === 0 ? 0 : 1);
    if (index === 0) range.bit(IS_LONG_REPEAT_0 + this.#stateIndex(), 1);
    else {
      range.bit(IS_REPEAT_1 + this.#state, index === 1 ? 0 : 1);
      if (index > 1) range.bit(IS_REPEAT_2 + this.#state, index - 2);
      const [distance = 0] = this.#distances.splice(index, 1);
      this.#distances.unshift(distance);
    }
    this.#encodeLength(REPEAT_LENGTH, matchBytes);
    this.#state = stateAfterRepeat(this.#state);
  }

  #encodeMatch(matchBytes: number, distance: number): void {
    this.#range.bit(IS_MATCH + this.#stateIndex(), 1);
    this.#range.bit(IS_REPEAT + this.#state, 0);
    this.#encodeLength(MATCH_LENGTH, matchBytes);
    this.#encodeDistance(lengthState(matchBytes), distance);
    this.#distances.unshift(distance);
    this.#distances.pop();
    this.#state = stateAfterMatch(this.#state);
  }

  #encodeLength(coder: number, matchBytes: number): void {
    const range = this.#range;
    const positionState = this.#totalBytes & this.#positionMask;
    const length = matchBytes - MIN_MATCH_BYTES;
    range.bit(coder + LENGTH_CHOICE, length < 8 ? 0 : 1);
    if (length < 8) {
      range.tree(coder + LENGTH_LOW + positionState * 8, 3, length);
      return;
    }
    range.bit(coder + LENGTH_CHOICE_2, length < 16 ? 0 : 1);
    if (length < 16) range.tree(coder + LENGTH_MIDDLE + positionState * 8, 3, length - 8);
    else range.tree(coder + LENGTH_HIGH, 8, length - 16);
  }

  #encodeDistance(tree: number, distance: number): void {
    const slotTree = DISTANCE_SLOT + (tree << DISTANCE_SLOT_BITS);
    const bitCount = Math.max(0, 30 - Math.clz32(distance));
    const slot = distance < FIRST_MODEL_SLOT ? distance : 2 * bitCount + (distance >>> bitCount);
    this.#range.tree(slotTree, DISTANCE_SLOT_BITS, slot);
    if (slot < FIRST_MODEL_SLOT) return;

    const base = ((2 | (slot & 1)) << bitCount) >>> 0;
    const rest = distance - base;
    if (slot < FIRST_DIRECT_SLOT) {
      this.#range.reverseTree(DISTANCE_MODEL + base - slot, bitCount, rest);
      return;
    }
    this.#range.directBits(rest >>> ALIGN_BITS, bitCount - ALIGN_BITS);
    this.#range.reverseTree(DISTANCE_ALIGN, ALIGN_BITS, rest);
  }

  #stateIndex(): number {
    return this.#state * MAX_POSITION_STATES + (this.#totalBytes & this.#positionMask);
  }
}

function isRepeatBetter(repeat: Match, match: Match, niceBytes: number): boolean {
  if (repeat.matchBytes === 0) return false;
  if (repeat.matchBytes >= niceBytes) return true;
  if (match.matchBytes >= niceBytes) return false;
  let handicap = 1;
  if (match.distance >= FAR_BYTES) handicap = 2;
  if (match.distance >= VERY_FAR_BYTES) handicap = 3;
  return repeat.matchBytes + handicap >= match.matchBytes;
}
