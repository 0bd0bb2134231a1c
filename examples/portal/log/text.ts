// The log as text: to download, to copy, to read raw.

import type { LogStore } from "./store.ts";

export interface TextOptions {
  timestamps: boolean;
  /** Index of the first line. */
  from?: number;
  /** Index behind the last line. */
  to?: number;
}

/** Whole lines, each ended by a newline. Missing chunks are named where they belong. */
export function toText(store: LogStore, options: TextOptions): string {
  const { from = 0, to = store.length } = options;
  const parts: string[] = [];
  let hole = store.holes.findIndex((each) => each.before >= from);
  if (hole < 0) hole = store.holes.length;
  for (let i = from; i <= to; i++) {
    for (let each = store.holes[hole]; each && each.before === i && (i < to || to === store.length); each = store.holes[hole]) {
      hole += 1;
      parts.push(`[${holeText(each)}]\n`);
    }
    if (i === to) break;
    parts.push(options.timestamps ? `${new Date(store.time(i)).toISOString()} ${store.texts[i]!}\n` : `${store.texts[i]!}\n`);
  }
  return parts.join("");
}

export const holeText = (gap: { from: number; to: number }): string => {
  const n = gap.to - gap.from + 1;
  return n === 1 ? "Lines are missing here: 1 chunk of the log was not stored" : `Lines are missing here: ${n} chunks of the log were not stored`;
};

/** A file name that names the log. */
export const fileName = (deployment: string, attempt: number): string => `deployment-${deployment.slice(0, 8)}-attempt-${attempt}.log`;

/** `+12.4 s`, `+3:07`, `+1:02:03` since the beginning. */
export function relative(milliseconds: number): string {
  const total = Math.max(0, milliseconds);
  if (total < 60_000) return `+${(total / 1000).toFixed(1)}s`;
  const seconds = Math.floor(total / 1000);
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const two = (n: number): string => String(n).padStart(2, "0");
  return hours > 0 ? `+${hours}:${two(minutes)}:${two(rest)}` : `+${minutes}:${two(rest)}`;
}
