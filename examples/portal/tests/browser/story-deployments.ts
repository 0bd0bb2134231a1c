// What becomes of deployments: with a real agent, and with a scripted one where a story has to stand still.

import assert from "node:assert/strict";
import { test } from "node:test";
import { carried } from "./fixtures.ts";
import { startAgent } from "./processes.ts";
import { open, operator, waiting, world } from "./scene.ts";
import { asUser, clusterId, lineCount, queue, sql, wholeText } from "./steps.ts";
import { addCluster, signUp } from "./world.ts";

test("from the sign-up to the outputs: cluster, agent, form, plan, approval, live log", async () => {
  const { page } = await open();
  await signUp(page);
  const key = await addCluster(page, "first");
  assert.match(key, /^tdl_[0-9A-Za-z]{65}$/);
  await page.getByRole("tab", { name: "Docker" }).click();
  assert.ok((await page.getByRole("region", { name: "Docker" }).textContent())!.includes(key));
  await page.evaluate(() => Object.assign(window, { notReloaded: true }));
  const agent = startAgent({ url: world.stack.url, anonKey: world.stack.anonKey, key, name: "agent-1", templates: carried() });
  try {
    await page.getByRole("dialog").getByText("Online").waitFor();
    assert.ok(await page.evaluate(() => (window as unknown as { notReloaded?: boolean }).notReloaded), "the dot turned without a reload");
    await page.getByRole("link", { name: "Deploy something" }).click();

    await page.getByRole("radio", { name: /Hello/ }).check();
    await page.getByRole("textbox", { name: "Name" }).fill("");
    await page.getByRole("textbox", { name: "Greeting" }).fill("H3llo");
    await page.getByRole("textbox", { name: "Lines" }).fill("0");
    await page.getByRole("button", { name: "Plan", exact: true }).click();
    await page.getByText("3 values have to be corrected.").waitFor();
    await page.getByText("Must be from 1 to 100000.").waitFor();
    assert.ok(await page.getByRole("textbox", { name: "Name" }).evaluate((input) => input === document.activeElement), "the first wrong field has the focus");
    await page.getByRole("textbox", { name: "Name" }).fill("portal");
    await page.getByRole("textbox", { name: "Greeting" }).fill("Hello");
    await page.getByRole("textbox", { name: "Lines" }).fill("60");
    await page.getByRole("button", { name: "Plan", exact: true }).click();

    await page.getByRole("button", { name: "Approve and apply" }).waitFor();
    const planned = page.getByRole("list", { name: "Planned changes" });
    await planned.getByText("terraform_data.greeting").waitFor();
    await planned.getByText("terraform_data.secret").waitFor();
    await page.getByRole("textbox", { name: "Comment" }).fill("looks right");
    await page.getByRole("button", { name: "Approve and apply" }).click();

    await page.locator(".text", { hasText: "line 1 of 60" }).waitFor();
    const whileItRuns = await lineCount(page);
    await page.getByText("Success", { exact: true }).first().waitFor();
    assert.ok((await lineCount(page)) > whileItRuns, "lines came while it ran");
    await page.getByText("looks right").waitFor();
    await page.getByRole("button", { name: "Open all phases" }).click().catch(() => undefined);
    const copied = await wholeText(page);
    const numbers = copied.split("\n").flatMap((line) => /line (\d+) of 60/.exec(line)?.[1] ?? []).map(Number);
    assert.deepEqual(numbers, Array.from({ length: 60 }, (_, i) => i + 1), "every line once and in order");
    await page.getByRole("tab", { name: /Outputs/ }).click();
    await page.getByText("Hello, portal!").waitFor();
    assert.equal(await page.getByText("fingerprint").count(), 0, "a sensitive output is not shown");

    await page.getByRole("link", { name: "Destroy" }).click();
    await page.getByRole("heading", { name: "Destroy a stack" }).waitFor();
    assert.equal(await page.getByRole("textbox", { name: "Lines" }).inputValue(), "60", "the destroy has the values of the apply");
    await page.getByRole("button", { name: "Plan the destroy" }).click();
    await page.getByRole("button", { name: "Approve and destroy" }).waitFor();
    await page.getByText("2 resources are destroyed or replaced.").waitFor();
    await page.getByRole("button", { name: "Approve and destroy" }).click();
    await page.getByText("Success", { exact: true }).first().waitFor();

    await page.goto("/stacks/");
    await page.getByRole("row", { name: /hello \/ default/ }).getByText("Success").waitFor();
    await page.goto("/clusters/");
    await page.getByRole("link", { name: "first" }).click();
    await page.getByRole("row", { name: /agent-1/ }).waitFor();
  } catch (error) {
    console.error(agent.log().split("\n").slice(-30).join("\n"));
    throw error;
  } finally {
    await agent.stop();
  }
});

