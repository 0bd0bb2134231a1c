use super::*;

fn backend(kind: &str, config: &Value) -> StateBackend {
    StateBackend::read(Some(kind), Some(&config.to_string())).unwrap()
}

fn block(backend: &StateBackend, key: &str) -> Value {
    backend.of(Path::new("/state"), key).block()["terraform"]["backend"].clone()
}

#[test]
fn local_state_is_a_file_below_the_state_directory() {
    let local = StateBackend::read(None, None).unwrap();
    assert_eq!(
        block(&local, "hello.prod"),
        json!({"local": {"path": "/state/hello.prod/terraform.tfstate"}})
    );
}

#[test]
fn s3_state_is_an_object_with_a_lock_file() {
    let s3 =
        backend("s3", &json!({"bucket": "b", "region": "eu-west-1", "encrypt": true, "prefix": "team/a"}));
    let expected = json!({"bucket": "b", "region": "eu-west-1", "encrypt": true, "key": "team/a/hello.prod.tfstate", "use_lockfile": true});
    assert_eq!(block(&s3, "hello.prod"), json!({"s3": expected}));
    let old = backend("s3", &json!({"bucket": "b", "use_lockfile": false, "dynamodb_table": "t"}));
    assert_eq!(block(&old, "k")["s3"]["use_lockfile"], false);
}

#[test]
fn http_state_has_an_address_for_each_key_and_is_locked() {
    let plain = backend("http", &json!({"address": "https://s.example/states/", "lock_method": "POST"}));
    let address = "https://s.example/states/tendril-hello.prod";
    assert_eq!(
        block(&plain, "hello.prod")["http"],
        json!({"address": address, "lock_address": address, "unlock_address": address, "lock_method": "POST"})
    );
    let placed = backend(
        "http",
        &json!({"address": "https://s.example/{key}/state", "lock_address": "https://s.example/{key}/lock"}),
    );
    assert_eq!(block(&placed, "k")["http"]["lock_address"], "https://s.example/tendril-k/lock");
    assert_eq!(block(&placed, "k")["http"]["unlock_address"], "https://s.example/tendril-k/state");
}

#[test]
fn schemas_and_secrets_have_names_that_are_legal_and_differ() {
    let (pg, kubernetes) = (backend("pg", &json!({})), backend("kubernetes", &json!({"namespace": "n"})));
    let long = format!("{}.{}", "t".repeat(63), "S".repeat(63));
    let name = |backend: &StateBackend, kind: &str, field: &str, key: &str| {
        block(backend, key)[kind][field].as_str().unwrap().to_owned()
    };
    for key in ["hello.prod", "hello.Prod", "hello-prod", &long] {
        let schema = name(&pg, "pg", "schema_name", key);
        assert!(
            schema.len() <= 63
                && schema.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "{schema}"
        );
        let suffix = name(&kubernetes, "kubernetes", "secret_suffix", key);
        assert!(
            suffix.len() <= 40
                && suffix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "{suffix}"
        );
    }
    assert_ne!(name(&pg, "pg", "schema_name", "hello.prod"), name(&pg, "pg", "schema_name", "hello-prod"));
    assert_eq!(block(&kubernetes, "k")["kubernetes"]["in_cluster_config"], true);
}

#[test]
fn what_is_wrong_with_a_backend_is_said_without_its_secrets() {
    for (kind, config, part) in [
        ("s4", "{}", "one of local, s3, http, pg, kubernetes"),
        ("s3", "{}", "\"bucket\" is missing"),
        ("s3", "{\"bucket\": \"b\", \"secret_key\": \"s3cr3t\"}", "set AWS_SECRET_ACCESS_KEY"),
        ("s3", "{\"bucket\": \"b\", \"key\": \"x\"}", "\"key\" is made by the agent"),
        ("http", "{}", "\"address\" is missing"),
        ("http", "{\"address\": \"https://u:s3cr3t@x\"}", "holds a password"),
        ("pg", "{\"conn_str\": \"postgres://u:s3cr3t@h/d\"}", "set PG_CONN_STR"),
        ("kubernetes", "{\"token\": \"s3cr3t\"}", "set KUBE_TOKEN"),
        ("pg", "{\"x\": s3cr3t", "is not a JSON object (line 1"),
        ("pg", "/no/such/file", "cannot be read"),
        ("pg", "{\"prefix\": \"a b\"}", "\"prefix\" must be"),
    ] {
        let problem = StateBackend::read(Some(kind), Some(config)).unwrap_err();
        assert!(problem.contains(part), "{problem}");
        assert!(!problem.contains("s3cr3t"), "{problem}");
    }
}

#[test]
fn settings_may_stand_in_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), r#"{"bucket": "b"}"#).unwrap();
    let s3 = StateBackend::read(Some("s3"), file.path().to_str()).unwrap();
    assert_eq!(block(&s3, "k")["s3"]["bucket"], "b");
}

#[test]
fn rescued_state_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateBackend::local().of(dir.path(), "k");
    assert_eq!(state.pending().unwrap(), [] as [PathBuf; 0]);
    private_dir(state.dir()).unwrap();
    for name in ["terraform.tfstate", "errored-b.1.tfstate", "errored-a.1.tfstate"] {
        fs::write(state.dir().join(name), "{}").unwrap();
    }
    let pending = ["errored-a.1.tfstate", "errored-b.1.tfstate"].map(|name| state.dir().join(name));
    assert_eq!(state.pending().unwrap(), pending);
}
