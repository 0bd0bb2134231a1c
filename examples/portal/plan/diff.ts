// The difference of two texts by lines, as few removed and added ones as there can be (Myers).

export interface DiffLine {
  kind: "same" | "removed" | "added";
  text: string;
}

/** Beyond so many lines of difference the texts are shown one after the other: the search takes the square of it. */
const MOST = 2000;

export function diffLines(before: string, after: string): DiffLine[] {
  const a = before.split("\n");
  const b = after.split("\n");
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const line = (kind: DiffLine["kind"]) => (text: string): DiffLine => ({ kind, text });
  return [
    ...a.slice(0, head).map(line("same")),
    ...middle(a.slice(head, a.length - tail), b.slice(head, b.length - tail)),
    ...a.slice(a.length - tail).map(line("same")),
  ];
}

function middle(a: string[], b: string[]): DiffLine[] {
  const whole = (): DiffLine[] => [...a.map((text): DiffLine => ({ kind: "removed", text })), ...b.map((text): DiffLine => ({ kind: "added", text }))];
  if (a.length === 0 || b.length === 0 || a.length + b.length > MOST) return whole();
  const most = a.length + b.length;
  // Furthest x of each diagonal, stored per number of edits for the way back.
  const trace: Map<number, number>[] = [];
  let furthest = new Map<number, number>([[1, 0]]);
  for (let edits = 0; edits <= most; edits++) {
    trace.push(new Map(furthest));
    for (let k = -edits; k <= edits; k += 2) {
      const down = k === -edits || (k !== edits && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
      let x = down ? furthest.get(k + 1) ?? 0 : (furthest.get(k - 1) ?? 0) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      furthest.set(k, x);
      if (x >= a.length && x - k >= b.length) return back(a, b, trace, edits);
    }
    furthest = new Map(furthest);
  }
  return whole();
}

function back(a: string[], b: string[], trace: Map<number, number>[], edits: number): DiffLine[] {
  const found: DiffLine[] = [];
  let x = a.length;
  let y = b.length;
  for (let d = edits; d > 0; d--) {
    const furthest = trace[d]!;
    const k = x - y;
    const down = k === -d || (k !== d && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
    const before = down ? k + 1 : k - 1;
    const fromX = furthest.get(before) ?? 0;
    const fromY = fromX - before;
    while (x > fromX && y > fromY) {
      found.push({ kind: "same", text: a[--x]! });
      y--;
    }
    if (down) found.push({ kind: "added", text: b[--y]! });
    else found.push({ kind: "removed", text: a[--x]! });
  }
  while (x > 0) found.push({ kind: "same", text: a[--x]! });
  return found.reverse();
}

/** Long stretches of the same lines folded to `context` lines beside a change. */
export function hunks(lines: DiffLine[], context = 3): (DiffLine | { kind: "skipped"; n: number })[] {
  const keep = new Uint8Array(lines.length);
  lines.forEach((line, i) => {
    if (line.kind !== "same") keep.fill(1, Math.max(0, i - context), Math.min(lines.length, i + context + 1));
  });
  const found: (DiffLine | { kind: "skipped"; n: number })[] = [];
  for (let i = 0; i < lines.length; ) {
    if (keep[i]) {
      found.push(lines[i++]!);
      continue;
    }
    const from = i;
    while (i < lines.length && !keep[i]) i++;
    // A fold of one line saves nothing.
    if (i - from === 1) found.push(lines[from]!);
    else found.push({ kind: "skipped", n: i - from });
  }
  return found;
}
