"use client";
import { useEffect, useMemo, useRef, useState } from "react";
import { compile, Finder, type Query } from "../log/find.ts";
import type { LogStore } from "../log/store.ts";
import { Icon } from "./icon.tsx";

/** How long a frame may search, in milliseconds. */
const SLICE = 6;

export interface Find {
  finder: Finder | null;
  /** Which match the reader is at; -1: none yet. */
  at: number;
}

interface Props {
  store: LogStore;
  tick: number;
  loading: boolean;
  /** The line that the search begins at. */
  here(): number;
  onFind(find: Find): void;
  onClose(): void;
}

export function FindBar({ store, tick, loading, here, onFind, onClose }: Props) {
  const [query, setQuery] = useState<Query>({ text: "", regex: false, matchCase: false });
  const [at, setAt] = useState(-1);
  const [, setSeen] = useState(0);
  const input = useRef<HTMLInputElement>(null);
  const compiled = useMemo(() => compile(query), [query]);
  // A late chunk moves lines: the search starts again.
  const generation = store.generation;
  const finder = useMemo(() => (compiled instanceof RegExp ? new Finder(compiled) : null), [compiled, generation]);
  const jumped = useRef<Finder | null>(null);

  useEffect(() => {
    input.current?.focus();
    input.current?.select();
  }, []);
  useEffect(() => {
    if (!finder) {
      onFind({ finder: null, at: -1 });
      return;
    }
    let frame = 0;
    const go = (): void => {
      const done = finder.advance(store.texts, SLICE, () => performance.now());
      setSeen(finder.through);
      // To the first one at once; the count goes on.
      if (jumped.current !== finder && finder.lines.length > 0 && (done || finder.through > here())) {
        jumped.current = finder;
        const first = finder.from(here());
        setAt(first);
        onFind({ finder, at: first });
      } else if (jumped.current !== finder) {
        onFind({ finder, at: -1 });
        setAt(-1);
      }
      if (!done) frame = requestAnimationFrame(go);
    };
    go();
    return () => cancelAnimationFrame(frame);
  }, [finder, store, tick]);

  const step = (by: 1 | -1): void => {
    if (!finder || finder.lines.length === 0) return;
    const next = finder.step(at, by);
    setAt(next);
    onFind({ finder, at: next });
  };
  const complete = finder === null || finder.through >= store.length;
  const status =
    typeof compiled === "string" ? compiled
    : !finder ? ""
    : finder.total === 0 ? (complete && !loading ? "No match" : "Searching…")
    : `${(at + 1).toLocaleString("en")} of ${finder.total.toLocaleString("en")}${complete && !loading ? "" : "…"}`;
  const toggle = (name: "regex" | "matchCase", label: string, text: string) => (
    <button type="button" className="button ghost square mono" aria-pressed={query[name]} aria-label={label} title={label} onClick={() => setQuery({ ...query, [name]: !query[name] })}>{text}</button>
  );
  return (
    <div className="find" role="search">
      <input
        ref={input} type="text" aria-label="Find in the whole log" placeholder="Find in the whole log" value={query.text} spellCheck={false} aria-invalid={typeof compiled === "string" || undefined}
        onChange={(event) => setQuery({ ...query, text: event.target.value })}
        onKeyDown={(event) => {
          if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
          else if (event.key === "Escape") onClose();
          else if (event.key === "F3") step(event.shiftKey ? -1 : 1);
          else return;
          event.preventDefault();
        }}
      />
      <span className="find-count tabular" role="status" data-testid="find-count">{status}</span>
      {toggle("matchCase", "Match case", "Aa")}
      {toggle("regex", "Regular expression", ".*")}
      <button type="button" className="button ghost square" aria-label="Previous match" onClick={() => step(-1)}><Icon name="up" /></button>
      <button type="button" className="button ghost square" aria-label="Next match" onClick={() => step(1)}><Icon name="down" /></button>
      <button type="button" className="button ghost square" aria-label="Close find" onClick={onClose}><Icon name="close" /></button>
    </div>
  );
}
