/**
 * What an LZMA encoder and decoder must agree on: how bits are predicted. Numbers and layout of the
 * probabilities are those of the format's specification.
 *
 * @source lzma-specification.txt of the LZMA SDK
 */

/** Probabilities have 11 bits, and move by 1/32 of the way with each bit. */
export const PROBABILITY_BITS = 11;
export const MOVE_BITS = 5;
export const EVEN_PROBABILITY = 1 << (PROBABILITY_BITS - 1);

export const STATE_COUNT = 12;
/** States below this follow a literal. */
export const FIRST_MATCH_STATE = 7;
/** By the low bits of the position, at most 4. */
export const MAX_POSITION_STATES = 16;
export const MIN_MATCH_BYTES = 2;
export const MAX_MATCH_BYTES = 273;
/** A match's length decides by which of four trees its distance is coded. */
export const LENGTH_STATE_COUNT = 4;
export const DISTANCE_SLOT_BITS = 6;
/** Slots from here on have further bits that are not in the slot itself. */
export const FIRST_MODEL_SLOT = 4;
/** Slots from here on have bits that are not predicted. */
export const FIRST_DIRECT_SLOT = 14;
export const ALIGN_BITS = 4;
/** The distance that no match has: it ends the stream. */
export const END_DISTANCE = 0xffffffff;

const LENGTH_CODER_SIZE = 2 + 2 * MAX_POSITION_STATES * 8 + 256;
const LITERAL_CODER_SIZE = 0x300;

/** Within a length coder. */
export const LENGTH_CHOICE = 0;
export const LENGTH_CHOICE_2 = 1;
export const LENGTH_LOW = 2;
export const LENGTH_MIDDLE = LENGTH_LOW + MAX_POSITION_STATES * 8;
export const LENGTH_HIGH = LENGTH_MIDDLE + MAX_POSITION_STATES * 8;

/** Where each kind of probability begins in one array. */
export const IS_MATCH = 0;
export const IS_REPEAT = IS_MATCH + STATE_COUNT * MAX_POSITION_STATES;
export const IS_REPEAT_0 = IS_REPEAT + STATE_COUNT;
export const IS_REPEAT_1 = IS_REPEAT_0 + STATE_COUNT;
export const IS_REPEAT_2 = IS_REPEAT_1 + STATE_COUNT;
export const IS_LONG_REPEAT_0 = IS_REPEAT_2 + STATE_COUNT;
export const DISTANCE_SLOT = IS_LONG_REPEAT_0 + STATE_COUNT * MAX_POSITION_STATES;
export const DISTANCE_MODEL = DISTANCE_SLOT + (LENGTH_STATE_COUNT << DISTANCE_SLOT_BITS);
export const DISTANCE_ALIGN = DISTANCE_MODEL + 128 - FIRST_DIRECT_SLOT + 1;
export const MATCH_LENGTH = DISTANCE_ALIGN + (1 << ALIGN_BITS);
export const REPEAT_LENGTH = MATCH_LENGTH + LENGTH_CODER_SIZE;
export const LITERAL = REPEAT_LENGTH + LENGTH_CODER_SIZE;

/** How the position and the byte before decide about predictions. */
export interface LzmaProperties {
  readonly literalContextBits: number;
  readonly literalPositionBits: number;
  readonly positionBits: number;
}

/** All probabilities of a stream, before its first bit. */
export function newProbabilities(properties: LzmaProperties): Uint16Array {
  const literalBits = properties.literalContextBits + properties.literalPositionBits;
  const size = LITERAL + (LITERAL_CODER_SIZE << literalBits);
  return new Uint16Array(size).fill(EVEN_PROBABILITY);
}

/** Where the probabilities of the literal at `position` begin, `previous` being the byte before. */
export function literalStart(
  { literalContextBits, literalPositionBits }: LzmaProperties,
  position: number,
  previous: number,
): number {
  const low = position & ((1 << literalPositionBits) - 1);
  const index = (low << literalContextBits) + (previous >> (8 - literalContextBits));
  return LITERAL + LITERAL_CODER_SIZE * index;
}

export function stateAfterLiteral(state: number): number {
  if (state < 4) return 0;
  return state < 10 ? state - 3 : state - 6;
}

export function stateAfterMatch(state: number): number {
  return state < FIRST_MATCH_STATE ? 7 : 10;
}

export function stateAfterRepeat(state: number): number {
  return state < FIRST_MATCH_STATE ? 8 : 11;
}

export function stateAfterShortRepeat(state: number): number {
  return state < FIRST_MATCH_STATE ? 9 : 11;
}

/** Which of the distance trees a match of so many bytes uses. */
export function lengthState(matchBytes: number): number {
  return Math.min(matchBytes - MIN_MATCH_BYTES, LENGTH_STATE_COUNT - 1);
}
