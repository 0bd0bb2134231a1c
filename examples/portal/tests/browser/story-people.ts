// Who may see what, and the messages when something fails.

import assert from "node:assert/strict";
import { test } from "node:test";
import { open, operator, waiting, world } from "./scene.ts";
import { asUser, queue, waitForLines, wholeText } from "./steps.ts";
import { signUp } from "./world.ts";

test("two users see nothing of each other: no page, no table", async () => {
  const mine = await operator("private");
  const { deployment, run } = await waiting(mine, "prod");
  const other = await open();
  await signUp(other.page);
  const { page } = other;
  for (const [path, sentence] of [
    [`/deployment/?id=${deployment}`, "There is no such deployment."],
    [`/cluster/?id=${mine.cluster}`, "There is no such cluster."],
    [`/new/?from=${deployment}`, "No cluster to deploy to"],
    [`/deployments/?cluster=${mine.cluster}`, "Nothing matches"],
    ["/clusters/", "No cluster yet"],
    ["/stacks/", "No stack yet"],
    ["/deployments/", "No deployment yet"],
    ["/deployment/?id=nonsense", "There is no such deployment."],
  ] as const) {
    await page.goto(path);
    await page.getByText(sentence).first().waitFor();
    assert.ok(!(await page.content()).includes("private"), path);
  }
  for (const [table, columns, condition] of [
    ["clusters", "id", `id=eq.${mine.cluster}`], ["deployments", "id", `id=eq.${deployment}`], ["deployment_logs", "seq", `deployment_id=eq.${deployment}`],
    ["deployment_changes", "position", `deployment_id=eq.${deployment}`], ["stacks", "state_key", `cluster_id=eq.${mine.cluster}`], ["cluster_templates", "name", `cluster_id=eq.${mine.cluster}`],
    ["agents", "name", `cluster_id=eq.${mine.cluster}`], ["cluster_status", "id", `id=eq.${mine.cluster}`],
  ] as const) {
    assert.ok(((await asUser(world, mine.page, "GET", `${table}?select=${columns}&${condition}`)) as unknown[]).length > 0, `its owner sees ${table}`);
    assert.deepEqual(await asUser(world, page, "GET", `${table}?select=${columns}&${condition}`), [], table);
    assert.deepEqual(await asUser(world, page, "GET", `${table}?select=${columns}`), [], table);
  }
  assert.deepEqual(await asUser(world, page, "PATCH", `deployments?id=eq.${deployment}&select=id`, { cancel_requested_at: new Date().toISOString() }), []);
  await assert.rejects(asUser(world, page, "POST", "deployments?select=id", { cluster_id: mine.cluster, config_snapshot: { template: "hello" } }), /42501/);
  await run.end("FAILED", { error_code: "INTERNAL" });
});

