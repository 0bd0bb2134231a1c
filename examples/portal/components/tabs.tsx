"use client";
import { useRef, type ReactNode } from "react";

export interface Tab<T extends string> {
  name: T;
  title: string;
  extra?: ReactNode;
}

/** Arrow keys move between tabs, as everywhere. The caller shows the panel with id `panel-<name>`. */
export function Tabs<T extends string>({ tabs, active, onChange, label }: { tabs: Tab<T>[]; active: T; onChange(name: T): void; label: string }) {
  const list = useRef<HTMLDivElement>(null);
  const move = (by: number): void => {
    const at = tabs.findIndex((tab) => tab.name === active);
    const next = tabs[(at + by + tabs.length) % tabs.length]!;
    onChange(next.name);
    list.current?.querySelector<HTMLElement>(`#tab-${next.name}`)?.focus();
  };
  return (
    <div
      ref={list}
      className="tabs"
      role="tablist"
      aria-label={label}
      onKeyDown={(event) => {
        if (event.key === "ArrowRight") move(1);
        else if (event.key === "ArrowLeft") move(-1);
        else return;
        event.preventDefault();
      }}
    >
      {tabs.map((tab) => (
        <button
          key={tab.name}
          type="button"
          role="tab"
          id={`tab-${tab.name}`}
          aria-selected={tab.name === active}
          aria-controls={`panel-${tab.name}`}
          tabIndex={tab.name === active ? 0 : -1}
          onClick={() => onChange(tab.name)}
        >
          {tab.title}
          {tab.extra}
        </button>
      ))}
    </div>
  );
}

export const Panel = ({ name, active, children, className = "" }: { name: string; active: string; children: ReactNode; className?: string }) =>
  name === active ? (
    <div role="tabpanel" id={`panel-${name}`} aria-labelledby={`tab-${name}`} className={`panel ${className}`}>
      {children}
    </div>
  ) : (
    <div role="tabpanel" id={`panel-${name}`} aria-labelledby={`tab-${name}`} hidden />
  );
