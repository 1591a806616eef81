/** A column of a table for people. */
export interface TableColumn {
  readonly heading: string;
  /** Numbers stand at the right edge, their heading too. */
  readonly isNumber?: boolean;
}

/**
 * Columns padded with blanks, one blank between them, nothing behind the last: what scripts split.
 * Ends with a line end.
 */
export function formatPlainTable(
  headings: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const widths = columnWidths([headings, ...rows]);
  const lines = [headings, ...rows].map((row) => {
    const last = row.length - 1;
    return row
      .map((cell, index) => (index === last ? cell : padded(cell, widths[index])))
      .join(" ");
  });
  return `${lines.join("\n")}\n`;
}

/** A table in a box of "+", "-" and "|". Ends with a line end. */
export function formatBoxTable(
  columns: readonly TableColumn[],
  rows: readonly (readonly string[])[],
): string {
  const headings = columns.map(({ heading }) => heading);
  const widths = columnWidths([headings, ...rows]);
  const rule = `+${widths.map((width) => "-".repeat(width + 2)).join("+")}+`;
  const formatRow = (row: readonly string[]): string => {
    const cells = columns.map(({ isNumber }, index) =>
      padded(row[index] ?? "", widths[index], isNumber),
    );
    return `| ${cells.join(" | ")} |`;
  };
  return `${[rule, formatRow(headings), rule, ...rows.map(formatRow), rule].join("\n")}\n`;
}

function columnWidths(rows: readonly (readonly string[])[]): readonly number[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [index, cell] of row.entries()) {
      widths[index] = Math.max(widths[index] ?? 0, lengthOf(cell));
    }
  }
  return widths;
}

function padded(cell: string, width = 0, isNumber = false): string {
  const blanks = " ".repeat(Math.max(0, width - lengthOf(cell)));
  return isNumber ? `${blanks}${cell}` : `${cell}${blanks}`;
}

/** In characters, not in UTF-16 units. */
function lengthOf(cell: string): number {
  return Array.from(cell).length;
}