test("an expired session leads to the sign-in and back; a sign-out forgets everything", async () => {
  const mine = await operator();
  const { page, account } = mine;
  await page.goto(`/cluster/?id=${mine.cluster}`);
  await page.getByRole("heading", { name: /production/ }).waitFor();
  // What a browser finds after a long holiday.
  await page.evaluate(() => {
    const session = JSON.parse(localStorage.getItem("tendril-session")!) as { expires_at: number; refresh_token: string };
    localStorage.setItem("tendril-session", JSON.stringify({ ...session, expires_at: 1, refresh_token: "spent" }));
  });
  await page.reload();
  await page.waitForURL("**/sign-in/?next=*");
  await page.getByText("Your session has ended.").waitFor();
  await page.getByLabel("Email").fill(account.email);
  await page.getByLabel("Password").fill("wrong password");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("The address or the password is wrong.").waitFor();
  await page.getByLabel("Password").fill(account.password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(`**/cluster/?id=${mine.cluster}`);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL("**/sign-in/");
  assert.equal(await page.getByText("Your session has ended.").count(), 0);
  assert.equal(await page.evaluate(() => localStorage.getItem("tendril-session")), null);
  await page.goto("/sign-in/?next=https://example.com/");
  await page.getByLabel("Email").fill(account.email);
  await page.getByLabel("Password").fill(account.password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL("**/deployments/");
});

test("a browser that is offline shows that, still shows its rows, and catches up", async () => {
  const mine = await operator();
  const { page, visitor } = mine;
  const deployment = await queue(world, page, mine.cluster, { template: "slow", stack: "offline", variables: { name: "x" } });
  const run = await mine.agent.claim(deployment);
  await run.log("agent", ["terraform apply"]);
  await page.goto(`/deployment/?id=${deployment}`);
  await waitForLines(page, 1);
  await visitor.context.setOffline(true);
  await page.getByText("You are offline.").waitFor();
  await run.log("stdout", ["while away"]);
  await run.end("SUCCESS", { plan_summary: { add: 0 } });
  assert.equal(await page.getByRole("heading", { name: /slow/ }).count(), 1, "what was shown is still there");
  await visitor.context.setOffline(false);
  await page.getByText("Success", { exact: true }).first().waitFor();
  await page.getByText("You are offline.").waitFor({ state: "detached" });
  await waitForLines(page, 2);
});

test("what is refused, unknown, revoked or gone is a sentence with a way on", async () => {
  const mine = await operator("doomed");
  const { page } = mine;
  await page.goto(`/new/?cluster=${mine.cluster}&template=vanished`);
  await page.getByText("There is no template vanished on this cluster any more.").waitFor();
  const queued = await queue(world, page, mine.cluster, { template: "hello", stack: "q", variables: { name: "x" } });
  const second = await queue(world, page, mine.cluster, { template: "hello", stack: "q", variables: { name: "y" } });
  await page.goto(`/deployment/?id=${second}`);
  await page.getByText("It waits for its turn.").waitFor();
  const form = await mine.visitor.context.newPage();
  await form.goto(`/new/?cluster=${mine.cluster}&template=hello`);
  await form.getByRole("textbox", { name: "Name" }).fill("x");

  await page.goto(`/cluster/?id=${mine.cluster}`);
  await page.getByRole("button", { name: "Rotate" }).click();
  await page.getByRole("button", { name: "Create next key" }).click();
  assert.match((await page.getByTestId("cluster-key").textContent())!, /^tdl_/);
  await page.getByRole("button", { name: "I have copied the key" }).click();
  await page.getByRole("button", { name: "Make it the only key" }).click();
  await page.getByText("No agent has used the next key yet").waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Revoke cluster" }).click();
  const confirm = page.getByRole("dialog").getByRole("button", { name: "Revoke cluster" });
  assert.ok(await confirm.isDisabled());
  await page.getByRole("dialog").getByRole("textbox").fill("doomed");
  await confirm.click();
  await page.getByText("This cluster was revoked.").waitFor();

  // The form was open before: the server decides.
  if (await form.getByRole("button", { name: "Plan", exact: true }).isVisible()) {
    await form.getByRole("button", { name: "Plan", exact: true }).click({ timeout: 2000 }).catch(() => undefined);
  }
  await form.getByText(/You may not do that with this cluster|No cluster to deploy to/).waitFor();
  await page.goto(`/deployment/?id=${queued}`);
  await page.getByText("The cluster was revoked").first().waitFor();
  // An address that somebody has changed by hand, and a snapshot that no form would make.
  await page.goto(`/deployment/?id=${queued}&tab=constructor&attempt=-7#L9x`);
  await page.getByText("Not started").waitFor();
  await page.goto("/deployments/?status=toString&q=%00");
  await page.getByRole("heading", { name: "Deployments" }).waitFor();
  await page.getByRole("button", { name: "All", exact: true, pressed: true }).waitFor();
  await page.goto("/no/such/page/");
  await page.getByText("There is no such page.").waitFor();
});

test("a socket that is cut in the middle of the log costs no line, and the page shows it meanwhile", async () => {
  const mine = await operator();
  const { page } = mine;
  const deployment = await queue(world, page, mine.cluster, { template: "slow", stack: "cut", variables: { name: "x" } });
  const run = await mine.agent.claim(deployment);
  await run.report({ phase: "APPLY" });
  await run.log("agent", ["terraform apply"]);
  await page.goto(`/deployment/?id=${deployment}`);
  await page.locator("[data-connection=live]").waitFor();
  let n = 0;
  const write = async (lines: number): Promise<void> => {
    for (let i = 0; i < lines; i++) await run.log("stdout", [`row ${++n}`]);
  };
  await write(20);
  await waitForLines(page, 21);
  const restore = world.wire.cut();
  await page.getByText("Live updates are interrupted.").waitFor();
  await write(30);
  restore();
  await waitForLines(page, 51);
  await page.locator("[data-connection=live]").waitFor({ timeout: 40_000 });
  await write(10);
  await waitForLines(page, 61);
  await page.getByText("Live updates are interrupted.").waitFor({ state: "detached" });
  await run.end("SUCCESS", { plan_summary: { add: 1 } });
  await page.locator("[data-connection=ended]").waitFor();
  const text = await wholeText(page);
  assert.deepEqual([...text.matchAll(/row (\d+)/g)].map((match) => Number(match[1])), Array.from({ length: 60 }, (_, i) => i + 1));
  assert.ok(!text.includes("missing"), "and no gap is left behind");
});

test("a state that is not stored holds its stack: the page shows who has it, and how to go on", async () => {
  const mine = await operator();
  const { page } = mine;
  const deployment = await queue(world, page, mine.cluster, { template: "hello", stack: "held", variables: { name: "x" } });
  const run = await mine.agent.claim(deployment);
  await run.end("FAILED", { error_code: "STATE_NOT_STORED", error_message: "The backend was away." });
  const next = await queue(world, page, mine.cluster, { template: "hello", stack: "held", variables: { name: "y" } });
  await page.goto(`/deployment/?id=${next}`);
  await page.getByText("The state of this stack is not stored yet.").waitFor();
  await page.getByRole("link", { name: "Look at the stack" }).click();
  await page.getByRole("button", { name: "State held" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("scripted", { exact: true }).waitFor();
  const discard = dialog.getByRole("button", { name: "Discard the state" });
  assert.ok(await discard.isDisabled());
  await dialog.getByRole("textbox").fill("hello.held");
  await discard.click();
  await dialog.waitFor({ state: "detached" });
  await page.getByRole("button", { name: "State held" }).waitFor({ state: "detached" });
});
