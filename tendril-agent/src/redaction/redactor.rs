//! Hides secrets by value: in log lines, in diagnostics, in everything that leaves this machine.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
    time::Instant,
};

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;

use super::forms::forms;

/// What is put in the place of a secret.
pub(crate) const MASK: &str = "[hidden]";

/// What must not be shown: of the agent, or of one of its jobs. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    inner: Arc<RwLock<Patterns>>,
}

#[derive(Default)]
struct Patterns {
    /// Every form of every secret, sorted.
    forms: Vec<String>,
    /// Every form of each secret that is one until then only: an agent gets a new token each ten minutes, for months.
    expiring: Vec<(Instant, Vec<String>)>,
    /// The automaton over them; none while there is no secret.
    automaton: Option<Arc<Automaton>>,
    /// Redactors that hide all of this too.
    children: Vec<Weak<RwLock<Patterns>>>,
}

struct Automaton {
    search: AhoCorasick,
    /// Length of the longest form, in bytes.
    longest: usize,
}

impl Redactor {
    /// Another one that hides the same, now and in future, and can be told of more.
    pub(crate) fn child(&self) -> Self {
        let mut patterns = self.write();
        let (forms, expiring) = (patterns.forms.clone(), patterns.expiring.clone());
        let child = Patterns { forms, expiring, automaton: patterns.automaton.clone(), children: Vec::new() };
        let child = Arc::new(RwLock::new(child));
        patterns.children.retain(|child| child.strong_count() > 0);
        patterns.children.push(Arc::downgrade(&child));
        Self { inner: child }
    }

    /// Hides these values from now on, and the forms that programs commonly print them in.
    pub(crate) fn hide(&self, values: impl IntoIterator<Item = String>) {
        let forms: Vec<String> = values.into_iter().flat_map(|value| forms(&value)).collect();
        self.update(&|patterns| patterns.add(&forms));
    }

    /// Hides a value that is of no use to anybody after `end`, such as a token; it is forgotten some time later.
    pub(crate) fn hide_until(&self, value: &str, end: Instant) {
        let forms = forms(value);
        self.update(&|patterns| patterns.add_expiring(&forms, end, Instant::now()));
    }

    /// Changes what is hidden here and by all children.
    fn update(&self, lesson: &dyn Fn(&mut Patterns)) {
        let children: Vec<_> = {
            let mut patterns = self.write();
            lesson(&mut patterns);
            patterns.children.iter().filter_map(Weak::upgrade).collect()
        };
        for inner in children {
            Self { inner }.update(lesson);
        }
    }

    /// A whole text without the secrets.
    pub(crate) fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.read().automaton {
            Some(automaton) if automaton.search.is_match(text) => {
                Cow::Owned(automaton.replace(text, text.len()).0)
            }
            _ => Cow::Borrowed(text),
        }
    }

    /// Whether there is nothing to hide in a text, nor in any part of it.
    pub(crate) fn is_clean(&self, text: &str) -> bool {
        self.read().automaton.as_ref().is_none_or(|automaton| !automaton.search.is_match(text))
    }

    /// A JSON value without the secrets in its strings, numbers and names.
    pub(crate) fn redact_json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.redact(&text).into_owned()),
            Value::Array(items) => items.into_iter().map(|item| self.redact_json(item)).collect(),
            Value::Object(fields) => {
                let hidden = |name: String| self.redact(&name).into_owned();
                fields.into_iter().map(|(name, field)| (hidden(name), self.redact_json(field))).collect()
            }
            number @ Value::Number(_) => {
                let text = number.to_string();
                if self.redact(&text) == text { number } else { Value::String(MASK.to_owned()) }
            }
            other @ (Value::Null | Value::Bool(_)) => other,
        }
    }

    fn automaton(&self) -> Option<Arc<Automaton>> {
        self.read().automaton.clone()
    }

    // A poisoned lock still holds whole patterns: they are replaced, never changed in place.
    fn read(&self) -> RwLockReadGuard<'_, Patterns> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Patterns> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Patterns {
    fn add(&mut self, forms: &[String]) {
        let before = self.forms.len();
        self.forms.extend_from_slice(forms);
        self.forms.sort_unstable();
        self.forms.dedup();
        if self.forms.len() == before {
            return;
        }
        self.build();
    }

    fn add_expiring(&mut self, forms: &[String], end: Instant, now: Instant) {
        self.expiring.retain(|(end, known)| *end > now && known != forms);
        self.expiring.push((end, forms.to_vec()));
        self.build();
    }

    fn build(&mut self) {
        let all = || self.forms.iter().chain(self.expiring.iter().flat_map(|(_, forms)| forms));
        let longest = all().map(String::len).max().unwrap_or(0);
        self.automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(all())
            .ok()
            .map(|search| Arc::new(Automaton { search, longest }));
    }
}

