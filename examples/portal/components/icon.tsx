// Line icons of 16 units, drawn here: a page requests nothing from other hosts.

const PATHS = {
  deployments: "M8 1.8 13.4 4.9v6.2L8 14.2 2.6 11.1V4.9zM2.8 5 8 8l5.2-3M8 8v6",
  stacks: "M8 2 14 5 8 8 2 5zM2.2 8 8 11l5.8-3M2.2 11 8 14l5.8-3",
  clusters: "M2.5 3h11v4h-11zM2.5 9h11v4h-11zM5 5h.01M5 11h.01",
  plus: "M8 3v10M3 8h10",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.4 10.4 14 14",
  check: "M3 8.5 6.5 12 13 4.5",
  close: "M4 4l8 8M12 4l-8 8",
  chevron: "M6 3.5 10.5 8 6 12.5",
  down: "M3.5 6 8 10.5 12.5 6",
  up: "M3.5 10 8 5.5 12.5 10",
  copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
  download: "M8 2v8M4.5 7 8 10.5 11.5 7M2.5 13.5h11",
  raw: "M5 4 1.5 8 5 12M11 4l3.5 4-3.5 4M9.2 3 6.8 13",
  clock: "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8zM8 4.5V8l2.5 1.8",
  wrap: "M2 4h12M2 8h9.5a2.3 2.3 0 0 1 0 4.6H9M2 12h3M10.5 10.6 8.8 12.6l1.7 2",
  fold: "M2.5 8h11M8 1.5V5M6 3.3 8 5.3l2-2M8 14.5V11M6 12.7l2-2 2 2",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3 3l1.2 1.2M11.8 11.8 13 13M13 3l-1.2 1.2M4.2 11.8 3 13",
  moon: "M13.5 9.6A6 6 0 0 1 6.4 2.5a6 6 0 1 0 7.1 7.1z",
  out: "M6 2.5H2.5v11H6M10 4.5 13.5 8 10 11.5M13.5 8H6",
  warn: "M8 2 14.5 13.5h-13zM8 6.2v3.6M8 11.7v.2",
  info: "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8zM8 7.2v4M8 4.8v.2",
  key: "M5.5 6.5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM7.8 7.6 13.5 2M11 4.5l2 2",
  link: "M6.5 9.5 9.5 6.5M7 4.5 8.5 3a3 3 0 0 1 4.3 4.3L11.3 9M9 11.5 7.5 13A3 3 0 0 1 3.2 8.7L4.7 7",
  again: "M13 8a5 5 0 1 1-1.6-3.7M13.2 2v3h-3",
  stop: "M4 4h8v8H4z",
  trash: "M2.5 4h11M6 4V2.5h4V4M4 4l.6 9.5h6.8L12 4M6.7 6.5v4.5M9.3 6.5v4.5",
  git: "M4.5 2v8.5M4.5 10.5a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6zM11.5 2.4a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6zM11.5 6c0 2.5-2 3-4 3.3-1.600.2-3 .6-3 1.7",
  lock: "M3.5 7h9v6.5h-9zM5.500 7V5a2.5 2.5 0 0 1 5 0v2",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The mark: a tendril that climbs. */
export function Logo() {
  return (
    <svg className="logo" width="22" height="22" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d="M12 22C12 15 5.500 15 5.500 9.500A4.500 4.500 0 0 1 14.500 9c0 2.200-1.600 3.200-3 3.200" />
      <path d="M12 17c0-3.500 6.500-3 6.500-8.500V4h-2.800c-2 0-3.700 1.600-3.700 3.600" />
    </svg>
  );
}
