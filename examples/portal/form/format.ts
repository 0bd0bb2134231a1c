// The formats of a text that the agent checks.

const isLabel = (label: string): boolean => /^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/.test(label);
const isHostname = (name: string): boolean => name.length <= 253 && name.split(".").every(isLabel);
const isUrl = (text: string): boolean => URL.canParse(text);

function isDate(text: string): boolean {
  if (!/^\d{4}-\d{2}-\d{2}$/.test(text)) return false;
  const date = new Date(`${text}T00:00:00Z`);
  // The 30th of February becomes another day.
  return !Number.isNaN(date.getTime()) && date.toISOString().startsWith(text);
}

const FORMATS: Record<string, { fits(text: string): boolean; what: string }> = {
  ipv4: { fits: (text) => /^\d{1,3}(\.\d{1,3}){3}$/.test(text) && text.split(".").every((part) => Number(part) <= 255 && String(Number(part)) === part), what: "an IPv4 address" },
  ipv6: { fits: (text) => /^[0-9A-Fa-f:.]+$/.test(text) && text.includes(":") && isUrl(`http://[${text}]/`), what: "an IPv6 address" },
  uuid: { fits: (text) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text), what: "a UUID" },
  uri: { fits: isUrl, what: "an absolute URI" },
  date: { fits: isDate, what: "a date such as 2026-01-31" },
  "date-time": { fits: (text) => /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?([Zz]|[+-]\d{2}:?\d{2})$/.test(text) && isDate(text.slice(0, 10)) && !Number.isNaN(Date.parse(text)), what: "a time such as 2026-01-31T12:00:00Z" },
  email: { fits: (text) => { const at = text.indexOf("@"); return at > 0 && !/\s/.test(text.slice(0, at)) && isHostname(text.slice(at + 1)); }, what: "an e-mail address" },
  hostname: { fits: isHostname, what: "a host name" },
};

/** What a text must be, where it is not; a format that is not known here is left to the agent. */
export function formatFault(format: string | undefined, text: string): string | null {
  const known = format !== undefined && Object.hasOwn(FORMATS, format) ? FORMATS[format] : undefined;
  return known && !known.fits(text) ? `Must be ${known.what}.` : null;
}