/// What is at the ends of a value: everything but lists and objects.
pub(crate) fn leaves(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(leaves).collect(),
        Value::Object(fields) => fields.values().flat_map(leaves).collect(),
        leaf => vec![leaf],
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

impl Automaton {
    /// Replaces every match that begins before `until`. Answers the new text and how much of the old one it stands for.
    fn replace(&self, text: &str, until: usize) -> (String, usize) {
        let (mut out, mut done) = (String::with_capacity(text.len()), 0);
        for found in self.search.find_iter(text).take_while(|found| found.start() < until) {
            out.push_str(&text[done..found.start()]);
            out.push_str(MASK);
            done = found.end();
        }
        let until = until.max(done);
        out.push_str(&text[done..until]);
        (out, until)
    }
}

/// Redacts a line that comes in fragments: the end of a fragment that could be the beginning of a secret is held back.
#[derive(Debug, Default)]
pub(crate) struct RedactFragments {
    /// The held back end.
    held: String,
}

impl RedactFragments {
    /// The next fragment; the last one of the line gives everything.
    pub(crate) fn push<'a>(&mut self, redactor: &Redactor, fragment: &'a str, goes_on: bool) -> Cow<'a, str> {
        if !goes_on && self.held.is_empty() {
            return redactor.redact(fragment);
        }
        self.held.push_str(fragment);
        if !goes_on {
            return Cow::Owned(redactor.redact(&std::mem::take(&mut self.held)).into_owned());
        }
        let Some(automaton) = redactor.automaton() else {
            return Cow::Owned(std::mem::take(&mut self.held));
        };
        let safe = self.held.floor_char_boundary(self.held.len().saturating_sub(automaton.longest));
        let (text, used) = automaton.replace(&self.held, safe);
        self.held.drain(..used);
        Cow::Owned(text)
    }
}

#[cfg(test)]
mod tests {
    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD, URL_SAFE},
    };
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "pa\"ss w/ord+1é";

    fn redactor(secret: &str) -> Redactor {
        let redactor = Redactor::default();
        redactor.hide([secret.to_owned()]);
        redactor
    }

    #[test]
    fn each_form_of_a_secret_is_hidden() {
        let redactor = redactor(SECRET);
        let json = serde_json::json!({"p": SECRET}).to_string();
        let url: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        for text in [
            format!("x{SECRET}x"),
            json,
            format!("?p={url}"),
            format!("?p={}", url.replace('+', "%20")),
            STANDARD.encode(SECRET),
            URL_SAFE.encode(SECRET),
        ] {
            assert!(redactor.redact(&text).contains(MASK), "{text}");
        }
        for user in ["u", "us", "use"] {
            let basic = STANDARD.encode(format!("{user}:{SECRET}"));
            assert!(redactor.redact(&basic).contains(MASK), "{basic}");
        }
    }

    #[test]
    fn each_line_of_a_key_is_hidden() {
        let redactor = redactor("-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----\n");
        assert_eq!(redactor.redact("  MIIEvQIBADAN"), "  [hidden]");
        assert_eq!(redactor.redact("a BgkqhkiG9w0B b"), "a [hidden] b");
    }

    #[test]
    fn very_short_and_very_common_values_are_left() {
        assert_eq!(redactor("no").redact("not known"), "not known");
        assert_eq!(redactor("true").redact("is it true"), "is it true");
    }

    #[test]
    fn numbers_and_strings_in_json_are_hidden() {
        let value = redactor("123456").redact_json(serde_json::json!({"a": [123_456, "x123456"], "b": 1}));
        assert_eq!(value, serde_json::json!({"a": [MASK, "x[hidden]"], "b": 1}));
    }

    #[test]
    fn an_heir_learns_what_its_source_learns_and_keeps_its_own() {
        let agent = redactor("first-token");
        let job = agent.child();
        job.hide(["job-secret".to_owned()]);
        agent.hide(["second-token".to_owned()]);
        assert_eq!(job.redact("first-token second-token job-secret"), format!("{MASK} {MASK} {MASK}"));
        assert_eq!(agent.redact("second-token job-secret"), format!("{MASK} job-secret"));
    }

    #[test]
    fn a_value_that_passes_is_hidden_by_heirs_too_and_forgotten_after_its_end() {
        let agent = redactor("the-key");
        let (now, job) = (Instant::now(), agent.child());
        agent.hide_until("first-token", now);
        agent.hide_until("second-token", now + std::time::Duration::from_secs(60));
        let later = agent.child();
        for redactor in [&agent, &job, &later] {
            assert_eq!(redactor.redact("the-key second-token"), format!("{MASK} {MASK}"));
            assert_eq!(redactor.redact("first-token"), "first-token");
            assert_eq!(redactor.read().expiring.len(), 1, "months of tokens take no room");
        }
    }

    proptest! {
        #[test]
        fn a_secret_across_pieces_is_hidden(
            secret in "[a-zA-Z0-9+/é]{4,40}", before in "[ -~]{0,80}", after in "[ -~]{0,80}",
            cuts in proptest::collection::vec(0..200_usize, 0..5),
        ) {
            let redactor = redactor(&secret);
            let line = format!("{before}{secret}{after}");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| line.floor_char_boundary(cut)).collect();
            cuts.sort_unstable();
            let (mut fragments, mut out, mut from) = (RedactFragments::default(), String::new(), 0);
            for cut in cuts {
                out.push_str(&fragments.push(&redactor, &line[from..cut], true));
                from = cut;
            }
            out.push_str(&fragments.push(&redactor, &line[from..], false));
            prop_assert_eq!(out, redactor.redact(&line));
        }

        #[test]
        fn no_registered_value_survives(secret in "[^\\[\\]]{4,20}", text in "[a-z ]{0,20}") {
            prop_assume!(!MASK.contains(&secret));
            let redactor = redactor(&secret);
            let line = format!("{text}{secret}{text}");
            // Parts around the mask can only spell the secret again if it overlaps itself in the text.
            let out = redactor.redact(&line).replace(MASK, "");
            prop_assert!(out.len() <= 2 * text.len());
        }
    }
}
