//! Templates that are odd, with the real terraform: what Terraform allows runs, what it refuses is refused with its own words, and
//! nothing of either harms the agent or the row.

use std::{fs, os::unix::fs::symlink, path::Path};

use serde_json::{Value, json};
use tendril_tests::{Row, World, until};

/// One template: its files, what the deployment adds, and what must come of it.
struct Odd {
    name: &'static str,
    lay_out: fn(&Path),
    /// Fields of `config_snapshot` beside the template's name.
    config: Value,
    status: &'static str,
    code: Option<&'static str>,
    /// What must be in the message or the log, and what must not.
    says: &'static str,
    hides: &'static str,
    /// What else must be so.
    holds: fn(&Row, &str),
}

/// One that runs.
fn runs(name: &'static str, lay_out: fn(&Path)) -> Odd {
    let config = json!({});
    Odd { name, lay_out, config, status: "SUCCESS", code: None, says: "", hides: "\u{0}", holds: |_, _| {} }
}

/// One that is refused: the code, and a part of the sentence.
fn fails(name: &'static str, lay_out: fn(&Path), code: &'static str, says: &'static str) -> Odd {
    Odd { status: "FAILED", code: Some(code), says, ..runs(name, lay_out) }
}

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(path, text).expect("a file");
}

const PLAIN: &str = "resource \"terraform_data\" \"a\" { input = 1 }\n";

