// What the stories deploy: templates that need no provider, and a plan with everything that a plan can have.

import { readFileSync } from "node:fs";
import path from "node:path";
import { repository, templates } from "./processes.ts";
import type { PlannedChange } from "./scripted-agent.ts";

const hello = (name: string): string => readFileSync(path.join(repository, "templates/hello", name), "utf8");

const SLOW = `
terraform { required_version = ">= 1.4" }
variable "name" { type = string }
resource "terraform_data" "slow" {
  input = var.name
  provisioner "local-exec" {
    command = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo tick $i; sleep 0.1; done"
  }
}
`;

/** `hello` as it is, and `slow`, which applies for five minutes unless it is stopped. */
export const carried = (): string =>
  templates({
    ...Object.fromEntries(["main.tf", "outputs.tf", "variables.tf", "template.json", "greet.sh"].map((name) => [`hello/${name}`, hello(name)])),
    "slow/main.tf": SLOW,
    "slow/template.json": JSON.stringify(catalogue.find((each) => each.name === "slow")),
  });

/** As an agent publishes it. */
export const catalogue = [
  { name: "hello", digest: "ab".repeat(32), ...(JSON.parse(hello("template.json")) as { title: string; description: string; variables: object }) },
  {
    name: "slow", digest: "ab".repeat(32), title: "Slow", description: "Applies for five minutes.",
    variables: { type: "object", properties: { name: { type: "string", title: "Name" } }, required: ["name"], additionalProperties: false },
  },
  {
    name: "everything", digest: "ab".repeat(32), title: "Everything", description: "Each keyword that a template may use.",
    variables: {
      type: "object",
      properties: {
        region: { type: "string", title: "Region", description: "AWS region.", pattern: "^[a-z]{2}(-[a-z]+)+-[0-9]$", examples: ["eu-central-1"] },
        size: { type: "integer", title: "Size", minimum: 1, maximum: 9, default: 3 },
        ratio: { type: "number", title: "Ratio", maximum: 1 },
        tier: { type: "string", title: "Tier", enum: ["small", "large"], default: "small" },
        public: { type: "boolean", title: "Public", default: false },
        zones: { type: "array", title: "Zones", items: { type: "string", pattern: "^[a-f]$" }, minItems: 2, maxItems: 3, examples: [["a", "b"]] },
        tags: { type: "object", title: "Tags", additionalProperties: { type: "string", maxLength: 8 } },
        password: { type: "string", title: "Password", minLength: 8, sensitive: true },
        network: { type: "object", title: "Network", properties: { cidr: { type: "string", title: "CIDR", pattern: "/" } }, required: ["cidr"] },
        rules: { type: "array", title: "Rules", items: { type: "object" } },
      },
      required: ["region", "zones"],
      additionalProperties: false,
    },
  },
];

const policy = (actions: string[]): string => JSON.stringify({ Version: "2012-10-17", Statement: [{ Effect: "Allow", Action: actions, Resource: "*" }] });

export const plan: PlannedChange[] = [
  { position: 1, address: "aws_s3_bucket.assets", resource_type: "aws_s3_bucket", action: "create", attributes: [{ path: "bucket", after: "acme-assets" }, { path: "arn", unknown: true }] },
  {
    position: 2, address: "aws_db_instance.main", resource_type: "aws_db_instance", action: "update",
    attributes: [{ path: "instance_class", before: "db.t4g.medium", after: "db.r7g.large" }, { path: "password", sensitive: true }, { path: "backup_window", before: "03:00-04:00", after: null }],
  },
  {
    position: 3, address: 'module.network.aws_subnet.private["eu-central-1a"]', resource_type: "aws_subnet", action: "replace",
    attributes: [{ path: "cidr_block", before: "10.0.0.0/24", after: "10.0.16.0/20", requires_replace: true }, { path: "id", before: "subnet-0a1b2c3d", unknown: true }],
  },
  { position: 4, address: "aws_instance.bastion", resource_type: "aws_instance", action: "delete", attributes: [{ path: "instance_type", before: "t3.small" }, { path: "tags", before: { Name: "bastion", Owner: "platform" } }] },
  {
    position: 5, address: "aws_iam_policy.deploy", resource_type: "aws_iam_policy", action: "update",
    attributes: [{ path: "policy", before: policy(["s3:GetObject", "s3:ListBucket"]), after: policy(["s3:GetObject", "s3:PutObject", "s3:ListBucket"]) }],
  },
  { position: 6, address: "data.aws_ami.latest", resource_type: "aws_ami", action: "read", attributes: [{ path: "id", unknown: true }] },
  { position: 7, address: "aws_kms_key.old", resource_type: "aws_kms_key", action: "forget", attributes: [] },
  { position: 8, address: "aws_security_group.web", resource_type: "aws_security_group", action: "no-op", drift: true, attributes: [{ path: "description", before: "web", after: "web (changed by hand)" }] },
];

export const summary = { add: 2, change: 2, remove: 2, import: 0, move: 0, forget: 1, drift: 1 };

export const cost = {
  currency: "USD", monthly: "482.170", hourly: "0.66", usage_monthly: "12.5", resources: { detected: 6, priced: 4, unpriced: 1, unsupported: 0, free: 1 },
  by_resource: [{ name: "aws_db_instance.main", type: "aws_db_instance", monthly: "401.5" }, { name: "aws_s3_bucket.assets", type: "aws_s3_bucket", monthly: null }],
  tool: "infracost 0.10.45", reason: "the cost of aws_s3_bucket.assets depends on use",
};
