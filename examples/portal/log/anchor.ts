// Links to lines: `#L120` and `#L120-L140`. Numbers count from 1.

export interface LineRange {
  first: number;
  last: number;
}

export function parseAnchor(hash: string): LineRange | null {
  const match = /^#?L([1-9][0-9]{0,8})(?:-L?([1-9][0-9]{0,8}))?$/.exec(hash);
  if (!match) return null;
  const [a, b] = [Number(match[1]), Number(match[2] ?? match[1])];
  return { first: Math.min(a, b), last: Math.max(a, b) };
}

export const formatAnchor = (range: LineRange): string =>
  range.first === range.last ? `#L${range.first}` : `#L${range.first}-L${range.last}`;

/** A click on a number marks that line; with Shift it extends what is marked. */
export const extend = (marked: LineRange | null, line: number, shift: boolean): LineRange =>
  marked && shift
    ? { first: Math.min(marked.first, line), last: Math.max(marked.last, line) }
    : { first: line, last: line };
