//! Who is there.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::Subscription;
use crate::{driver::Item, error::Error, session::Delivery};

/// What a presence tracks, as JSON: for [`PresenceStream`]s without a type of their own.
pub type PresenceState = Map<String, Value>;

/// One presence under a key: a tab, a device, a process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceMeta<T = PresenceState> {
    /// Names this presence; a new tracked payload gets a new one.
    pub presence_ref: String,
    /// What was tracked.
    pub state: T,
}

/// What a [`PresenceStream`] yields.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PresenceEvent<T = PresenceState> {
    /// Someone came, or changed what it tracks (then a [`Leave`](Self::Leave) of the same key follows).
    Join {
        /// The presence key.
        key: String,
        /// What is new.
        joined: Vec<PresenceMeta<T>>,
    },
    /// Someone went.
    Leave {
        /// The presence key.
        key: String,
        /// What is gone.
        left: Vec<PresenceMeta<T>>,
        /// What remains under the key; empty if nobody does.
        remaining: Vec<PresenceMeta<T>>,
    },
    /// The state is complete and consistent again: see [`PresenceStream::state`].
    Sync,
    /// The channel was joined anew; a state follows.
    Reset,
    /// The reader was too slow and diffs were dropped: the state is what it was. The channel is joined anew, which brings a
    /// whole state: [`Sync`](Self::Sync) marks that it is complete.
    Lagged(u64),
    /// Someone tracks what is not of the type asked for. It is not part of the state.
    Undecodable {
        /// The presence key; empty if the whole message made no sense.
        key: String,
        /// The reader's complaint: [`Decode`](crate::ErrorKind::Decode).
        error: Error,
    },
    /// Something failed that the client is trying again by itself. Nothing is to be done.
    Interrupted(Error),
}

/// Presences of one channel. An `Err` item is the last one: it states why there will be no more.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct PresenceStream<T = PresenceState> {
    subscription: Subscription,
    merged: Presences<T>,
    ready: VecDeque<PresenceEvent<T>>,
    /// Diffs were lost, and no state has come since.
    needs_state: bool,
}

/// Diffs that wait for their state.
const HELD_AT_MOST: usize = 1024;

/// Keys to metas, and the gate that holds diffs back until the state of the current join is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Presences<T> {
    state: BTreeMap<String, Vec<PresenceMeta<T>>>,
    synced: bool,
    held: Vec<WireDiff>,
}

impl<T> Default for Presences<T> {
    fn default() -> Self {
        Self { state: BTreeMap::new(), synced: false, held: Vec::new() }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct WireDiff {
    #[serde(default)]
    joins: BTreeMap<String, WireEntry>,
    #[serde(default)]
    leaves: BTreeMap<String, WireEntry>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct WireEntry {
    #[serde(default)]
    metas: Vec<WireMeta>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WireMeta {
    phx_ref: String,
    state: Map<String, Value>,
}

impl<'de> Deserialize<'de> for WireMeta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Meta;
        impl<'de> Visitor<'de> for Meta {
            type Value = WireMeta;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a presence")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireMeta, A::Error> {
                let (mut phx_ref, mut state) = (None, Map::new());
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    match (name.as_str(), value) {
                        // Someone may track a field of this name. The object then has the name twice, the server's own first.
                        ("phx_ref", Value::String(text)) if phx_ref.is_none() => phx_ref = Some(text),
                        ("phx_ref", _) => {}
                        (_, value) => drop(state.insert(name, value)),
                    }
                }
                let phx_ref = phx_ref.ok_or_else(|| A::Error::missing_field("phx_ref"))?;
                Ok(WireMeta { phx_ref, state })
            }
        }
        deserializer.deserialize_map(Meta)
    }
}

impl WireMeta {
    fn read<T: DeserializeOwned>(mut self) -> Result<PresenceMeta<T>, Error> {
        self.state.remove("phx_ref_prev");
        let state = serde_json::from_value(Value::Object(self.state))
            .map_err(|error| Error::decode("what a presence tracks", &error))?;
        Ok(PresenceMeta { presence_ref: self.phx_ref, state })
    }
}

impl<T: DeserializeOwned + Clone> Presences<T> {
    /// The channel was joined anew: diffs wait for its state.
    pub(crate) fn reset(&mut self) {
        self.synced = false;
        self.held.clear();
    }

    /// The state of the current join.
    #[expect(clippy::needless_pass_by_value, reason = "a state that was read is of no more use")]
    pub(crate) fn on_state(
        &mut self,
        state: BTreeMap<String, WireEntry>,
        out: &mut VecDeque<PresenceEvent<T>>,
    ) {
        for (key, entry) in &state {
            let known = self.refs(key);
            let new = entry.metas.iter().filter(|meta| !known.contains(&meta.phx_ref));
            self.join(key, new.cloned().collect(), out);
        }
        let keys: Vec<String> = self.state.keys().cloned().collect();
        for key in keys {
            let there: BTreeSet<String> = state
                .get(&key)
                .map(|entry| entry.metas.iter().map(|meta| meta.phx_ref.clone()).collect())
                .unwrap_or_default();
            let gone: BTreeSet<String> = self.refs(&key).difference(&there).cloned().collect();
            self.leave(&key, &gone, out);
        }
        self.synced = true;
        for held in std::mem::take(&mut self.held) {
            self.apply(held, out);
        }
        out.push_back(PresenceEvent::Sync);
    }

