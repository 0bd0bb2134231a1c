"use client";
import { useMemo, useState } from "react";
import type { AttributeChange, Change } from "../contract/rows.ts";
import { attributesOf, isLong, planOf, progressOf, sideOf, signOf, type Shown } from "../plan/change.ts";
import { diffLines, hunks } from "../plan/diff.ts";
import { Icon } from "./icon.tsx";
import { Empty, Notice } from "./notice.tsx";
import { Lasting, span } from "./time.tsx";

/** So many rows at first: a plan may have thousands. */
const PAGE = 200;

export function PlanTable({ rows, attempt, applying, isDone, detailed, warns }: { rows: readonly Change[]; attempt: number; applying: boolean; isDone: boolean; detailed: boolean; warns: boolean }) {
  const [limit, setLimit] = useState(PAGE);
  const [text, setText] = useState("");
  const plan = useMemo(() => planOf(rows, attempt), [rows, attempt]);
  const progress = useMemo(() => progressOf(plan.changes), [plan]);
  if (plan.changes.length === 0 && plan.drift.length === 0) {
    return isDone ? <Empty title="No changes">The resources are as the template describes them.</Empty> : <Empty title="No plan yet">It appears here as soon as Terraform has made it.</Empty>;
  }
  const wanted = text.toLowerCase();
  const shown = plan.changes.filter((row) => row.address.toLowerCase().includes(wanted));
  return (
    <div className="plan">
      {warns && plan.destructive > 0 ? <Notice tone="bad" title={plan.destructive === 1 ? "One resource is destroyed or replaced." : `${plan.destructive} resources are destroyed or replaced.`}>They are first in the list.</Notice> : null}
      {progress.done + progress.running + progress.failed > 0 ? (
        <div className="progress">
          <progress value={progress.done + progress.failed} max={progress.total} aria-label="Applied resources" />
          <span className="tabular">{progress.done} of {progress.total} done{progress.failed > 0 ? `, ${progress.failed} failed` : ""}</span>
        </div>
      ) : null}
      {plan.changes.length > 12 ? (
        <label className="search"><Icon name="search" /><span className="sr">Filter resources</span><input type="search" placeholder="Address…" value={text} onChange={(event) => setText(event.target.value)} /></label>
      ) : null}
      <ul className="changes" aria-label="Planned changes">
        {shown.slice(0, limit).map((row) => <ChangeRow key={row.position} row={row} applying={applying} detailed={detailed} />)}
      </ul>
      {shown.length > limit ? <button type="button" className="button more" onClick={() => setLimit(limit + 5 * PAGE)}>Show {shown.length - limit} more</button> : null}
      {plan.omitted > 0 ? <p className="quiet">{plan.omitted.toLocaleString("en")} more changes are not listed here. The log has them.</p> : null}
      {plan.drift.length > 0 ? (
        <details className="drift">
          <summary>{plan.drift.length === 1 ? "One resource was" : `${plan.drift.length} resources were`} changed outside of Terraform</summary>
          <ul className="changes">{plan.drift.map((row) => <ChangeRow key={row.position} row={row} applying={false} detailed={detailed} />)}</ul>
        </details>
      ) : null}
    </div>
  );
}

function ChangeRow({ row, applying, detailed }: { row: Change; applying: boolean; detailed: boolean }) {
  const [open, setOpen] = useState(false);
  const { sign, word, tone } = signOf(row.action);
  const attributes = attributesOf(row);
  const head = (
    <>
      <span className="sign" aria-hidden="true">{sign}</span>
      <span className="verb">{word}</span>
      <code className="address">{row.address}</code>
      <Progress row={row} applying={applying} />
    </>
  );
  return (
    <li className={`change tone-${tone} ${row.status.toLowerCase()}`}>
      {attributes.length > 0 ? (
        <button type="button" className="change-head" aria-expanded={open} onClick={() => setOpen(!open)}>
          <span className={open ? "turn open" : "turn"}><Icon name="chevron" size={12} /></span>
          {head}
          <span className="quiet nowrap wide-only attribute-count">{attributes.length} attribute{attributes.length === 1 ? "" : "s"}</span>
        </button>
      ) : <div className="change-head">{detailed ? <span className="turn" /> : null}{head}</div>}
      {row.error ? <pre className="change-error">{row.error}</pre> : null}
      {open ? <Attributes attributes={attributes} action={row.action} /> : null}
    </li>
  );
}

function Progress({ row, applying }: { row: Change; applying: boolean }) {
  switch (row.status) {
    case "RUNNING":
      return <span className="step run"><i className="dot moving" /> <Lasting from={row.started_at} to={null} /></span>;
    case "DONE":
      return <span className="step good"><Icon name="check" size={13} /> {row.seconds === null ? "done" : span(row.seconds)}</span>;
    case "FAILED":
      return <span className="step bad"><Icon name="close" size={13} /> failed{row.seconds === null ? "" : ` after ${span(row.seconds)}`}</span>;
    default:
      return <span className="step quiet">{applying && row.action !== "no-op" && row.action !== "read" ? "waits" : ""}</span>;
  }
}

function Attributes({ attributes, action }: { attributes: AttributeChange[]; action: string }) {
  return (
    <div className="attributes" role="table" aria-label="Attributes">
      {attributes.map((attribute) => (
        <div key={attribute.path} role="row" className={`attribute${isLong(attribute) ? " long" : ""}`}>
          <div role="rowheader" className="path">
            <code>{attribute.path}</code>
            {attribute.requires_replace ? <span className="tag tag-destroy">forces replacement</span> : null}
            {attribute.truncated ? <span className="tag">cut</span> : null}
          </div>
          {isLong(attribute) ? <Difference attribute={attribute} /> : (
            <div role="cell" className="sides">
              {action === "create" ? null : <><Value shown={sideOf(attribute, "before")} side="before" /><span className="arrow" aria-label="becomes">→</span></>}
              {action === "delete" ? <span className="gone">removed</span> : <Value shown={sideOf(attribute, "after")} side="after" />}
            </div>
          )}
        </div>
      ))}
    </div>
  );
}

function Value({ shown, side }: { shown: Shown; side: "before" | "after" }) {
  switch (shown.kind) {
    case "masked":
      return <span className="masked"><Icon name="lock" size={12} /> sensitive</span>;
    case "unknown":
      return <span className="unknown">known after apply</span>;
    case "absent":
      return <span className="absent">none</span>;
    default:
      return <code className={`value ${side}`}>{shown.text === "" ? "\"\"" : shown.text}</code>;
  }
}

function Difference({ attribute }: { attribute: AttributeChange }) {
  const lines = useMemo(() => {
    const before = sideOf(attribute, "before");
    const after = sideOf(attribute, "after");
    return hunks(diffLines(before.kind === "text" ? before.text : "", after.kind === "text" ? after.text : ""));
  }, [attribute]);
  return (
    <div role="cell" className="diff" tabIndex={0} aria-label={`Difference of ${attribute.path}`}>
      {lines.map((line, i) =>
        line.kind === "skipped" ? (
          <div key={i} className="skipped">{line.n} lines are the same</div>
        ) : (
          <div key={i} className={line.kind}><span aria-hidden="true">{line.kind === "added" ? "+" : line.kind === "removed" ? "−" : " "}</span><span className="sr">{line.kind}: </span>{line.text}</div>
        ),
      )}
    </div>
  );
}
