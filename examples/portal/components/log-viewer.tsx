"use client";
// The log on the screen: only the rows that are seen are there, each of one height, laid out once a frame.

import { useCallback, useEffect, useLayoutEffect, useRef, useState, type ReactNode } from "react";
import type { Log } from "../live/log.ts";
import { useRemembered } from "../live/use.ts";
import { extend, formatAnchor, parseAnchor, type LineRange } from "../log/anchor.ts";
import { matchesIn } from "../log/find.ts";
import { fileName, relative, toText } from "../log/text.ts";
import { CopyButton } from "./copy.tsx";
import { Icon } from "./icon.tsx";
import { FindBar, type Find } from "./log-find.tsx";
import { LineText } from "./log-line.tsx";
import { MarkRow } from "./log-mark.tsx";

/** Height of a row in CSS pixels; `--row` in log.css is the same. */
const ROW = 20;
/** Rows that are there beyond what is seen. */
const BEYOND = 12;

interface Props {
  log: Log;
  deployment: string;
  attempt: number;
  /** When the attempt began: relative times count from here. */
  began: number | null;
  /** How the last section ended; null while it runs. */
  result: "good" | "bad" | "quiet" | null;
  finished: number | null;
  /** Of the attempt that the address belongs to. */
  toolbar?: ReactNode;
}

const TIMES = ["off", "relative", "absolute"] as const;
const TIME_NAMES = { off: "off", relative: "since the start", absolute: "UTC" };

