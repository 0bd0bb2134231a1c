// Serves the portal beside the demo's stack: gives the demo's user a password, then prints the portal's address.
//
//   SUPABASE_URL=… SUPABASE_PUBLISHABLE_KEY=… SUPABASE_SERVICE_ROLE_KEY=… DEMO_USER=<id> DEMO_PASSWORD=… node server/demo.mjs

import path from "node:path";
import { serve } from "./serve.mjs";

const { SUPABASE_URL: supabaseUrl, SUPABASE_PUBLISHABLE_KEY: publishableKey, SUPABASE_SERVICE_ROLE_KEY: serviceKey, DEMO_USER: user, DEMO_PASSWORD: password } = process.env;

const answer = await fetch(`${supabaseUrl}/auth/v1/admin/users/${user}`, {
  method: "PUT",
  headers: { apikey: serviceKey, Authorization: `Bearer ${serviceKey}`, "Content-Type": "application/json" },
  body: JSON.stringify({ password }),
});
if (!answer.ok) {
  console.error(`portal: the demo's user gets no password: ${answer.status} ${await answer.text()}`);
  process.exit(1);
}
const settings = { dir: path.resolve(import.meta.dirname, "../out"), supabaseUrl, publishableKey };
// The usual port where it is free.
const { url, close } = await serve({ ...settings, port: 3000 }).catch(() => serve(settings));
console.log(url);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => void close().then(() => process.exit(0)));
// The demo has ended, however it did.
process.stdin.resume().on("end", () => void close().then(() => process.exit(0)));
