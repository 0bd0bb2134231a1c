//! Private registries: the real terraform fetches a module from a registry that wants a token.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use tendril_tests::{AgentSetup, Cluster, Row, World};

const TOKEN: &str = "canaryRegistryToken0123456789";
const HOST: &str = "modules.acme-corp.example";
/// One whose name has a port, as it stands in the variable too.
const WITH_PORT: &str = "registry.example:8443";
/// Which tokens were shown, and where the module is.
#[derive(Default)]
struct Registry {
    module: PathBuf,
    shown: Mutex<Vec<Option<String>>>,
}

async fn answer(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.map(str::to_owned);
    let is_known = shown.as_deref() == Some(&format!("Bearer {TOKEN}"));
    registry.shown.lock().unwrap().push(shown);
    let path = request.uri().path();
    if !is_known {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if path.ends_with("/versions") {
        return axum::Json(json!({"modules": [{"versions": [{"version": "1.0.0"}]}]})).into_response();
    }
    let place = format!("file://{}", registry.module.display());
    (StatusCode::NO_CONTENT, [("X-Terraform-Get", place)]).into_response()
}

struct Stage {
    world: World,
    cluster: Cluster,
    registry: Arc<Registry>,
    config: PathBuf,
}

impl Stage {
    async fn set() -> Self {
        let world = World::start().await;
        let cluster = world.cluster().await;
        let module = world.path("module");
        fs::create_dir_all(&module).expect("a module");
        // What runs in an apply looks for the token, and prints it where somebody else gave it away.
        let looks = "provisioner \"local-exec\" {\n    command = \"env | grep -c TF_TOKEN; echo it is $(cat $PLACE)\"\n    environment = { PLACE = var.place }\n  }";
        let main = format!(
            "variable \"place\" {{ type = string }}\nresource \"terraform_data\" \"a\" {{\n  {looks}\n}}\n"
        );
        fs::write(module.join("main.tf"), main).expect("a module");
        let registry = Arc::new(Registry { module, shown: Mutex::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&registry));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        let host = |name: &str| {
            format!(
                "host \"{name}\" {{\n  services = {{ \"modules.v1\" = \"http://{addr}/v1/modules/\" }}\n}}\n"
            )
        };
        let config = world.path("terraform.rc");
        fs::write(&config, format!("disable_checkpoint = true\n{}{}", host(HOST), host(WITH_PORT)))
            .expect("a configuration");
        fs::write(world.path("token"), format!("{TOKEN}\n")).expect("a token");
        for (name, host) in [("dashes", HOST), ("ports", WITH_PORT)] {
            let dir = world.path("templates").join(name);
            fs::create_dir_all(&dir).expect("a template");
            let place = world.path("token");
            let main = format!(
                "module \"a\" {{\n  source = \"{host}/acme/greeting/null\"\n  version = \"1.0.0\"\n  place = \"{}\"\n}}\n",
                place.display()
            );
            fs::write(dir.join("main.tf"), main).expect("a template");
        }
        Self { world, cluster, registry, config }
    }

    fn agent(&self) -> AgentSetup {
        self.world
            .agent(&self.cluster)
            .templates(&self.world.path("templates"))
            .env("TENDRIL_TERRAFORM_CONFIG", self.config.to_str().expect("a path"))
    }

    fn with_token_file(&self, host: &str) -> AgentSetup {
        self.agent()
            .env("TENDRIL_TERRAFORM_TOKEN_FILE", format!("{host}={}", self.world.path("token").display()))
    }

    async fn run(&self, template: &str) -> (Row, String) {
        let job = self.cluster.queue(json!({"template": template})).await;
        let row = job.ended().await;
        let log = job.log().await.text();
        assert!(!log.contains(TOKEN) && !format!("{row:?}").contains(TOKEN), "{row:?} {log}");
        (row, log)
    }

    fn was_shown(&self) -> Vec<Option<String>> {
        std::mem::take(&mut *self.registry.shown.lock().unwrap())
    }
}

#[tokio::test]
async fn a_module_is_fetched_with_the_token_from_a_file_which_nothing_of_the_template_sees() {
    let stage = Stage::set().await;
    let hooks = stage.world.path("hooks");
    fs::create_dir_all(&hooks).expect("hooks");
    for hook in ["pre-init", "post-plan", "post-apply"] {
        let file = hooks.join(hook);
        fs::write(&file, "#!/bin/sh\necho hook sees $(env | grep -c TF_TOKEN)\n").expect("a hook");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&file, mode).expect("a hook");
    }
    let hosts = format!("{HOST}={token},{WITH_PORT}={token}", token = stage.world.path("token").display());
    let setup = stage
        .agent()
        .env("TENDRIL_TERRAFORM_TOKEN_FILE", hosts)
        .env("TENDRIL_HOOK_DIR", hooks.to_str().expect("a path"));
    let _agent = setup.start();
    for template in ["dashes", "ports"] {
        let (row, log) = stage.run(template).await;
        assert_eq!(row.status, "SUCCESS", "{row:?} {log}");
        assert!(log.contains("(local-exec): 0\n") && log.contains("it is [hidden]"), "{log}");
        assert_eq!(log.matches("hook sees 0").count(), 3, "{log}");
        let shown = stage.was_shown();
        assert!(shown.len() >= 2 && shown.iter().all(std::option::Option::is_some), "{shown:?}");
    }
    // Another token takes its place without a restart.
    fs::write(stage.world.path("token"), "canaryOfYesterday\n").expect("another token");
    let (row, log) = stage.run("dashes").await;
    assert_eq!(row.error_code.as_deref(), Some("TERRAFORM_FAILED"), "{row:?} {log}");
    assert_eq!(stage.was_shown(), [Some("Bearer canaryOfYesterday".to_owned())]);
    fs::remove_file(stage.world.path("token")).expect("no token");
    let (row, _) = stage.run("dashes").await;
    assert_eq!(row.error_code.as_deref(), Some("INTERNAL"), "{row:?}");
    assert!(
        row.error_message
            .expect("a sentence")
            .contains("the token for the registry modules.acme-corp.example cannot be used")
    );
}

