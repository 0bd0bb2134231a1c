import { palette, type Span, type Style } from "../log/ansi.ts";
import type { CSSProperties } from "react";

const colour = (value: number | string | undefined): string | undefined =>
  value === undefined ? undefined : typeof value === "string" ? value : palette(value) ?? `var(--ansi-${value})`;

function css(style: Style): CSSProperties | undefined {
  const { foreground, background, inverse } = style;
  const front = colour(inverse ? background : foreground);
  const back = colour(inverse ? foreground : background);
  const found: CSSProperties = {};
  if (front) found.color = front;
  else if (inverse) found.color = "var(--log-back)";
  if (back) found.backgroundColor = back;
  else if (inverse) found.backgroundColor = "var(--log-text)";
  if (style.bold) found.fontWeight = 700;
  if (style.dim) found.opacity = 0.7;
  if (style.italic) found.fontStyle = "italic";
  if (style.underline || style.strike) found.textDecoration = [style.underline ? "underline" : "", style.strike ? "line-through" : ""].join(" ").trim();
  return Object.keys(found).length > 0 ? found : undefined;
}

/** Cuts spans to a part of the line, and at the ends of matches. Offsets count the text that is seen. */
export function pieces(spans: readonly Span[], from: number, to: number, matches: readonly [number, number][]): { text: string; style: Style; match: number | null }[] {
  const found: { text: string; style: Style; match: number | null }[] = [];
  let at = 0;
  for (const span of spans) {
    const end = at + span.text.length;
    let position = Math.max(at, from);
    const stop = Math.min(end, to);
    while (position < stop) {
      const index = matches.findIndex(([, matchEnd]) => matchEnd > position);
      const match = index >= 0 ? matches[index]! : null;
      const inside = match !== null && match[0] <= position;
      const next = Math.min(stop, match === null ? stop : inside ? match[1] : match[0]);
      found.push({ text: span.text.slice(position - at, next - at), style: span.style, match: inside ? index : null });
      position = next;
    }
    at = end;
  }
  return found;
}

export function LineText({ spans, from, to, matches, current }: {
  spans: readonly Span[];
  from: number;
  to: number;
  matches: readonly [number, number][];
  /** Which of the line's matches is the one that the reader is at. */
  current: number | null;
}) {
  if (matches.length === 0 && spans.length === 1 && Object.keys(spans[0]!.style).length === 0) return spans[0]!.text.slice(from, to);
  return pieces(spans, from, to, matches).map((piece, i) => {
    const style = css(piece.style);
    if (piece.match !== null) return <mark key={i} style={style ? { fontWeight: style.fontWeight } : undefined} className={piece.match === current ? "current" : undefined}>{piece.text}</mark>;
    return style ? <span key={i} style={style}>{piece.text}</span> : piece.text;
  });
}