    /// Presences that came and went.
    pub(crate) fn on_diff(&mut self, diff: WireDiff, out: &mut VecDeque<PresenceEvent<T>>) {
        if self.synced {
            self.apply(diff, out);
            out.push_back(PresenceEvent::Sync);
        } else {
            // A state that never comes must not cost memory for ever.
            if self.held.len() == HELD_AT_MOST {
                self.held.remove(0);
            }
            self.held.push(diff);
        }
    }

    fn apply(&mut self, diff: WireDiff, out: &mut VecDeque<PresenceEvent<T>>) {
        for (key, entry) in diff.joins {
            self.join(&key, entry.metas, out);
        }
        for (key, entry) in diff.leaves {
            let gone = entry.metas.into_iter().map(|meta| meta.phx_ref).collect();
            self.leave(&key, &gone, out);
        }
    }

    fn refs(&self, key: &str) -> BTreeSet<String> {
        let known = self.state.get(key).into_iter().flatten();
        known.map(|meta| meta.presence_ref.clone()).collect()
    }

    fn join(&mut self, key: &str, metas: Vec<WireMeta>, out: &mut VecDeque<PresenceEvent<T>>) {
        let mut joined = Vec::with_capacity(metas.len());
        for meta in metas {
            match meta.read::<T>() {
                Ok(meta) => joined.push(meta),
                Err(error) => out.push_back(PresenceEvent::Undecodable { key: key.to_owned(), error }),
            }
        }
        if joined.is_empty() {
            return;
        }
        let known = self.state.entry(key.to_owned()).or_default();
        known.retain(|meta| !joined.iter().any(|new| new.presence_ref == meta.presence_ref));
        known.extend(joined.iter().cloned());
        out.push_back(PresenceEvent::Join { key: key.to_owned(), joined });
    }

    fn leave(&mut self, key: &str, gone: &BTreeSet<String>, out: &mut VecDeque<PresenceEvent<T>>) {
        let Some(known) = self.state.get_mut(key) else { return };
        let left: Vec<_> = known.extract_if(.., |meta| gone.contains(&meta.presence_ref)).collect();
        if left.is_empty() {
            return;
        }
        let remaining = known.clone();
        if remaining.is_empty() {
            self.state.remove(key);
        }
        out.push_back(PresenceEvent::Leave { key: key.to_owned(), left, remaining });
    }
}

impl<T: DeserializeOwned + Clone> PresenceStream<T> {
    pub(crate) fn new(subscription: Subscription) -> Self {
        Self { subscription, merged: Presences::default(), ready: VecDeque::new(), needs_state: false }
    }

    fn understand(&mut self, delivery: Delivery) -> Option<Error> {
        match delivery {
            Delivery::PresenceState(text) => match serde_json::from_str(text.as_str()) {
                Ok(state) => {
                    self.needs_state = false;
                    self.merged.on_state(state, &mut self.ready);
                }
                Err(error) => self.complain(&error),
            },
            Delivery::PresenceDiff(text) => match serde_json::from_str(text.as_str()) {
                Ok(diff) => self.merged.on_diff(diff, &mut self.ready),
                Err(error) => self.complain(&error),
            },
            Delivery::PresenceReset => {
                self.merged.reset();
                self.ready.push_back(PresenceEvent::Reset);
            }
            Delivery::TransientError(error) => self.ready.push_back(PresenceEvent::Interrupted(error)),
            Delivery::End(error) => return Some(error),
            _ => {}
        }
        None
    }

    fn complain(&mut self, error: &serde_json::Error) {
        let error = Error::decode("a presence message", error);
        self.ready.push_back(PresenceEvent::Undecodable { key: String::new(), error });
    }
}

impl<T> PresenceStream<T> {
    /// Everyone who is there, by presence key, as of the last event taken.
    #[doc(alias = "presenceState")]
    pub fn state(&self) -> &BTreeMap<String, Vec<PresenceMeta<T>>> {
        &self.merged.state
    }
}