#[tokio::test]
async fn a_token_in_the_environment_is_given_by_name_alone() {
    let stage = Stage::set().await;
    let variable = "TF_TOKEN_modules_acme__corp_example";
    let mut agent = stage.agent().env(variable, TOKEN).start();
    let (row, log) = stage.run("dashes").await;
    assert_eq!(row.error_code.as_deref(), Some("TERRAFORM_FAILED"), "{row:?} {log}");
    assert_eq!(stage.was_shown(), [None]);
    agent.signal(rustix::process::Signal::TERM);
    let _ended = agent.ended().await;
    let _agent = stage.agent().env(variable, TOKEN).env("TENDRIL_TERRAFORM_ENV", variable).start();
    let (row, log) = stage.run("dashes").await;
    assert_eq!(row.status, "SUCCESS", "{row:?} {log}");
    // What is named is for every command, as whoever named it was told.
    assert!(log.contains("(local-exec): 1\n") && log.contains("it is [hidden]"), "{log}");
}

#[tokio::test]
async fn credentials_in_the_configuration_are_hidden_and_the_doctor_says_who_can_read_them() {
    let stage = Stage::set().await;
    let text = fs::read_to_string(&stage.config).expect("the configuration");
    let credentials = format!("credentials \"{HOST}\" {{\n  token = \"{TOKEN}\"\n}}\n");
    fs::write(&stage.config, format!("{text}{credentials}")).expect("the configuration");
    let examined = async |setup: AgentSetup| {
        let mut doctor = setup.doctor();
        let _ended = doctor.ended().await;
        let printed = doctor.output();
        assert!(!printed.contains(TOKEN), "{printed}");
        printed
    };
    let printed = examined(stage.agent()).await;
    assert!(
        printed.contains("WARN  registry tokens:") && printed.contains("--terraform-token-file"),
        "{printed}"
    );
    let _agent = stage.agent().start();
    let (row, log) = stage.run("dashes").await;
    assert_eq!(row.status, "SUCCESS", "{row:?} {log}");
    assert!(log.contains("it is [hidden]"), "{log}");

    fs::write(&stage.config, text).expect("the configuration");
    let printed = examined(stage.with_token_file(HOST)).await;
    assert!(printed.contains("ok    registry tokens: modules.acme-corp.example"), "{printed}");
    let printed = examined(stage.with_token_file("https://x")).await;
    assert!(
        printed.contains("WRONG configuration: --terraform-token-file / TENDRIL_TERRAFORM_TOKEN_FILE holds"),
        "{printed}"
    );
}
