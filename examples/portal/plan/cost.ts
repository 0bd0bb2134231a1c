// Amounts come as decimal strings and stay so: no float rounds money here.

const SYMBOLS: Record<string, string> = { USD: "$", EUR: "€", GBP: "£" };

/** `42.1734` as `$42.17`; null where it is unknown. Rounded half up, on the digits. */
export function amount(text: string | null | undefined, currency = "USD"): string | null {
  const match = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text ?? "");
  if (!match) return null;
  const [, sign, whole, fraction = ""] = match;
  const digits = BigInt(whole! + fraction.padEnd(2, "0").slice(0, 2));
  const cents = digits + (Number(fraction[2] ?? "0") >= 5 ? 1n : 0n);
  // Something that is less than a cent is not free.
  if (cents === 0n && /[1-9]/.test(fraction)) return `< ${symbol(currency)}0.01`;
  const shown = cents.toString().padStart(3, "0");
  const units = shown.slice(0, -2).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return `${sign}${symbol(currency)}${units}.${shown.slice(-2)}`;
}

const symbol = (currency: string): string => SYMBOLS[currency] ?? `${currency} `;
