// The portal in a real browser, on the real stack: one of each for all stories.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { endAll } from "./processes.ts";
import { visits, world } from "./scene.ts";
import "./story-deployments.ts";
import "./story-people.ts";
import "./story-log.ts";
import "./story-pages.ts";

after(async () => {
  await world.close();
  await endAll();
});

test("no page broke its Content-Security-Policy, sent a request to another host, or threw", () => {
  assert.ok(visits.length >= 10);
  assert.deepEqual(visits.flatMap((visitor) => visitor.violations), []);
  assert.deepEqual(visits.flatMap((visitor) => visitor.strangers), []);
  assert.deepEqual(visits.flatMap((visitor) => visitor.errors), []);
});