test("a running apply is cancelled, and an agent that is killed is missed", async () => {
  const { page } = await open();
  await signUp(page);
  const key = await addCluster(page, "slow");
  const directory = carried();
  const first = startAgent({ url: world.stack.url, anonKey: world.stack.anonKey, key, name: "doomed", templates: directory });
  await page.getByRole("dialog").getByText("Online").waitFor();
  const cluster = await clusterId(world, page, "slow");

  const cancelled = await queue(world, page, cluster, { template: "slow", stack: "a", variables: { name: "a" } });
  await page.goto(`/deployment/?id=${cancelled}`);
  await page.locator(".text", { hasText: "tick 3" }).first().waitFor();
  await page.getByRole("button", { name: "Cancel", exact: true }).click();
  await page.getByRole("dialog").getByText("nothing is rolled back").waitFor();
  await page.getByRole("dialog").getByRole("textbox", { name: "Comment" }).fill("wrong stack");
  await page.getByRole("button", { name: "Cancel deployment" }).click();
  await page.getByText("Cancelled", { exact: true }).first().waitFor();
  await page.getByText("wrong stack").waitFor();

  const lost = await queue(world, page, cluster, { template: "slow", stack: "b", variables: { name: "b" } });
  await page.goto(`/deployment/?id=${lost}`);
  await page.locator(".text", { hasText: "tick 3" }).first().waitFor();
  await first.kill();
  // What the clock does in a minute, and in ten.
  const silent = (time: string): void => sql(world, `update tendril.leases set last_heartbeat_at = now() - interval '${time}' where deployment_id = '${lost}'; select public.reap_lost_agents();`);
  silent("2 minutes");
  await page.getByText("The agent has fallen silent in the middle of the apply.").waitFor();
  await page.getByText("Agent silent").first().waitFor();
  silent("11 minutes");
  await page.getByText("AGENT_LOST").first().waitFor();
  await page.getByText("Agent lost").first().waitFor();
});

test("a plan is read resource by resource, approved, and followed through the apply", async () => {
  const mine = await operator();
  const { page } = mine;
  const { deployment, run } = await waiting(mine, "prod");
  await page.goto(`/deployment/?id=${deployment}`);
  const rows = page.getByRole("list", { name: "Planned changes" }).getByRole("listitem");
  await rows.first().waitFor();
  const verbs = await rows.locator(".verb").allTextContents();
  assert.deepEqual(verbs, ["Destroy", "Replace", "Forget", "Create", "Update", "Update", "Read"], "what destroys comes first");
  await page.getByText("2 resources are destroyed or replaced.").first().waitFor();
  await page.getByText("$482.17").waitFor();

  await rows.filter({ hasText: "aws_db_instance.main" }).getByRole("button").click();
  await page.getByText("sensitive", { exact: true }).first().waitFor();
  await rows.filter({ hasText: "aws_subnet" }).getByRole("button").click();
  await page.getByText("forces replacement").waitFor();
  await page.getByText("known after apply").first().waitFor();
  await rows.filter({ hasText: "aws_iam_policy" }).getByRole("button").click();
  const difference = page.getByLabel("Difference of policy");
  assert.equal(await difference.locator(".added").count(), 1);
  assert.match((await difference.locator(".added").textContent())!, /s3:PutObject/);
  await page.getByText("One resource was changed outside of Terraform").click();
  await page.getByRole("button", { name: /aws_security_group.web/ }).waitFor();

  await page.getByRole("button", { name: "Approve and apply" }).click();
  await page.getByText("Approved", { exact: true }).first().waitFor();
  await run.report({ phase: "APPLY" });
  await page.getByRole("tab", { name: /Plan/ }).click();
  await run.changes([{ position: 4, status: "RUNNING", started_at: new Date().toISOString() }]);
  await rows.filter({ hasText: "aws_instance.bastion" }).locator(".step.run").waitFor();
  await run.changes([{ position: 4, status: "DONE", seconds: 12 }, { position: 1, status: "FAILED", seconds: 3, error: "BucketAlreadyExists: acme-assets" }]);
  await page.getByText("1 of 6 done, 1 failed").waitFor();
  await page.getByText("BucketAlreadyExists: acme-assets").waitFor();
  await run.end("FAILED", { error_code: "TERRAFORM_FAILED", error_message: "creating S3 bucket: BucketAlreadyExists" });
  await page.getByText("TERRAFORM_FAILED").waitFor();
  await page.getByRole("tab", { name: "Configuration" }).click();
  await page.getByText("secret", { exact: true }).waitFor();
  assert.ok(!(await page.content()).includes("never shown"), "a secret is not shown again");
});

