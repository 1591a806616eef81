/** "1 segment is missing" or "3 segments are missing". */
export function missingText(segmentCount: number): string {
  return segmentCount === 1 ? "1 segment is missing" : `${segmentCount} segments are missing`;
}
