"use client";
import type { LogView, Mark } from "../log/view.ts";
import { holeText } from "../log/text.ts";
import { Icon } from "./icon.tsx";
import { Lasting } from "./time.tsx";

interface Props {
  mark: Mark;
  view: LogView;
  result: "good" | "bad" | "quiet" | null;
  finished: number | null;
  onSection(section: number): void;
  onRun(first: number): void;
  onRetry(): void;
}

/** A row that is no line. */
export function MarkRow({ mark, view, result, finished, onSection, onRun, onRetry }: Props) {
  if (mark.kind === "hole") {
    return (
      <div className="line hole">
        <Icon name="warn" size={13} /> {holeText(mark.hole)}.
        <button type="button" onClick={onRetry}>Read again</button>
      </div>
    );
  }
  if (mark.kind === "refresh") {
    const n = mark.last - mark.first + 1;
    return (
      <div className="line run">
        <button type="button" aria-expanded={mark.open} onClick={() => onRun(mark.first)}>
          <span className={mark.open ? "turn open" : "turn"}><Icon name="chevron" size={11} /></span> {n.toLocaleString("en")} lines of reading and refreshing
        </button>
      </div>
    );
  }
  const section = view.sections[mark.section]!;
  const ended = view.ended(mark.section);
  const isLast = ended === null;
  const tone = isLast ? result ?? "run" : "good";
  const open = view.isOpen(mark.section);
  const lines = view.endOf(mark.section) - section.first;
  return (
    <div className={`line section is-${tone}`}>
      <button type="button" aria-expanded={open} onClick={() => onSection(mark.section)}>
        <span className={open ? "turn open" : "turn"}><Icon name="chevron" size={11} /></span>
        {tone === "run" ? <i className="dot moving" /> : <Icon name={tone === "bad" ? "close" : tone === "quiet" ? "stop" : "check"} size={12} />}
        <span className="section-title">{section.title}</span>
        <span className="section-facts">
          <Lasting from={section.began} to={ended ?? finished} />
          {" · "}{lines.toLocaleString("en")} line{lines === 1 ? "" : "s"}
        </span>
        <span className="sr">{tone === "bad" ? "failed" : tone === "run" ? "running" : tone === "good" ? "done" : "cancelled"}</span>
      </button>
    </div>
  );
}
