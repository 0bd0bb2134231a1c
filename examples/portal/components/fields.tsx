"use client";
// A form out of fields: each field shows what it expects and what is wrong with it.

import { useId } from "react";
import type { Draft, Drafts } from "../form/draft.ts";
import type { Fault } from "../form/rule.ts";
import type { Field } from "../form/schema.ts";
import { Icon } from "./icon.tsx";

interface Props {
  fields: Field[];
  drafts: Drafts;
  faults: Fault[];
  onChange(drafts: Drafts): void;
}

export function Fields({ fields, drafts, faults, onChange }: Props) {
  return fields.map((field) => (
    <FieldRow key={field.path} field={field} draft={drafts[field.name] ?? null} faults={faults} onChange={(draft) => onChange({ ...drafts, [field.name]: draft })} />
  ));
}

interface RowProps {
  field: Field;
  draft: Draft;
  faults: Fault[];
  onChange(draft: Draft): void;
}

const within = (path: string, fault: Fault): boolean => fault.path === path || fault.path.startsWith(`${path}[`) || fault.path.startsWith(`${path}.`);

function FieldRow({ field, draft, faults, onChange }: RowProps) {
  const id = useId();
  if (field.widget === "group") {
    const own = faults.filter((fault) => fault.path === field.path);
    return (
      <fieldset className="group">
        <legend>{field.title}</legend>
        {field.description ? <p className="field-hint">{field.description}</p> : null}
        {own.map((fault) => <p key={fault.message} className="field-fault">{fault.message}</p>)}
        <Fields fields={field.fields} drafts={isDrafts(draft) ? draft : {}} faults={faults} onChange={onChange} />
      </fieldset>
    );
  }
  const mine = faults.filter((fault) => within(field.path, fault));
  const described = [field.description ? `${id}-hint` : "", mine.length > 0 ? `${id}-fault` : ""].filter(Boolean).join(" ") || undefined;
  const attributes = { id, name: field.path, "aria-describedby": described, "aria-invalid": mine.length > 0 || undefined, "aria-required": field.required || undefined };
  // A list and a map are several inputs: their label belongs to the group.
  const several = field.widget === "list" || field.widget === "map";
  return (
    <div className={`field${mine.length > 0 ? " wrong" : ""}`} {...(several ? { role: "group", "aria-labelledby": `${id}-title`, "aria-describedby": described } : {})}>
      <div className="field-head">
        {several ? <span className="field-title" id={`${id}-title`}>{field.title}</span> : <label className="field-title" htmlFor={id}>{field.title}</label>}
        {field.required ? null : <span className="field-optional">optional</span>}
        {field.sensitive ? <span className="field-optional"><Icon name="lock" size={12} /> secret</span> : null}
      </div>
      {field.description ? <p className="field-hint" id={`${id}-hint`}>{field.description}</p> : null}
      <Widget field={field} draft={draft} attributes={attributes} onChange={onChange} />
      {mine.length > 0 ? (
        <p className="field-fault" id={`${id}-fault`}>
          {mine.map((fault) => (fault.path === field.path ? fault.message : `${fault.path.slice(field.path.length).replace(/^\./, "")}: ${fault.message}`)).join(" ")}
        </p>
      ) : null}
    </div>
  );
}

const isDrafts = (draft: Draft): draft is Drafts => typeof draft === "object" && draft !== null && !Array.isArray(draft);
const example = (field: Field): string | undefined => {
  const first = field.schema.examples?.[0];
  return first === undefined || field.sensitive ? undefined : typeof first === "string" ? first : JSON.stringify(first);
};