fn outputs(row: &Row) -> Value {
    row.outputs.clone().map(Value::Object).unwrap_or_default()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn odd_templates() -> Vec<Odd> {
    vec![
        Odd {
            holds: |row, _| {
                let outputs = outputs(row);
                let keys: Vec<&String> = outputs.as_object().expect("outputs").keys().collect();
                // Terraform itself keeps no output that is null.
                assert_eq!(keys, ["deep", "empty", "mixed", "odd"], "{outputs}");
                assert_eq!(outputs["mixed"]["b"], json!([null, {"c": null}]));
                assert_eq!(outputs["odd"], json!({"a\u{1b}[31m\"\\": "\u{202e}x\u{7}"}));
            },
            ..runs("odd-outputs", |dir| {
                write(
                    dir,
                    "main.tf",
                    r#"
output "nothing" { value = null }
output "empty" { value = {} }
output "mixed" { value = { a = tolist([]), b = [null, { c = null }] } }
output "deep" { value = [[[[[[[[{ x = [] }]]]]]]]] }
output "secret" {
  value     = { token = "canaryOdd123456", list = ["canaryOdd654321"] }
  sensitive = true
}
"#,
                );
                write(
                    dir,
                    "more.tf.json",
                    r#"{"output": {"odd": {"value": {"a\u001b[31m\"\\": "\u202ex\u0007"}}}}"#,
                );
            })
        },
        Odd {
            holds: |row, _| {
                let outputs = outputs(row);
                assert_eq!(outputs["ok"], "fine", "{row:?}");
                assert!(
                    outputs["huge"].as_str().is_some_and(|text| text.contains("too many digits")),
                    "{outputs}"
                );
            },
            ..runs("outputs-of-many-digits", |dir| {
                write(
                    dir,
                    "main.tf",
                    "output \"huge\" { value = [1e200000] }\noutput \"small\" { value = 1e-20000 }\noutput \"ok\" { value = \"fine\" }\n",
                );
            })
        },
        runs("a-file-about-states", |dir| write(dir, "remote.tfstate.tf", PLAIN)),
        Odd {
            config: json!({"variables": {"db": {"password": "canaryMarked4711", "user": "shown-user"}}}),
            hides: "canaryMarked4711",
            says: "shown-user",
            ..runs("a-mark-inside-a-schema", |dir| {
                write(
                    dir,
                    "main.tf",
                    "variable \"db\" { type = any }\nresource \"terraform_data\" \"a\" {\n  provisioner \"local-exec\" { command = \"echo ${var.db.password} ${var.db.user}\" }\n}\n",
                );
                let schema = json!({"properties": {"db": {"properties": {"password": {"sensitive": true}, "user": {}}}}});
                write(dir, "template.json", json!({"variables": schema}).to_string());
            })
        },
        Odd {
            hides: "canaryNested777",
            ..fails(
                "half-secret-output",
                |dir| {
                    write(
                        dir,
                        "main.tf",
                        "output \"x\" { value = { a = sensitive(\"canaryNested777\") } }\n",
                    );
                },
                "TERRAFORM_FAILED",
                "sensitive",
            )
        },
        Odd {
            holds: |row, log| {
                assert!(log.contains("Apply complete"), "{log}");
                assert_eq!(outputs(row)["small"], "fine", "{row:?}");
            },
            ..runs("enormous-output", |dir| {
                write(
                    dir,
                    "main.tf",
                    "locals { line = join(\"\", [for n in range(1000) : \"0123456789\"]) }\noutput \"big\" { value = join(\"\", [for n in range(1000) : local.line]) }\noutput \"bigger\" { value = join(\"\", concat([for n in range(1000) : local.line], [for n in range(1000) : local.line])) }\noutput \"small\" { value = \"fine\" }\n",
                );
            })
        },
        Odd {
            holds: |row, _| assert_eq!(outputs(row).as_object().map(serde_json::Map::len), Some(3000)),
            ..runs("three-thousand-outputs", |dir| {
                let outputs: Vec<_> =
                    (0..3000).map(|n| format!("output \"o{n}\" {{ value = {n} }}\n")).collect();
                write(dir, "main.tf", outputs.concat());
            })
        },
        runs("modules-in-modules", |dir| {
            let mut at = dir.to_path_buf();
            for _ in 0..20 {
                write(&at, "main.tf", "module \"m\" { source = \"./m\" }\n");
                at = at.join("m");
            }
            write(&at, "main.tf", PLAIN);
        }),
        runs("backends-in-odd-places", |dir| {
            write(
                dir,
                "main.tf",
                format!(
                    "terraform {{\n  backend \"s3\" {{\n    bucket = \"not-there\"\n    key = \"k\"\n    region = \"eu-central-1\"\n  }}\n}}\nmodule \"m\" {{ source = \"./m\" }}\n{PLAIN}"
                ),
            );
            write(
                dir,
                "a_override.tf",
                "terraform {\n  backend \"local\" { path = \"/tmp/stolen.tfstate\" }\n}\n",
            );
            write(dir, "m/main.tf", "terraform {\n  backend \"pg\" {}\n}\n");
        }),
        fails(
            "a-later-override",
            |dir| {
                write(dir, "main.tf", PLAIN);
                write(
                    dir,
                    "zzz_override.tf",
                    "terraform {\n  backend \"local\" { path = \"/tmp/stolen.tfstate\" }\n}\n",
                );
            },
            "CONFIG_INVALID",
            "would replace the backend",
        ),
        runs("a-cloud", |dir| {
            write(
                dir,
                "main.tf",
                format!(
                    "terraform {{\n  cloud {{\n    organization = \"acme\"\n    workspaces {{ name = \"prod\" }}\n  }}\n}}\n{PLAIN}"
                ),
            );
        }),
        Odd {
            says: "Warning: Check block assertion failed",
            holds: |row, _| {
                assert_eq!(
                    row.plan_summary.as_ref().map(|plan| plan["add"].clone()),
                    Some(json!(1)),
                    "{row:?}"
                );
            },
            ..runs("newer-blocks", |dir| {
                write(
                    dir,
                    "main.tf",
                    format!(
                        "{PLAIN}moved {{\n  from = terraform_data.old\n  to = terraform_data.a\n}}\nremoved {{\n  from = terraform_data.gone\n  lifecycle {{ destroy = false }}\n}}\ncheck \"never\" {{\n  assert {{\n    condition = terraform_data.a.input == 2\n    error_message = \"it does not hold\"\n  }}\n}}\n"
                    ),
                );
            })
        },
        fails(
            "an-import-of-nothing",
            |dir| {
                write(
                    dir,
                    "main.tf",
                    format!("{PLAIN}import {{\n  to = terraform_data.b\n  id = \"x\"\n}}\n"),
                );
            },
            "TERRAFORM_FAILED",
            "main.tf:",
        ),
        Odd {
            holds: |_, log| {
                assert!(!log.contains('\u{0}') && log.contains("terraform_data.ünïcödé"), "{log}");
            },
            ..runs("odd-names", |dir| {
                write(
                    dir,
                    "main.tf",
                    "resource \"terraform_data\" \"ünïcödé\" { for_each = toset([\"a\\u001b[31mred\\n\\nError: forged\", \"\\u202ertl\", \"😀\", \"it's \\\"quoted\\\" \\\\ and ${1 + 1}\", \"\\u0007\\u0000\\u009b\"]) }\nresource \"terraform_data\" \"long\" { for_each = toset([join(\"\", [for n in range(600) : \"0123456789\"])]) }\n",
                );
                write(dir, "ün ïcode\u{202e}.tf", "locals { x = 1 }\n");
                write(dir, "line\nbreak.tf", "locals { y = 1 }\n");
                write(dir, "-chdir=..", "no option");
                write(dir, "-destroy.tf", "locals { z = 1 }\n");
            })
        },
        runs("left-overs", |dir| {
            write(dir, "main.tf", PLAIN);
            write(dir, ".terraform/environment", "another-workspace");
            write(dir, ".terraform/terraform.tfstate", "{\"version\": 3, \"backend\": {\"type\": \"s3\"}}");
            write(dir, "terraform.tfstate", "{ not a state");
            write(dir, "terraform.tfstate.d/default/terraform.tfstate", "{ not a state");
            write(dir, ".terraformrc", "credentials \"x\" { token = 1 }");
            write(dir, "crash.log", "panic: of another time\n");
            write(dir, "errored.tfstate", "{}");
            write(dir, "tfplan", "no plan");
        }),
        Odd {
            config: json!({"variables": {"region": "from-the-row"}}),
            holds: |row, _| assert_eq!(outputs(row)["region"], "from-the-row", "{row:?}"),
            ..runs("files-of-variables", |dir| {
                write(
                    dir,
                    "main.tf",
                    "variable \"region\" { type = string }\noutput \"region\" { value = var.region }\n",
                );
                for name in ["terraform.tfvars.json", "zzzz.auto.tfvars.json", "zz_tendril.auto.tfvars.json"]
                {
                    write(dir, name, "{\"region\": \"from-a-file\"}");
                }
                for name in ["terraform.tfvars", "zzzz.auto.tfvars"] {
                    write(dir, name, "region = \"from-a-file\"\n");
                }
            })
        },
        fails(
            "a-broken-lock-file",
            |dir| {
                write(dir, "main.tf", PLAIN);
                write(dir, ".terraform.lock.hcl", "provider {{{");
            },
            "TERRAFORM_FAILED",
            "failed to read dependency lock file",
        ),
        fails(
            "a-lock-file-that-is-a-folder",
            |dir| {
                write(dir, "main.tf", PLAIN);
                write(dir, ".terraform.lock.hcl/x", "");
            },
            "TERRAFORM_FAILED",
            "ock",
        ),
        fails(
            "a-lock-file-of-nothing",
            |dir| {
                write(
                    dir,
                    "main.tf",
                    "terraform {\n  required_providers {\n    x = { source = \"localhost:1/acme/x\" }\n  }\n}\nresource \"x_y\" \"z\" {}\n",
                );
                write(dir, ".terraform.lock.hcl", "");
            },
            "TERRAFORM_FAILED",
            "acme/x",
        ),
        runs("links-inside", |dir| {
            write(dir, "real/main.txt", PLAIN);
            symlink("real/main.txt", dir.join("main.tf")).expect("a link");
            symlink("real", dir.join("mod")).expect("a link");
        }),
        fails(
            "a-link-out",
            |dir| {
                write(dir, "main.tf", PLAIN);
                symlink("/etc/passwd", dir.join("data.tf")).expect("a link");
            },
            "CONFIG_INVALID",
            "a link that leads out of the template",
        ),
        fails(
            "nothing",
            |dir| write(dir, "README.md", "no template"),
            "CONFIG_INVALID",
            "has no file that terraform reads",
        ),
        fails(
            "only-tofu",
            |dir| write(dir, "main.tofu", PLAIN),
            "CONFIG_INVALID",
            "has no file that terraform reads",
        ),
        runs("a-byte-order-mark", |dir| {
            write(dir, "main.tf", format!("\u{feff}{}", PLAIN.replace('\n', "\r\n")));
        }),
        fails(
            "another-encoding",
            |dir| write(dir, "main.tf", PLAIN.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()),
            "TERRAFORM_FAILED",
            "main.tf",
        ),
        fails(
            "a-cycle",
            |dir| {
                write(
                    dir,
                    "main.tf",
                    "locals {\n  a = local.b\n  b = local.a\n}\noutput \"a\" { value = local.a }\n",
                );
            },
            "TERRAFORM_FAILED",
            "Cycle: ",
        ),
        fails(
            "a-backend-that-is-no-file",
            |dir| {
                write(dir, "main.tf", PLAIN);
                write(dir, "zz_tendril_override.tf.json/x", "");
            },
            "CONFIG_INVALID",
            "zz_tendril_override.tf.json",
        ),
        fails(
            "variables-that-are-no-file",
            |dir| {
                write(dir, "main.tf", PLAIN);
                write(dir, "zz_tendril.auto.tfvars.json/x", "");
            },
            "CONFIG_INVALID",
            "zz_tendril.auto.tfvars.json",
        ),
        Odd {
            config: json!({"variables": {"pin": "canaryPin4711"}}),
            hides: "canaryPin4711",
            ..fails(
                "a-validation-that-tells",
                |dir| {
                    write(
                        dir,
                        "main.tf",
                        "variable \"pin\" {\n  type = string\n  sensitive = true\n  validation {\n    condition = length(var.pin) > 99\n    error_message = \"too short\"\n  }\n}\nresource \"terraform_data\" \"a\" {\n  input = nonsensitive(var.pin)\n  lifecycle {\n    precondition {\n      condition = var.pin == \"\"\n      error_message = \"it is ${nonsensitive(var.pin)}\"\n    }\n  }\n}\n",
                    );
                },
                "TERRAFORM_FAILED",
                "too short",
            )
        },
        fails(
            "an-error-about-a-lock",
            |dir| {
                write(
                    dir,
                    "main.tf",
                    "resource \"terraform_data\" \"a\" {\n  provisioner \"local-exec\" { command = \"echo 'Error: Error acquiring the state lock\\n\\nError message: already locked: ID=abc-1\\nLock Info:\\n  ID:        abc-1\\n  Who:       root@here' >&2; exit 1\" }\n}\n",
                );
            },
            "TERRAFORM_FAILED",
            "local-exec provisioner error",
        ),
        Odd {
            says: "Plan: 6000 to add",
            holds: |row, _| {
                assert_eq!(
                    row.plan_summary.as_ref().map(|plan| plan["add"].clone()),
                    Some(json!(6000)),
                    "{row:?}"
                );
            },
            config: json!({"action": "plan"}),
            ..runs("six-thousand-changes", |dir| {
                write(
                    dir,
                    "main.tf",
                    "resource \"terraform_data\" \"a\" {\n  count = 6000\n  input = { n = count.index, text = \"x\" }\n}\n",
                );
            })
        },
        Odd {
            says: "too many",
            ..fails(
                "many-errors",
                |dir| {
                    write(
                        dir,
                        "main.tf",
                        "locals { never = false }\nresource \"terraform_data\" \"a\" {\n  count = 300\n  lifecycle {\n    precondition {\n      condition = local.never\n      error_message = \"too many\"\n    }\n  }\n}\n",
                    );
                },
                "TERRAFORM_FAILED",
                "more errors in the log",
            )
        },
        Odd {
            config: json!({"variables": {"//": 1, "__proto__": {"a": 1}, "a.b": 2, "-var": 3, "ünï": 4, "count": 5}}),
            // Terraform warns of variables that the template does not declare.
            says: "Warning: Value for undeclared variable",
            ..runs("odd-variables", |dir| write(dir, "main.tf", PLAIN))
        },
    ]
}

#[tokio::test]
async fn whatever_a_template_holds_its_run_ends_with_the_reason_and_the_agent_goes_on() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let templates = world.path("odd");
    let odd = odd_templates();
    for template in &odd {
        let dir = templates.join(template.name);
        fs::create_dir_all(&dir).expect("a folder");
        (template.lay_out)(&dir);
    }
    write(&templates, "innocent/main.tf", PLAIN);
    let (setup, dir) = (world.agent(&cluster).templates(&templates).concurrency(3), world.open_scratch());
    let is_root = rustix::process::geteuid().is_root();
    let setup = if is_root { setup.with_users_of_runs(dir.path()) } else { setup };
    let agent = setup.start();
    let configs = odd.iter().map(|template| {
        let mut config = template.config.clone();
        config["template"] = template.name.into();
        config
    });
    let jobs = cluster.queue_all(configs).await;
    let mut wrong = Vec::new();
    for (template, job) in odd.iter().zip(&jobs) {
        let row = job.ended().await;
        let log = job.log().await.text();
        let text = format!("{log}\n{}", row.error_message.clone().unwrap_or_default());
        let end: String = text.chars().skip(text.chars().count().saturating_sub(1500)).collect();
        let is_right = (row.status.as_str(), row.error_code.as_deref()) == (template.status, template.code);
        if !is_right || !text.contains(template.says) || text.contains(template.hides) {
            wrong.push(format!(
                "{}: {} {:?} {:?}\n{end}",
                template.name, row.status, row.error_code, row.error_message
            ));
            continue;
        }
        (template.holds)(&row, &text);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // A row for each of its resources, however it is called.
    let odd_names = odd.iter().position(|template| template.name == "odd-names").expect("it is there");
    let query = "select count(*) from public.deployment_changes where deployment_id = $1 and status = 'DONE'";
    let stored: i64 = world.database.query_one(query, &[&jobs[odd_names].id]).await.expect("a count").get(0);
    assert_eq!(stored, 6, "the changes of odd-names");
    assert!(!Path::new("/tmp/stolen.tfstate").exists(), "no template decides where its state goes");
    let innocent = cluster.queue(json!({"template": "innocent", "stack": "s"})).await.ended().await;
    assert_eq!(innocent.status, "SUCCESS", "{innocent:?}");
    assert!(Path::new(&format!("/proc/{}", agent.pid())).exists(), "it is the same process");
    let work_dir = setup.cli.work_dir.clone().expect("a work directory");
    until("no attempt is left in the work directory", async || {
        let names = fs::read_dir(&work_dir)
            .expect("the work directory")
            .map(|entry| entry.expect("an entry").file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".1")).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
