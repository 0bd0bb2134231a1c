use super::*;

const MAP: &str = r#"
- stacks: ["prod", "prod-*"]
  templates: [network, "git-*"]
  serviceAccount: runs-prod
  resources:
    limits: {memory: 4Gi, cpu: 2}
  nodeSelector: {tendril.dev/pool: runs}
  tolerations:
    - {key: runs, operator: Exists, effect: NoSchedule}
- stacks: ["staging*", "*-test", "a*b*c"]
  serviceAccount: runs-staging
"#;

#[test]
fn the_first_rule_that_matches_is_taken() {
    let map = AccountMap::parse(MAP).unwrap();
    let account = |template: &str, stack: &str| {
        map.rule(template, Some(stack)).map(|rule| rule.service_account.as_str()).ok()
    };
    for (template, stack, expected) in [
        ("network", "prod", Some("runs-prod")),
        ("network", "prod-eu", Some("runs-prod")),
        ("git-x-0123456789abcdef", "prod", Some("runs-prod")),
        // Another template, and names that only look alike.
        ("hello", "prod", None),
        ("network", "production", None),
        ("network", "xprod", None),
        ("network", "Prod", None),
        ("network", "prod.x", None),
        ("hello", "staging", Some("runs-staging")),
        ("hello", "staging-7", Some("runs-staging")),
        ("hello", "eu-test", Some("runs-staging")),
        ("hello", "test", None),
        ("hello", "abc", Some("runs-staging")),
        ("hello", "a.b.c", Some("runs-staging")),
        ("hello", "a.c.b", None),
        ("hello", "ac", None),
    ] {
        assert_eq!(account(template, stack), expected, "{template} {stack}");
    }
    let rule = map.rule("network", Some("prod")).unwrap();
    assert_eq!(rule.resources.limits["memory"], Quantity("4Gi".to_owned()));
    assert_eq!(rule.resources.limits["cpu"], Quantity("2".to_owned()), "a number is a quantity too");
    assert_eq!(rule.tolerations[0].operator.as_deref(), Some("Exists"));
    assert_eq!(map.service_accounts(), ["runs-prod", "runs-staging"]);
}

#[test]
fn a_stack_outside_the_map_is_refused_with_a_sentence() {
    let map = AccountMap::parse(MAP).unwrap();
    let refused = map.rule("hello", Some("dev")).unwrap_err();
    assert_eq!(
        refused,
        "No rule of this agent's --service-account-map is for the stack \"dev\" of template \"hello\", so no service account may run it. Add it to a rule, or queue it on another cluster."
    );
    // A deployment without a stack is nobody's, unless every stack is meant.
    assert!(map.rule("hello", None).unwrap_err().contains("template \"hello\" without a stack"));
    assert!(AccountMap::of_one("runs").rule("hello", None).is_ok());
}

#[test]
fn json_is_read_too() {
    let map = AccountMap::parse(r#"[{"stacks": ["*"], "serviceAccount": "runs"}]"#).unwrap();
    assert_eq!(map.service_accounts(), ["runs"]);
}

#[test]
fn what_is_wrong_with_the_map_is_said() {
    for (text, expected) in [
        ("", "it has no rule"),
        ("[]", "it has no rule"),
        ("prod: runs", "list of rules"),
        ("- stacks: [prod]", "serviceAccount"),
        ("- {stacks: [prod], serviceAccount: runs, limits: {}}", "limits"),
        ("- {stacks: [], serviceAccount: runs}", "rule 1: `stacks` (or `templates`) is empty"),
        ("- {stacks: [prod], serviceAccount: Runs_Prod}", "rule 1: serviceAccount \"Runs_Prod\" is no name"),
        (
            "- {stacks: [a], serviceAccount: r}\n- {stacks: [b], serviceAccount: r, resources: {limits: {memory: lots}}}",
            "rule 2: memory \"lots\" is no quantity",
        ),
        ("- {stacks: [a], serviceAccount: r, resources: {limits: {ram: 1Gi}}}", "\"ram\" is no resource"),
        (
            "- {stacks: [a], serviceAccount: r, resources: {requests: {memory: 2Gi}, limits: {memory: 500Mi}}}",
            "it requests memory 2Gi, which is more than its limit of 500Mi",
        ),
    ] {
        let why = AccountMap::parse(text).unwrap_err();
        assert!(why.contains(expected), "{text:?}: {why}");
        assert_eq!(why.lines().count(), 1, "one sentence: {why}");
    }
}
