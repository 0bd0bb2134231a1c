//! Who is there: states and diffs merged as the reference client merges them (protocol reference §6.2).

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::Subscription;
use crate::{driver::Item, error::Error, session::Delivery};

/// One device or tab that is present under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PresenceMeta {
    /// The server's name for this tracking; a changed payload gets a new one.
    pub presence_ref: String,
    /// What was tracked.
    pub state: Map<String, Value>,
}

/// What a [`PresenceStream`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceEvent {
    /// Someone came, or changed what it tracks (then a [`Leave`](Self::Leave) of the same key follows).
    Join {
        /// The presence key.
        key: String,
        /// What is new.
        joined: Vec<PresenceMeta>,
    },
    /// Someone went.
    Leave {
        /// The presence key.
        key: String,
        /// What is gone.
        left: Vec<PresenceMeta>,
        /// What remains under the key; empty if nobody does.
        remaining: Vec<PresenceMeta>,
    },
    /// The state is complete and consistent again: see [`PresenceStream::state`].
    Sync,
    /// The channel was joined anew; a state follows.
    Reset,
    /// The reader was too slow and diffs were dropped: the state is what it was, until the next join.
    Lagged(u64),
}

/// Presences of one channel. An `Err` item with [`Retry::Never`](crate::Retry::Never) is the last one.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct PresenceStream {
    subscription: Subscription,
    merged: Presences,
    ready: VecDeque<PresenceEvent>,
}

/// Diffs that wait for their state.
const HELD_AT_MOST: usize = 1024;

/// Keys to metas, and the gate that holds diffs back until the state of the current join is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Presences {
    state: BTreeMap<String, Vec<PresenceMeta>>,
    synced: bool,
    held: Vec<Diff>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Diff {
    #[serde(default)]
    joins: BTreeMap<String, Entry>,
    #[serde(default)]
    leaves: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Entry {
    #[serde(default)]
    metas: Vec<WireMeta>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct WireMeta {
    phx_ref: String,
    #[serde(flatten)]
    state: Map<String, Value>,
}

impl From<WireMeta> for PresenceMeta {
    fn from(wire: WireMeta) -> Self {
        let mut state = wire.state;
        state.remove("phx_ref_prev");
        Self { presence_ref: wire.phx_ref, state }
    }
}

fn refs(metas: &[PresenceMeta]) -> impl Fn(&str) -> bool + '_ {
    move |reference| metas.iter().any(|meta| meta.presence_ref == reference)
}

impl Presences {
    /// The channel was joined anew: diffs wait for its state.
    pub(crate) fn reset(&mut self) {
        self.synced = false;
        self.held.clear();
    }

    /// The state of the current join.
    pub(crate) fn on_state(&mut self, state: BTreeMap<String, Entry>, out: &mut VecDeque<PresenceEvent>) {
        let mut diff = Diff::default();
        for (key, known) in &self.state {
            if !state.contains_key(key) {
                diff.leaves.insert(key.clone(), Entry { metas: known.iter().cloned().map(wire).collect() });
            }
        }
        for (key, entry) in state {
            let known = self.state.get(&key).map(Vec::as_slice).unwrap_or_default();
            let is_new = |meta: &WireMeta| !refs(known)(&meta.phx_ref);
            let gone = |meta: &&PresenceMeta| !entry.metas.iter().any(|new| new.phx_ref == meta.presence_ref);
            let left: Vec<_> = known.iter().filter(gone).cloned().map(wire).collect();
            let joined: Vec<_> = entry.metas.iter().filter(|meta| is_new(meta)).cloned().collect();
            if !left.is_empty() {
                diff.leaves.insert(key.clone(), Entry { metas: left });
            }
            if !joined.is_empty() {
                diff.joins.insert(key, Entry { metas: joined });
            }
        }
        self.apply(diff, out);
        self.synced = true;
        for held in std::mem::take(&mut self.held) {
            self.apply(held, out);
        }
        out.push_back(PresenceEvent::Sync);
    }

    /// Presences that came and went.
    pub(crate) fn on_diff(&mut self, diff: Diff, out: &mut VecDeque<PresenceEvent>) {
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

    fn apply(&mut self, diff: Diff, out: &mut VecDeque<PresenceEvent>) {
        for (key, entry) in diff.joins {
            let joined: Vec<PresenceMeta> = entry.metas.into_iter().map(PresenceMeta::from).collect();
            let known = self.state.entry(key.clone()).or_default();
            known.retain(|meta| !refs(&joined)(&meta.presence_ref));
            known.extend(joined.iter().cloned());
            out.push_back(PresenceEvent::Join { key, joined });
        }
        for (key, entry) in diff.leaves {
            let Some(known) = self.state.get_mut(&key) else { continue };
            let left: Vec<PresenceMeta> = entry.metas.into_iter().map(PresenceMeta::from).collect();
            known.retain(|meta| !refs(&left)(&meta.presence_ref));
            let remaining = known.clone();
            if remaining.is_empty() {
                self.state.remove(&key);
            }
            out.push_back(PresenceEvent::Leave { key, left, remaining });
        }
    }
}

fn wire(meta: PresenceMeta) -> WireMeta {
    WireMeta { phx_ref: meta.presence_ref, state: meta.state }
}

impl PresenceStream {
    pub(crate) fn new(subscription: Subscription) -> Self {
        Self { subscription, merged: Presences::default(), ready: VecDeque::new() }
    }

    /// Everyone who is there, by presence key, as of the last event taken.
    #[doc(alias = "presenceState")]
    pub fn state(&self) -> &BTreeMap<String, Vec<PresenceMeta>> {
        &self.merged.state
    }

    fn understand(&mut self, delivery: Delivery) -> Option<Error> {
        match delivery {
            Delivery::PresenceState(text) => {
                if let Some(state) = parse(text.as_str()) {
                    self.merged.on_state(state, &mut self.ready);
                }
            }
            Delivery::PresenceDiff(text) => {
                if let Some(diff) = parse(text.as_str()) {
                    self.merged.on_diff(diff, &mut self.ready);
                }
            }
            Delivery::PresenceReset => {
                self.merged.reset();
                self.ready.push_back(PresenceEvent::Reset);
            }
            Delivery::TransientError(error) | Delivery::End(error) => return Some(error),
            _ => {}
        }
        None
    }
}

/// What makes no sense is passed over: keys and payloads are other people's.
fn parse<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

impl Stream for PresenceStream {
    type Item = Result<PresenceEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match std::task::ready!(self.subscription.poll_take(cx)) {
                None => return Poll::Ready(None),
                Some(Item::Lagged(count)) => return Poll::Ready(Some(Ok(PresenceEvent::Lagged(count)))),
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

    fn entries(model: &Model) -> BTreeMap<String, Entry> {
        let meta = |reference: &String| WireMeta { phx_ref: reference.clone(), state: Map::new() };
        model
            .iter()
            .map(|(key, refs)| (key.clone(), Entry { metas: refs.iter().map(meta).collect() }))
            .collect()
    }

    fn meaning(presences: &Presences) -> Model {
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
            let (mut presences, mut out) = (Presences::default(), VecDeque::new());
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
                        presences.on_diff(Diff { joins: entries(&joins), leaves: entries(&leaves) }, &mut out);
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
        let (mut presences, mut out) = (Presences::default(), VecDeque::new());
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
}
