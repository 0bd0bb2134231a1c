//! What passes as a source, what does not, and that no two places share a state.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(config: &Value) -> Result<Source, String> {
    Source::parse(config.as_object().unwrap())
}

fn source(source: &Value) -> Result<GitSource, String> {
    match parse(&json!({"source": source}))? {
        Source::Git(source) => Ok(source),
        Source::BuiltIn(name) => panic!("{name}"),
    }
}

fn key(source: &Value) -> String {
    let config = json!({"source": source});
    let key = Source::key_in(&config);
    assert_eq!(key, parse(&config).unwrap().key(), "the queue and the run agree");
    key
}

#[test]
fn a_source_is_read() {
    let read = source(
        &json!({"git": "https://Git.Example.org:8443/acme/infra.git", "ref": "v1.4.0", "path": "./network//vpc/"}),
    );
    let read = read.unwrap();
    assert_eq!(read.repository().as_str(), "https://git.example.org:8443/acme/infra.git");
    assert_eq!((read.reference(), read.path(), read.commit()), (Some("v1.4.0"), "network/vpc", None));
    assert_eq!(
        read.to_string(),
        "https://git.example.org:8443/acme/infra.git, folder network/vpc, at v1.4.0"
    );
    let root = source(&json!({"git": "https://dev.azure.com/acme/My%20Project/_git/infra"})).unwrap();
    assert_eq!((root.reference(), root.path()), (None, ""));
    let commit = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(
        source(&json!({"git": "http://127.0.0.1:3000/a", "ref": commit})).unwrap().commit(),
        Some(commit)
    );
}

#[test]
fn each_refusal_names_the_field() {
    let git = |address: &str| json!({"git": address});
    let with = |field: &str, text: &str| json!({"git": "https://h.example/a", field: text});
    for (config, part) in [
        (git("ssh://git@h.example/a"), "has no SSH keys"),
        (git("git@h.example:a.git"), "source.git is not an address"),
        (git("http://h.example/a"), "anybody on the way"),
        (git("file:///etc"), "does not begin with https://"),
        (git("ext::sh -c id"), "does not begin with https://"),
        (git("--upload-pack=touch /tmp/x"), "is not an address"),
        (git("https://user:hunter2@h.example/a"), "holds a user name or password"),
        (git("https://h.example/a?x=1"), "belong into ref and path"),
        (git("https://h.example/a#b"), "belong into ref and path"),
        (git("https://h.example/"), "names no repository"),
        (git("https://h.example/.git"), "names no repository"),
        (git("https://h.example/a%0ab"), "characters that no"),
        (git("https://h.example/a%2fb"), "characters that no"),
        (git("https://h.example/a;b"), "characters that no"),
        (git(&format!("https://h.example/{}", "a".repeat(2048))), "longer than 2048"),
        (with("ref", "--upload-pack=id"), "source.ref \"--upload-pack=id\" is not a branch"),
        (with("ref", "a..b"), "is not a branch"),
        (with("ref", "a:b"), "is not a branch"),
        (with("ref", "a.lock/b"), "is not a branch"),
        (with("ref", "a b"), "is not a branch"),
        (with("ref", "a@{1}"), "is not a branch"),
        (with("ref", ""), "is not a branch"),
        (with("path", "/etc"), "begins with /"),
        (with("path", "a/../../b"), "leads out of the repository"),
        (with("path", "a\nb"), "control character"),
        (with("branch", "main"), "unknown field `branch`"),
        (json!({"ref": "main"}), "missing field `git`"),
        (json!({"git": 3}), "config_snapshot.source cannot be read"),
        (json!("https://h.example/a"), "config_snapshot.source cannot be read"),
    ] {
        let message = source(&config).unwrap_err();
        assert!(message.contains(part), "{config}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let both = parse(&json!({"template": "a", "source": {"git": "https://h.example/a"}})).unwrap_err();
    assert!(both.contains("both a template and a source"), "{both}");
}

#[test]
fn a_key_is_readable_and_of_repository_and_folder_alone() {
    let vpc = key(&json!({"git": "https://github.com/acme/infra.git", "path": "network/Vpc 2"}));
    assert!(vpc.starts_with("git-vpc-2-") && vpc.len() == "git-vpc-2-".len() + KEY_DIGITS, "{vpc}");
    let root = key(&json!({"git": "https://github.com/acme/infra"}));
    assert!(root.starts_with("git-infra-"), "{root}");
    for same in [
        json!({"git": "https://GitHub.com:443/acme/infra.git/"}),
        json!({"git": "https://github.com/x/../acme/infra.git", "ref": "v2", "path": "."}),
    ] {
        assert_eq!(key(&same), root, "{same}");
    }
    for other in [
        json!({"git": "https://github.com/acme/infra", "path": "infra"}),
        json!({"git": "https://github.com/Acme/infra"}),
        json!({"git": "https://github.com:8443/acme/infra"}),
        json!({"git": "https://gitlab.com/acme/infra"}),
    ] {
        assert_ne!(key(&other), root, "{other}");
    }
}

#[test]
fn no_built_in_template_has_the_key_of_a_source() {
    let key = key(&json!({"git": "https://github.com/acme/infra"}));
    assert!(!is_template_name(&key), "{key}");
    assert!(parse(&json!({"template": key})).unwrap_err().contains("is not a template name"));
    assert!(is_template_name("git-infra-01234567") && is_template_name("git"));
}

fn segment() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_.-]{1,8}".prop_filter("no dots alone", |text| !matches!(text.as_str(), "." | ".."))
}