export function LogViewer({ log, deployment, attempt, began, result, finished, toolbar }: Props) {
  const { feed, view, tick } = log;
  const { store } = feed;
  const [times, setTimes] = useRemembered("log-times", "off", TIMES);
  const [scheme, setScheme] = useRemembered("log-scheme", "dark", ["dark", "light"]);
  const [wrap, setWrap] = useRemembered("log-wrap", "no", ["yes", "no"]);
  const [following, setFollowing] = useState(() => parseAnchor(location.hash) === null);
  const [seen, setSeen] = useState(0);
  const [marked, setMarked] = useState<LineRange | null>(() => parseAnchor(location.hash));
  const [finding, setFinding] = useState(false);
  const [find, setFind] = useState<Find>({ finder: null, at: -1 });
  const [box, setBox] = useState({ top: 0, height: 600, columns: 80 });
  const [, setFolds] = useState(0);
  const scroller = useRef<HTMLDivElement>(null);
  const probe = useRef<HTMLSpanElement>(null);
  const expected = useRef(0);
  const landed = useRef(false);
  const gutter = times === "off" ? 7 : times === "relative" ? 16 : 21;

  view.setOptions({ columns: wrap === "yes" ? Math.max(20, box.columns - gutter) : null, failed: result === "bad" });
  const total = view.rows.length;
  const whole = total * ROW;
  const top = following ? Math.max(0, whole - box.height) : Math.min(box.top, Math.max(0, whole - box.height));
  const first = Math.max(0, Math.floor(top / ROW) - BEYOND);
  const last = Math.min(total, Math.ceil((top + box.height) / ROW) + BEYOND);

  useLayoutEffect(() => {
    const element = scroller.current!;
    const measure = (): void => {
      const width = (probe.current?.getBoundingClientRect().width ?? 720) / 100;
      setBox((before) => ({ ...before, height: element.clientHeight, columns: Math.floor(element.clientWidth / width) - 2 }));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  // The only write to the scroll position while lines come.
  useLayoutEffect(() => {
    const element = scroller.current!;
    if (following && element.scrollTop !== whole - element.clientHeight) {
      element.scrollTop = whole;
      expected.current = element.scrollTop;
    }
  }, [following, whole, box.height, tick]);

  const goTo = useCallback((line: number, place: "middle" | "top" = "middle") => {
    const row = view.reveal(line);
    if (row < 0) return false;
    const element = scroller.current!;
    setFollowing(false);
    const target = Math.max(0, row * ROW - (place === "top" ? 2 * ROW : element.clientHeight / 2 - ROW));
    // Its rows may not be there yet: the room they take is made first.
    element.firstElementChild?.setAttribute("data-rows", String(view.rows.length));
    (element.firstElementChild as HTMLElement).style.height = `${view.rows.length * ROW}px`;
    element.scrollTop = target;
    expected.current = element.scrollTop;
    setBox((before) => ({ ...before, top: element.scrollTop }));
    setFolds((before) => before + 1);
    return true;
  }, [view]);

  // A link to a line opens there, as soon as that line has been read.
  useEffect(() => {
    if (marked && !landed.current && store.length >= marked.first) landed.current = goTo(marked.first - 1);
  }, [marked, store.length, goTo]);
  useEffect(() => {
    const changed = (): void => {
      const range = parseAnchor(location.hash);
      setMarked(range);
      landed.current = false;
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  useEffect(() => {
    const keys = (event: KeyboardEvent): void => {
      if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "f" || event.altKey || event.shiftKey) return;
      // The second time, the browser's own find opens.
      if ((event.target as HTMLElement).closest?.(".find")) return;
      event.preventDefault();
      setFinding(true);
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  }, []);

  const letGo = (): void => {
    if (!following) return;
    setSeen(store.length);
    setBox((before) => ({ ...before, top: scroller.current!.scrollTop }));
    setFollowing(false);
  };
  const scrolled = (): void => {
    const element = scroller.current!;
    const bottom = element.scrollTop + element.clientHeight >= whole - ROW;
    if (following && element.scrollTop < expected.current - 1 && !bottom) letGo();
    else if (!following && bottom && result === null && element.scrollTop > expected.current) setFollowing(true);
    expected.current = element.scrollTop;
    // Nothing changes while it follows: the rows are counted from the end.
    if (!following) setBox((before) => ({ ...before, top: element.scrollTop }));
  };
  const mark = (line: number, shift: boolean): void => {
    const range = extend(marked, line, shift);
    setMarked(range);
    landed.current = true;
    history.replaceState(history.state, "", formatAnchor(range));
  };
  const found = useCallback((next: Find) => {
    setFind(next);
    if (next.finder && next.at >= 0) goTo(next.finder.lines[next.at]!);
  }, [goTo]);
  const toggle = (change: () => void): void => {
    letGo();
    change();
    setFolds((before) => before + 1);
  };
  const text = (): string => toText(store, { timestamps: times !== "off" });
  const open = (download: boolean): void => {
    const url = URL.createObjectURL(new Blob([download ? toText(store, { timestamps: true }) : text()], { type: "text/plain;charset=utf-8" }));
    if (download) {
      const link = document.createElement("a");
      link.href = url;
      link.download = fileName(deployment, attempt);
      link.click();
    } else {
      open_(url);
    }
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  };

  const fresh = following ? 0 : store.length - seen;
  const current = find.finder && find.at >= 0 ? { line: find.finder.lines[find.at]!, ordinal: find.finder.ordinals[find.at]! } : null;
  const allOpen = view.sections.every((_, i) => view.isOpen(i));
  const rows: ReactNode[] = [];
  for (let row = first; row < last; row++) {
    const at = view.rows[row]!;
    if (at < 0) {
      const it = view.marks[-1 - at]!;
      rows.push(<MarkRow key={`m${-1 - at}-${row}`} mark={it} view={view} result={result} finished={finished} onSection={(section) => toggle(() => view.toggle(section))} onRun={(line) => toggle(() => view.toggleRun(line))} onRetry={() => void feed.read()} />);
      continue;
    }
    const part = view.parts[row]!;
    const columns = view.columns;
    const n = at + 1;
    const isMarked = marked !== null && n >= marked.first && n <= marked.last;
    const time = times === "off" || part > 0 ? undefined : times === "absolute" ? new Date(store.time(at)).toISOString().slice(11, 23) : relative(store.time(at) - (began ?? store.time(0)));
    rows.push(
      <div key={`l${at}-${part}`} className={`line ${store.stream(at)}${isMarked ? " marked" : ""}`} data-line={n}>
        {part === 0 ? (
          <a className="ln" href={`#L${n}`} data-n={n} aria-label={`Line ${n}`} tabIndex={-1} onClick={(event) => { event.preventDefault(); mark(n, event.shiftKey); }} />
        ) : <span className="ln" />}
        {times === "off" ? null : <span className="lt" data-t={time} />}
        <span className="text">
          <LineText
            spans={store.spans(at)} from={columns === null ? 0 : part * columns} to={columns === null ? Infinity : (part + 1) * columns}
            matches={find.finder ? matchesIn(store.texts[at]!, find.finder.expression) : []} current={current?.line === at ? current.ordinal : null}
          />
        </span>
      </div>,
    );
  }

  return (
    <div className="log" data-scheme={scheme} data-testid="log" data-lines={store.length} data-connection={feed.state.connection}>
      <div className="log-bar">
        {toolbar}
        <span className={`log-live ${feed.state.connection}`}>
          {feed.state.error ? "Reading again…" : feed.state.loading ? "Loading…" : { live: "Live", polling: "Polling", connecting: "Connecting…", ended: `${store.length.toLocaleString("en")} lines` }[feed.state.connection]}
        </span>
        <span className="spring" />
        <button type="button" className="button ghost square" aria-label="Find in the log" title="Find (Ctrl+F)" onClick={() => setFinding(!finding)}><Icon name="search" /></button>
        <button type="button" className="button ghost square" aria-label={`Times: ${TIME_NAMES[times]}. Change`} title={`Times: ${TIME_NAMES[times]}`} aria-pressed={times !== "off"} onClick={() => setTimes(TIMES[(TIMES.indexOf(times) + 1) % TIMES.length]!)}><Icon name="clock" /></button>
        <button type="button" className="button ghost square" aria-label="Break long lines" title="Break long lines" aria-pressed={wrap === "yes"} onClick={() => toggle(() => setWrap(wrap === "yes" ? "no" : "yes"))}><Icon name="wrap" /></button>
        <button type="button" className="button ghost square" aria-label={allOpen ? "Fold all phases" : "Open all phases"} title={allOpen ? "Fold all phases" : "Open all phases"} onClick={() => toggle(() => view.foldAll(!allOpen))}><Icon name="fold" /></button>
        <button type="button" className="button ghost square" aria-label={`Use a ${scheme === "dark" ? "light" : "dark"} log`} title={`Use a ${scheme === "dark" ? "light" : "dark"} log`} onClick={() => setScheme(scheme === "dark" ? "light" : "dark")}><Icon name={scheme === "dark" ? "sun" : "moon"} /></button>
        <button type="button" className="button ghost square" aria-label="Raw log in a new tab" title="Raw log" onClick={() => open(false)}><Icon name="raw" /></button>
        <button type="button" className="button ghost square" aria-label="Download with times" title="Download with times" onClick={() => open(true)}><Icon name="download" /></button>
      </div>
      {finding ? (
        <FindBar
          store={store} tick={tick} loading={feed.state.loading} onFind={found} onClose={() => { setFinding(false); setFind({ finder: null, at: -1 }); scroller.current?.focus(); }}
          here={() => Math.max(0, view.rows.slice(Math.floor(scroller.current!.scrollTop / ROW)).find((row) => row >= 0) ?? 0)}
        />
      ) : null}
      <div
        ref={scroller} className={`log-scroll${wrap === "yes" ? " wrapped" : ""}`} role="log" aria-live="off" aria-label="Log" tabIndex={0} data-following={following}
        onScroll={scrolled} onWheel={(event) => { if (event.deltaY < 0) letGo(); }}
        onTouchMove={letGo}
        onKeyDown={(event) => { if (["ArrowUp", "PageUp", "Home"].includes(event.key)) letGo(); }}
      >
        <div className="log-rows" style={{ height: whole }}>
          <div className="log-window" style={{ transform: `translateY(${first * ROW}px)` }}>{rows}</div>
        </div>
        {total === 0 && !feed.state.loading ? <p className="log-empty">{result === null ? "Nothing was written yet." : "This attempt wrote no log."}</p> : null}
      </div>
      <span className="probe" ref={probe} aria-hidden="true">{"0".repeat(100)}</span>
      {!following && result === null ? (
        <button type="button" className="button primary log-more" onWheel={(event) => scroller.current!.scrollBy(0, event.deltaY)} onClick={() => { setFollowing(true); scroller.current?.focus(); }}>
          <Icon name="down" /> {fresh > 0 ? `${fresh.toLocaleString("en")} new line${fresh === 1 ? "" : "s"}` : "Follow"}
        </button>
      ) : null}
      {marked ? (
        <div className="log-marked">
          <span>{marked.first === marked.last ? `Line ${marked.first}` : `Lines ${marked.first}–${marked.last}`}</span>
          <CopyButton label="Copy lines" text={() => toText(store, { timestamps: false, from: marked.first - 1, to: Math.min(marked.last, store.length) })} />
          <CopyButton label="Copy link" text={() => location.href} />
          <button type="button" className="button ghost square" aria-label="Unmark" onClick={() => { setMarked(null); history.replaceState(history.state, "", location.pathname + location.search); }}><Icon name="close" /></button>
        </div>
      ) : null}
      <p className="sr" role="status" aria-live="polite">{announce(log, result)}</p>
    </div>
  );
}

const open_ = (url: string): void => void window.open(url, "_blank", "noopener");

/** For a screen reader: the phase, not each line. */
function announce({ feed, view }: Log, result: Props["result"]): string {
  const section = view.sections[view.sections.length - 1];
  if (feed.state.loading || !section) return "";
  return result === null ? `Running: ${section.title}` : result === "good" ? "Finished" : result === "bad" ? `Failed in ${section.title}` : "Cancelled";
}
