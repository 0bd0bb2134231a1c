//! Hides secrets by value: in log lines, in diagnostics, in everything that leaves this machine.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Instant,
};

use tokio::task::spawn_blocking;

use super::{
    forms::forms,
    pattern_set::{PatternSet, first_secret, masked, ranges_of},
};

/// What must not be shown: of the agent, or of one of its jobs. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    inner: Arc<RwLock<Secrets>>,
    /// Hides all of this too.
    source: Option<Box<Redactor>>,
}

#[derive(Default)]
struct Secrets {
    lasting: Arc<PatternSet>,
    /// The forms of each secret that is one until then only: an agent gets a new token each ten minutes, for months.
    expiring: Vec<(Instant, Vec<String>)>,
    /// Of all of those.
    expiring_set: Arc<PatternSet>,
}

impl Redactor {
    /// A child: it hides the same values, now and in future, and can be given more.
    pub(crate) fn child(&self) -> Self {
        Self { inner: Arc::default(), source: Some(Box::new(self.clone())) }
    }

    /// Hides these values from now on, and the forms that programs commonly print them in. It takes some time for values of many
    /// kilobytes: not for a thread that others wait for.
    pub(crate) fn hide(&self, values: impl IntoIterator<Item = String>) {
        let forms: Vec<String> = values.into_iter().flat_map(|value| forms(&value)).collect();
        if forms.is_empty() {
            return;
        }
        // Made outside of the lock, and again where another one was quicker.
        loop {
            let known = Arc::clone(&self.read().lasting);
            let set = Arc::new(PatternSet::new(&forms, &known));
            let mut secrets = self.write();
            if Arc::ptr_eq(&secrets.lasting, &known) {
                secrets.lasting = set;
                return;
            }
        }
    }

    /// Hides these values as [`hide`](Self::hide) does, on a thread of its own: when it answers, they are hidden.
    pub(crate) async fn hide_large(&self, values: Vec<String>) {
        let redactor = self.clone();
        let hidden = spawn_blocking(move || redactor.hide(values)).await;
        // What else is no answer comes from a runtime that ends: then nothing is shown any more.
        if let Err(error) = hidden
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }

    /// Hides a value that is of no use to anybody after `end`, such as a token; it is forgotten some time later.
    pub(crate) fn hide_until(&self, value: &str, end: Instant) {
        let (forms, now) = (forms(value), Instant::now());
        let mut secrets = self.write();
        secrets.expiring.retain(|(end, known)| *end > now && *known != forms);
        secrets.expiring.push((end, forms));
        let all: Vec<String> = secrets.expiring.iter().flat_map(|(_, forms)| forms).cloned().collect();
        secrets.expiring_set = Arc::new(PatternSet::new(&all, &PatternSet::default()));
    }

    /// Everything that is to be looked for.
    pub(super) fn sets(&self) -> Vec<Arc<PatternSet>> {
        let mut sets = self.source.as_ref().map(|source| source.sets()).unwrap_or_default();
        let secrets = self.read();
        let own = [&secrets.lasting, &secrets.expiring_set];
        sets.extend(own.into_iter().filter(|set| !set.is_empty()).cloned());
        sets
    }

    /// A whole text without the secrets.
    pub(crate) fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let sets = self.sets();
        if sets.is_empty() { Cow::Borrowed(text) } else { masked(text, ranges_of(&sets, text)) }
    }

    /// How many bytes of a text, from its beginning, are lines that have nothing to hide, and whose end begins no secret.
    pub(crate) fn clean_lines(&self, text: &str) -> usize {
        let first = first_secret(&self.sets(), text);
        let after_line = |end: usize| end + 1;
        first.map_or(text.len(), |first| {
            text.as_bytes()[..first].iter().rposition(|byte| *byte == b'\n').map_or(0, after_line)
        })
    }

    // A poisoned lock still holds whole sets: they are replaced, never changed in place.
    fn read(&self) -> RwLockReadGuard<'_, Secrets> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Secrets> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