proptest! {
    #[test]
    fn what_passes_can_be_no_option_no_file_and_no_program(
        address in ".{0,60}", reference in ".{0,40}", path in ".{0,40}",
    ) {
        let config = json!({"git": address, "ref": reference, "path": path});
        if let Ok(read) = source(&config) {
            let url = read.repository().as_str();
            prop_assert!(url.starts_with("https://") || url.starts_with("http://"), "{url}");
            prop_assert!(url.bytes().all(|b| b.is_ascii_graphic()) && !url.contains('@'), "{url}");
        }
    }

    #[test]
    fn a_reference_that_passes_is_one_that_git_takes(text in "[a.l/@{}^~:+ #é-]{0,8}(\\.lock)?[/a.]{0,2}") {
        // What begins with a dash would be an option, and a lone @ means HEAD.
        prop_assume!(!text.starts_with('-') && text != "@");
        let git = std::process::Command::new("git")
            .args(["check-ref-format", &format!("refs/heads/{text}")]).status().unwrap();
        prop_assert_eq!(reference(text.clone()).is_ok(), git.success(), "{}", text);
    }

    #[test]
    fn a_folder_that_passes_stays_inside(text in "[a-z./\\\\-]{0,20}") {
        if let Ok(passed) = folder(&text) {
            let inside = std::path::Path::new(&passed).components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            prop_assert!(inside && !passed.starts_with('/') && !passed.ends_with('/'), "{passed}");
        }
    }

    #[test]
    fn two_places_have_two_keys_and_no_key_has_a_dot(
        repositories in proptest::array::uniform2(proptest::collection::vec(segment(), 1..3)),
        paths in proptest::array::uniform2(proptest::collection::vec(segment(), 0..3)),
    ) {
        let place = |at: usize| {
            let git = format!("https://h.example/{}", repositories[at].join("/"));
            let read = source(&json!({"git": git, "path": paths[at].join("/")})).ok()?;
            Some((read.repository_name(), read.path().to_owned(), read.key()))
        };
        if let (Some(one), Some(two)) = (place(0), place(1)) {
            prop_assert_eq!((&one.0, &one.1) == (&two.0, &two.1), one.2 == two.2);
            prop_assert!(!one.2.contains('.') && one.2.len() <= 63, "{}", one.2);
        }
    }
}
