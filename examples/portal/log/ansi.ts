// Terminal output as text and styled spans. Escape sequences never become markup; what is no colour is left out.

/** The style of a span of a line. Numbers are of the 256-colour palette; a text is `#rrggbb`. */
export interface Style {
  foreground?: number | string;
  background?: number | string;
  bold?: boolean;
  dim?: boolean;
  italic?: boolean;
  underline?: boolean;
  inverse?: boolean;
  strike?: boolean;
}

export interface Span {
  text: string;
  style: Style;
}

// CSI sequences, OSC strings (links, titles) with their ends, other two-character escapes, and control characters.
const ESCAPE = /\x1b\[([0-9;:?<=>]*)[ -/]*([@-~])|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]|\x1b|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]/g;

export const PLAIN: Style = Object.freeze({});

/** Whether a line has anything that is not plain text. */
export const hasEscapes = (line: string): boolean => /[\x00-\x08\x0b-\x1f\x7f]/.test(line);

/** A progress bar overwrites its line: what is seen in the end is what follows the last carriage return. */
function overwritten(line: string): string {
  const whole = line.replace(/\r+$/, "");
  const last = whole.lastIndexOf("\r");
  return last < 0 ? whole : whole.slice(last + 1);
}

/** The text that is seen. */
export const plain = (line: string): string => (hasEscapes(line) ? overwritten(line).replace(ESCAPE, "") : line);

/** The spans of a line, and the style that the next line begins with. */
export function spans(line: string, begin: Style = PLAIN): { spans: Span[]; end: Style } {
  const found: Span[] = [];
  let style = begin;
  let start = 0;
  const push = (text: string): void => {
    if (text !== "") found.push({ text, style });
  };
  const seen = overwritten(line);
  for (const match of seen.matchAll(ESCAPE)) {
    push(seen.slice(start, match.index));
    start = match.index + match[0].length;
    if (match[2] === "m") style = select(style, match[1] ?? "");
  }
  push(seen.slice(start));
  return { spans: found, end: style };
}

/** SGR: Select Graphic Rendition. */
function select(from: Style, parameters: string): Style {
  const codes = parameters.split(/[;:]/).map((code) => (code === "" ? 0 : Number(code)));
  let style: Style = { ...from };
  for (let i = 0; i < codes.length; i++) {
    const code = codes[i]!;
    if (code === 0) style = {};
    else if (code === 1) style.bold = true;
    else if (code === 2) style.dim = true;
    else if (code === 3) style.italic = true;
    else if (code === 4) style.underline = true;
    else if (code === 7) style.inverse = true;
    else if (code === 9) style.strike = true;
    else if (code === 22) { delete style.bold; delete style.dim; }
    else if (code === 23) delete style.italic;
    else if (code === 24) delete style.underline;
    else if (code === 27) delete style.inverse;
    else if (code === 29) delete style.strike;
    else if (code >= 30 && code <= 37) style.foreground = code - 30;
    else if (code >= 90 && code <= 97) style.foreground = code - 82;
    else if (code === 39) delete style.foreground;
    else if (code >= 40 && code <= 47) style.background = code - 40;
    else if (code >= 100 && code <= 107) style.background = code - 92;
    else if (code === 49) delete style.background;
    else if (code === 38 || code === 48) {
      const [colour, used] = extended(codes, i + 1);
      i += used;
      if (colour !== null) style[code === 38 ? "foreground" : "background"] = colour;
    }
  }
  return style;
}

/** `5;n` or `2;r;g;b`: the colour, and how many codes it took. */
function extended(codes: number[], at: number): [number | string | null, number] {
  const byte = (i: number): number => Math.min(255, Math.max(0, Math.trunc(codes[i] ?? 0) || 0));
  if (codes[at] === 5) return [byte(at + 1), 2];
  if (codes[at] === 2) return [hex(byte(at + 1), byte(at + 2), byte(at + 3)), 4];
  return [null, 0];
}

const hex = (...bytes: number[]): string => `#${bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;

/** A colour of the 256: the first 16 are the theme's own and have no fixed value. */
export function palette(n: number): string | null {
  if (n < 16) return null;
  if (n >= 232) {
    const grey = 8 + (n - 232) * 10;
    return hex(grey, grey, grey);
  }
  const level = (i: number): number => (i === 0 ? 0 : 55 + i * 40);
  const cube = n - 16;
  return hex(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}