test("a plan is rejected with a comment; of two windows one decides and the other shows that", async () => {
  const mine = await operator();
  const { page, visitor } = mine;
  const rejected = await waiting(mine, "a");
  await page.goto(`/deployment/?id=${rejected.deployment}`);
  await page.getByRole("textbox", { name: "Comment" }).fill("not on a Friday");
  await page.getByRole("button", { name: "Reject" }).click();
  await page.getByText("not on a Friday").waitFor();
  await rejected.run.end("CANCELLED", { error_code: "CANCELLED", error_message: "The plan was rejected." });
  await page.getByText("Cancelled", { exact: true }).first().waitFor();

  const { deployment } = await waiting(mine, "b");
  const other = await visitor.context.newPage();
  const late = await visitor.context.newPage();
  // This one receives nothing once it is open, as on a bad network, and its reader decides on what it shows.
  await late.routeWebSocket(/realtime/, () => {});
  await Promise.all([page, other, late].map((each) => each.goto(`/deployment/?id=${deployment}`)));
  await Promise.all([page, other, late].map((each) => each.getByRole("button", { name: "Approve and apply" }).waitFor()));
  await late.route("**/rest/v1/deployments*", (route) => (route.request().method() === "GET" ? route.abort() : route.continue()));
  await page.getByRole("button", { name: "Approve and apply" }).click();
  await page.getByText("Approved", { exact: true }).first().waitFor();
  await other.getByText("This plan was approved in another window.").waitFor();
  assert.equal(await other.getByRole("button", { name: "Approve and apply" }).count(), 0);
  await late.getByRole("button", { name: "Reject" }).click();
  await late.getByText("This plan does not wait any more.").waitFor();
  const [row] = (await asUser(world, page, "GET", `deployments?id=eq.${deployment}&select=cancel_requested_at,approved_plan`)) as { cancel_requested_at: string | null; approved_plan: string | null }[];
  assert.equal(row!.cancel_requested_at, null, "a rejection that comes too late cancels nothing");
  assert.ok(row!.approved_plan);
});

test("a form has each keyword of a template, errors in place, and echoes no secret", async () => {
  const { page, cluster } = await operator();
  await page.goto(`/new/?cluster=${cluster}&template=everything`);
  await page.getByRole("textbox", { name: "Region" }).fill("mars");
  await page.getByRole("textbox", { name: "Size" }).fill("10");
  await page.getByRole("textbox", { name: "Ratio" }).fill("x");
  await page.getByRole("textbox", { name: "Zones, item 1" }).fill("z");
  await page.getByRole("button", { name: "Add pair" }).click();
  await page.getByLabel("Tags, name 1").fill("team");
  await page.getByLabel("Tags, value 1").fill("far too long");
  await page.getByLabel("Password").fill("short");
  await page.getByRole("textbox", { name: "CIDR" }).fill("10.0.0.0");
  await page.getByRole("textbox", { name: "Rules" }).fill("{");
  await page.getByRole("textbox", { name: "Stack" }).fill("no spaces please");
  assert.equal(await page.getByLabel("Password").getAttribute("type"), "password");
  await page.getByRole("button", { name: "Plan", exact: true }).click();
  for (const sentence of [
    "Must match ^[a-z]{2}(-[a-z]+)+-[0-9]$", "Must be from 1 to 9.", "Must be a number.", "Must have at least 2 items. [0]: Must match ^[a-f]$", "team: Must have at most 8 characters; it has 12.",
    "Must have at least 8 characters.", "Must match /", "Must be JSON", "A stack's name has 1 to 63",
  ]) await page.getByText(sentence).first().waitFor();
  await page.getByRole("textbox", { name: "Region" }).fill("eu-central-1");
  await page.getByRole("textbox", { name: "Size" }).fill("5");
  await page.getByRole("textbox", { name: "Ratio" }).fill("0.5");
  await page.getByRole("textbox", { name: "Zones, item 1" }).fill("a");
  await page.getByRole("group", { name: "Zones" }).getByRole("button", { name: "Add item" }).click();
  await page.getByRole("textbox", { name: "Zones, item 2" }).fill("b");
  await page.getByLabel("Tags, value 1").fill("core");
  await page.getByLabel("Password").fill("long enough");
  await page.getByRole("combobox", { name: "Tier" }).selectOption("large");
  await page.getByRole("combobox", { name: "Public" }).selectOption("true");
  await page.getByRole("textbox", { name: "CIDR" }).fill("10.0.0.0/16");
  await page.getByRole("textbox", { name: "Rules" }).fill('[{"port": 443}]');
  await page.getByRole("textbox", { name: "Stack" }).fill("form");
  await page.getByRole("button", { name: "Plan", exact: true }).click();
  await page.waitForURL("**/deployment/?id=*");
  const [row] = (await asUser(world, page, "GET", `deployments?id=eq.${new URL(page.url()).searchParams.get("id")}&select=config_snapshot`)) as { config_snapshot: unknown }[];
  assert.deepEqual(row!.config_snapshot, {
    template: "everything", stack: "form", action: "apply", approval: true,
    variables: { region: "eu-central-1", size: 5, ratio: 0.5, tier: "large", public: true, zones: ["a", "b"], tags: { team: "core" }, password: "long enough", network: { cidr: "10.0.0.0/16" }, rules: [{ port: 443 }] },
  });
  await page.goto(`/new/?from=${new URL(page.url()).searchParams.get("id")}`);
  await page.getByText("Secrets are not taken over.").waitFor();
  assert.equal(await page.getByLabel("Password").inputValue(), "");
  assert.equal(await page.getByRole("textbox", { name: "Region" }).inputValue(), "eu-central-1");
});