#[cfg(test)]
mod tests {
    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD, URL_SAFE},
    };
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::redaction::{MASK, normalize::normalize};

    const SECRET: &str = "pa\"ss w/ord+1é";

    fn redactor(secret: &str) -> Redactor {
        let redactor = Redactor::default();
        redactor.hide([secret.to_owned()]);
        redactor
    }

    #[tokio::test]
    async fn a_large_secret_is_hidden_without_holding_the_thread_that_waits() {
        let redactor = Redactor::default();
        let secret = "0123456789abcdef".repeat(4096);
        let mut hiding = std::pin::pin!(redactor.hide_large(vec![secret.clone()]));
        // The first look only hands it over.
        assert!(hiding.as_mut().now_or_never().is_none());
        hiding.await;
        assert!(!redactor.redact(&secret).contains("0123456789abcdef"));
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
    fn lines_are_clean_up_to_the_one_in_which_a_secret_begins() {
        let horse = redactor("correct-horse");
        for (text, clean) in [
            ("one\ntwo\n", "one\ntwo\n"),
            ("one\ntwo correct-horse\nthree\n", "one\n"),
            ("one\nétwo corr\nect-horse\n", "one\n"),
            ("one\ntwo corr\n", "one\n"),
            ("one\ntwo c\no\nr\n", "one\n"),
            ("correct-horse\none\n", ""),
            ("corr\none\ntwo c", "corr\none\n"),
        ] {
            assert_eq!(&text[..horse.clean_lines(text)], clean, "{text:?}");
        }
        // It is too short to be looked for without its blanks.
        let exact = redactor("a b c");
        assert_eq!(exact.clean_lines("one\ntwo a b c\n"), 4);
        assert_eq!(Redactor::default().clean_lines("one"), 3);
    }

    #[test]
    fn very_short_and_very_common_values_are_left() {
        assert_eq!(redactor("no").redact("not known"), "not known");
        assert_eq!(redactor("true").redact("is it true"), "is it true");
    }

    #[test]
    fn a_child_hides_what_its_parent_hides_and_values_of_its_own() {
        let agent = redactor("first-token");
        let job = agent.child();
        job.hide(["job-secret".to_owned()]);
        agent.hide(["second-token".to_owned()]);
        assert_eq!(job.redact("first-token second-token job-secret"), format!("{MASK} {MASK} {MASK}"));
        assert_eq!(agent.redact("second-token job-secret"), format!("{MASK} job-secret"));
    }

    #[test]
    fn an_expiring_value_is_hidden_by_children_too_and_forgotten_after_its_end() {
        let agent = redactor("the-key");
        let (now, job) = (Instant::now(), agent.child());
        agent.hide_until("first-token", now);
        agent.hide_until("second-token", now + std::time::Duration::from_secs(60));
        let later = agent.child();
        for redactor in [&agent, &job, &later] {
            assert_eq!(redactor.redact("the-key second-token"), format!("{MASK} {MASK}"));
            assert_eq!(redactor.redact("first-token"), "first-token");
            let agents = redactor.source.as_deref().unwrap_or(redactor);
            assert_eq!(agents.read().expiring.len(), 1, "months of tokens take no room");
        }
    }

    proptest! {
        #[test]
        fn no_registered_value_survives(secret in "[^\\[\\] a-z]{4,20}", text in "[a-z ]{0,20}") {
            // The newline at the end of a file is no part of the secret in it, and what is left must not be too short to hide.
            prop_assume!(!MASK.contains(&secret) && secret.trim_end_matches('\n').len() >= 4);
            let redactor = redactor(&secret);
            let line = format!("{text}{secret}{text}");
            // Quotes at its ends may be left: they are of no use without what stood between them.
            let out = normalize(redactor.redact(&line).replace(MASK, "").as_bytes());
            prop_assert!(out.len() <= 2 * text.len());
        }
    }
}