function Widget({ field, draft, attributes, onChange }: { field: Field; draft: Draft; attributes: object & { id: string }; onChange(draft: Draft): void }) {
  const text = typeof draft === "string" ? draft : "";
  switch (field.widget) {
    case "switch":
      return (
        <select {...attributes} value={draft === null ? "" : String(draft)} onChange={(event) => onChange(event.target.value === "" ? null : event.target.value === "true")}>
          {field.required && draft !== null ? null : <option value="">{field.schema.default === undefined ? "Not set" : `Default (${field.schema.default === true ? "yes" : "no"})`}</option>}
          <option value="true">Yes</option>
          <option value="false">No</option>
        </select>
      );
    case "choice":
      return (
        <select {...attributes} value={text} onChange={(event) => onChange(event.target.value)}>
          {field.required && text !== "" ? null : <option value="">{field.required ? "Choose…" : "Not set"}</option>}
          {field.schema.enum!.map((choice) => {
            const shown = typeof choice === "string" ? choice : JSON.stringify(choice);
            return <option key={shown} value={shown}>{shown}</option>;
          })}
        </select>
      );
    case "number":
      return <input {...attributes} inputMode="decimal" className="short" value={text} placeholder={example(field)} onChange={(event) => onChange(event.target.value)} autoComplete="off" />;
    case "json":
      return <textarea {...attributes} rows={4} spellCheck={false} className="mono" value={text} placeholder={example(field)} onChange={(event) => onChange(event.target.value)} />;
    case "list":
      return <List field={field} items={Array.isArray(draft) ? (draft as string[]) : []} onChange={onChange} />;
    case "map":
      return <Map field={field} pairs={Array.isArray(draft) ? (draft as [string, string][]) : []} onChange={onChange} />;
    default:
      // A password field is no place for several lines: what a person cannot see is pasted whole.
      return field.sensitive
        ? <input {...attributes} type="password" autoComplete="new-password" spellCheck={false} value={text} onChange={(event) => onChange(event.target.value)} />
        : <input {...attributes} type="text" autoComplete="off" spellCheck={false} value={text} placeholder={example(field)} onChange={(event) => onChange(event.target.value)} />;
  }
}

function List({ field, items, onChange }: { field: Field; items: string[]; onChange(items: string[]): void }) {
  const examples = Array.isArray(field.schema.examples?.[0]) ? (field.schema.examples[0] as unknown[]).map(String) : [];
  const rows = items.length === 0 ? [""] : items;
  return (
    <div className="rows">
      {rows.map((item, i) => (
        <div key={i} className="row">
          <input
            type={field.sensitive ? "password" : "text"} aria-label={`${field.title}, item ${i + 1}`} value={item} placeholder={examples[i] ?? examples[0]} autoComplete="off" spellCheck={false}
            onChange={(event) => onChange(rows.map((other, j) => (j === i ? event.target.value : other)))}
            onPaste={(event) => {
              // Several lines pasted are several items.
              const lines = event.clipboardData.getData("text").split(/[\n,]+/).map((line) => line.trim()).filter(Boolean);
              if (lines.length < 2) return;
              event.preventDefault();
              onChange([...rows.slice(0, i), ...lines, ...rows.slice(i + 1)]);
            }}
          />
          <button type="button" className="button ghost square" aria-label={`Remove item ${i + 1} of ${field.title}`} disabled={items.length === 0} onClick={() => onChange(rows.filter((_, j) => j !== i))}><Icon name="close" /></button>
        </div>
      ))}
      <button type="button" className="button small" disabled={rows.length >= (field.schema.maxItems ?? 10_000)} onClick={() => onChange([...rows, ""])}><Icon name="plus" /> Add item</button>
    </div>
  );
}

function Map({ field, pairs, onChange }: { field: Field; pairs: [string, string][]; onChange(pairs: [string, string][]): void }) {
  const set = (i: number, pair: [string, string]): void => onChange(pairs.map((other, j) => (j === i ? pair : other)));
  return (
    <div className="rows">
      {pairs.map(([name, value], i) => (
        <div key={i} className="row">
          <input type="text" aria-label={`${field.title}, name ${i + 1}`} value={name} placeholder="name" autoComplete="off" spellCheck={false} onChange={(event) => set(i, [event.target.value, value])} />
          <input type={field.sensitive ? "password" : "text"} aria-label={`${field.title}, value ${i + 1}`} value={value} placeholder="value" autoComplete="off" spellCheck={false} onChange={(event) => set(i, [name, event.target.value])} />
          <button type="button" className="button ghost square" aria-label={`Remove pair ${i + 1} of ${field.title}`} onClick={() => onChange(pairs.filter((_, j) => j !== i))}><Icon name="close" /></button>
        </div>
      ))}
      <button type="button" className="button small" onClick={() => onChange([...pairs, ["", ""]])}><Icon name="plus" /> Add pair</button>
    </div>
  );
}
