// Find over the whole log, a slice of time after the other, so that the page stays responsive.

export interface Query {
  text: string;
  regex: boolean;
  matchCase: boolean;
}

/** Longest part of a line that a regular expression is tried on: some take time that grows with its square. */
const LONGEST = 4096;
/** How many matches are stored; more are only counted. */
export const MOST_KEPT = 200_000;

/** The expression to look for, or a sentence that explains what is wrong with it. */
export function compile(query: Query): RegExp | string | null {
  if (query.text === "") return null;
  const source = query.regex ? query.text : query.text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
  try {
    return new RegExp(source, query.matchCase ? "gu" : "giu");
  } catch (error) {
    return `Not a regular expression: ${error instanceof Error ? error.message.replace(/^Invalid regular expression: /, "") : "unreadable"}`;
  }
}

/** Where matches begin and end in one line. */
export function matchesIn(text: string, expression: RegExp): [number, number][] {
  const found: [number, number][] = [];
  const part = text.length > LONGEST ? text.slice(0, LONGEST) : text;
  expression.lastIndex = 0;
  for (let match = expression.exec(part); match; match = expression.exec(part)) {
    // An expression that matches nothing at all, such as `x*`, is no find.
    if (match[0] === "") {
      expression.lastIndex += 1;
      continue;
    }
    found.push([match.index, match.index + match[0].length]);
  }
  return found;
}

export class Finder {
  readonly expression: RegExp;
  /** Line of each match, ascending; a line with two matches is there twice. */
  readonly lines: number[] = [];
  /** Which of its line's matches each one is. */
  readonly ordinals: number[] = [];
  total = 0;
  private searched = 0;

  constructor(expression: RegExp) {
    this.expression = expression;
  }

  /** Looks through lines that were not looked through, for so many milliseconds; whether it came to the end. */
  advance(texts: readonly string[], milliseconds: number, now: () => number): boolean {
    const until = now() + milliseconds;
    while (this.searched < texts.length) {
      for (const end = Math.min(this.searched + 256, texts.length); this.searched < end; this.searched++) {
        const found = matchesIn(texts[this.searched]!, this.expression).length;
        this.total += found;
        for (let i = 0; i < found && this.lines.length < MOST_KEPT; i++) {
          this.lines.push(this.searched);
          this.ordinals.push(i);
        }
      }
      if (now() >= until) break;
    }
    return this.searched >= texts.length;
  }

  /** How many lines were looked through. */
  get through(): number {
    return this.searched;
  }

  /** The first match at or behind a line, or the first of all. */
  from(line: number): number {
    let low = 0;
    let high = this.lines.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.lines[middle]! < line) low = middle + 1;
      else high = middle;
    }
    return low < this.lines.length ? low : 0;
  }

  /** The match after or before one, around the end. */
  step(at: number, by: 1 | -1): number {
    const n = this.lines.length;
    return n === 0 ? -1 : (at + by + n) % n;
  }
}