impl<T: DeserializeOwned + Clone + Unpin> Stream for PresenceStream<T> {
    type Item = Result<PresenceEvent<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let item = match self.subscription.poll_take(cx) {
                Poll::Ready(item) => item,
                Poll::Pending => {
                    if std::mem::take(&mut self.needs_state) {
                        // Everything that came was taken, and no state was among it: only a new join brings one.
                        self.subscription.rejoin();
                    }
                    return Poll::Pending;
                }
            };
            match item {
                None => return Poll::Ready(None),
                Some(Item::Lagged(count)) => {
                    // What comes now is not what follows on what we have.
                    self.merged.reset();
                    self.needs_state = true;
                    return Poll::Ready(Some(Ok(PresenceEvent::Lagged(count))));
                }
                Some(Item::Delivery(delivery)) => {
                    if let Some(error) = self.understand(delivery) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Key to refs: what the state means, without order and payload.
    type Model = BTreeMap<String, std::collections::BTreeSet<String>>;

    fn entries(model: &Model) -> BTreeMap<String, WireEntry> {
        let meta = |reference: &String| WireMeta { phx_ref: reference.clone(), state: Map::new() };
        model
            .iter()
            .map(|(key, refs)| (key.clone(), WireEntry { metas: refs.iter().map(meta).collect() }))
            .collect()
    }

    fn meaning(presences: &Presences<PresenceState>) -> Model {
        let refs = |metas: &Vec<PresenceMeta>| metas.iter().map(|meta| meta.presence_ref.clone()).collect();
        presences.state.iter().map(|(key, metas)| (key.clone(), refs(metas))).collect()
    }

    fn model() -> impl Strategy<Value = Model> {
        let refs = prop::collection::btree_set("[0-9]", 1..4);
        prop::collection::btree_map("[abc]|__proto__", refs, 0..4)
    }

    #[derive(Debug, Clone)]
    enum Step {
        State(Model),
        Diff(Model, Model),
        Reset,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => model().prop_map(Step::State),
            5 => (model(), model()).prop_map(|(joins, leaves)| Step::Diff(joins, leaves)),
            1 => Just(Step::Reset),
        ];
        prop::collection::vec(step, 0..30)
    }

    proptest! {
        #[test]
        fn the_merged_state_is_what_states_and_diffs_say_in_their_order(steps in steps()) {
            let (mut presences, mut out) = (Presences::<PresenceState>::default(), VecDeque::new());
            let (mut expected, mut held, mut synced) = (Model::new(), Vec::new(), false);
            let apply = |expected: &mut Model, joins: &Model, leaves: &Model| {
                for (key, refs) in joins {
                    expected.entry(key.clone()).or_default().extend(refs.iter().cloned());
                }
                for (key, refs) in leaves {
                    if let Some(known) = expected.get_mut(key) {
                        known.retain(|reference| !refs.contains(reference));
                    }
                }
                expected.retain(|_, refs| !refs.is_empty());
            };
            for step in steps {
                match step {
                    Step::State(state) => {
                        presences.on_state(entries(&state), &mut out);
                        expected = state;
                        synced = true;
                        for (joins, leaves) in held.drain(..) {
                            apply(&mut expected, &joins, &leaves);
                        }
                    }
                    Step::Diff(joins, leaves) => {
                        presences.on_diff(WireDiff { joins: entries(&joins), leaves: entries(&leaves) }, &mut out);
                        if synced {
                            apply(&mut expected, &joins, &leaves);
                        } else {
                            held.push((joins, leaves));
                        }
                    }
                    Step::Reset => {
                        presences.reset();
                        held.clear();
                        synced = false;
                    }
                }
                prop_assert_eq!(&meaning(&presences), &expected);
            }
        }
    }

    #[test]
    fn an_update_is_a_join_and_a_leave_of_the_same_key() {
        let (mut presences, mut out) = (Presences::<PresenceState>::default(), VecDeque::new());
        presences.on_state(
            serde_json::from_str(r#"{"me":{"metas":[{"phx_ref":"1","mood":"on"}]}}"#).unwrap(),
            &mut out,
        );
        out.clear();
        let diff = r#"{"joins":{"me":{"metas":[{"phx_ref":"2","phx_ref_prev":"1","mood":"away"}]}},"leaves":{"me":{"metas":[{"phx_ref":"1","mood":"on"}]}}}"#;
        presences.on_diff(serde_json::from_str(diff).unwrap(), &mut out);
        let names: Vec<_> =
            out.iter().map(|event| format!("{event:?}").chars().take(4).collect::<String>()).collect();
        assert_eq!(names, ["Join", "Leav", "Sync"]);
        let me = &presences.state["me"];
        assert_eq!((me.len(), me[0].presence_ref.as_str()), (1, "2"));
        assert!(!me[0].state.contains_key("phx_ref_prev"));
    }

    #[test]
    fn a_tracked_field_named_like_the_servers_own_hides_nobody() {
        let (mut presences, mut out) = (Presences::<PresenceState>::default(), VecDeque::new());
        let state = r#"{"mallory":{"metas":[{"phx_ref":"1","phx_ref":"x","n":1},{"phx_ref":"2","phx_ref":{"a":[]},"n":2}]},
            "ada":{"metas":[{"phx_ref":"3"}]}}"#;
        presences.on_state(serde_json::from_str(state).unwrap(), &mut out);
        assert_eq!(presences.refs("mallory"), BTreeSet::from(["1".to_owned(), "2".to_owned()]));
        assert_eq!(presences.refs("ada").len(), 1);
        let diff = r#"{"joins":{},"leaves":{"mallory":{"metas":[{"phx_ref":"1","phx_ref":"x","n":1}]}}}"#;
        presences.on_diff(serde_json::from_str(diff).unwrap(), &mut out);
        assert_eq!(presences.refs("mallory"), BTreeSet::from(["2".to_owned()]));
        assert!(serde_json::from_str::<WireMeta>(r#"{"phx_ref":5}"#).is_err());
    }
}
