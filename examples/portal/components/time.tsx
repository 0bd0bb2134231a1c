"use client";
import { useNow } from "../live/use.ts";

const UNITS: [number, string][] = [[86_400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

export function span(seconds: number): string {
  const whole = Math.max(0, seconds);
  if (whole < 10) return `${whole.toFixed(1)} s`;
  if (whole < 60) return `${Math.floor(whole)} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(Math.floor(whole % 60)).padStart(2, "0")} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole / 60) % 60).padStart(2, "0")} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor(whole / 3600) % 24} h`;
}

export function ago(seconds: number): string {
  if (seconds < 5) return "just now";
  const [size, unit] = UNITS.find(([size]) => seconds >= size)!;
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

/** How long ago, with the exact time on demand. */
export function Ago({ time }: { time: string | null | undefined }) {
  const now = useNow(5);
  if (!time) return <span className="quiet">never</span>;
  const at = new Date(time);
  return (
    <time dateTime={time} title={at.toLocaleString()} className="nowrap">
      {ago((now - at.getTime()) / 1000)}
    </time>
  );
}

/** From one time to another, or until now while there is no other. */
export function Lasting({ from, to }: { from: string | number | null; to: string | number | null }) {
  const now = useNow(1);
  if (from === null) return null;
  const end = to === null ? now : new Date(to).getTime();
  return <span className="tabular nowrap">{span((end - new Date(from).getTime()) / 1000)}</span>;
}
