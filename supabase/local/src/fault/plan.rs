//! The injected faults, in the order of their injection, and what each has done.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Cut;
use super::frame::FrameFault;
use super::request::RequestFault;
use super::target::{Subject, Target};

/// All rules of a stack.
#[derive(Debug)]
pub(super) struct Plan {
    rules: Mutex<Rules>,
    /// Counts the changes of the plan.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Rules {
    seed: u64,
    next: u64,
    list: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    id: u64,
    fault: Fault,
    target: Target,
    /// How many fitted the target so far.
    seen: u64,
    /// How many of them were struck.
    struck: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Fault {
    Request(RequestFault),
    Frame(FrameFault),
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameOutcome {
    /// How often it is sent.
    pub(crate) copies: u32,
    /// How much later.
    pub(crate) delay: Duration,
    /// The rule that holds it, and all after it, back.
    pub(crate) stall: Option<u64>,
    /// How the socket ends instead.
    pub(crate) cut: Option<Cut>,
}

impl Default for FrameOutcome {
    fn default() -> Self {
        Self { copies: 1, delay: Duration::ZERO, stall: None, cut: None }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self { rules: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Plan {
    pub(super) fn inject(self: &Arc<Self>, fault: Fault, target: Target) -> Injection {
        let id = {
            let mut rules = self.rules();
            rules.next += 1;
            let id = rules.next;
            rules.list.push(Rule { id, fault, target, seen: 0, struck: 0 });
            id
        };
        self.changed();
        Injection { plan: Arc::clone(self), id }
    }

    pub(super) fn lift(&self, id: u64) {
        self.rules().list.retain(|rule| rule.id != id);
        self.changed();
    }

    pub(super) fn clear(&self) {
        self.rules().list.clear();
        self.changed();
    }

    pub(super) fn seed(&self, seed: u64) {
        self.rules().seed = seed;
    }

    /// Notifies everyone who waits for a change of the plan.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns once a rule is no longer there.
    pub(super) async fn lifted(&self, id: u64) {
        let gone = |plan: &Self| plan.rules().list.iter().all(|rule| rule.id != id);
        // The sender is in `self`, so waiting cannot fail.
        let _ = self.changes().wait_for(|_| gone(self)).await;
    }

    /// What strikes a request.
    pub(super) fn requests(&self, subject: &Subject<'_>) -> Vec<(u64, RequestFault)> {
        self.rules().strike(subject, |fault| match fault {
            Fault::Request(fault) => Some(fault.clone()),
            Fault::Frame(_) => None,
        })
    }

    /// What becomes of a frame; `subject` is not called where there is no rule.
    pub(super) fn frame<'a>(&self, subject: impl FnOnce() -> Subject<'a>) -> FrameOutcome {
        let mut rules = self.rules();
        let mut outcome = FrameOutcome::default();
        if rules.list.is_empty() {
            return outcome;
        }
        let faults = rules.strike(&subject(), |fault| match fault {
            Fault::Frame(fault) => Some(*fault),
            Fault::Request(_) => None,
        });
        for (id, fault) in faults {
            match fault {
                FrameFault::Withhold => outcome.copies = 0,
                FrameFault::Duplicate => outcome.copies *= 2,
                FrameFault::Delay(delay) => outcome.delay += delay,
                FrameFault::Stall => outcome.stall = outcome.stall.or(Some(id)),
                FrameFault::Cut(cut) => outcome.cut = outcome.cut.or(Some(cut)),
            }
        }
        outcome
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rules {
    /// The faults of one kind that strike now, with the ids of their rules.
    fn strike<T>(&mut self, subject: &Subject<'_>, kind: impl Fn(&Fault) -> Option<T>) -> Vec<(u64, T)> {
        let seed = self.seed;
        let strike = |rule: &mut Rule| {
            let fault = kind(&rule.fault)?;
            (rule.target.fits(subject) && rule.draw(seed)).then_some((rule.id, fault))
        };
        self.list.iter_mut().filter_map(strike).collect()
    }
}

impl Rule {
    /// Whether this one of those that fit is struck.
    fn draw(&mut self, seed: u64) -> bool {
        let number = self.seen;
        self.seen += 1;
        let struck = number >= self.target.spared
            && self.target.times.is_none_or(|times| self.struck < times)
            && self.target.chance.is_none_or(|chance| chance_of(seed, self.id, number) < chance);
        self.struck += u64::from(struck);
        struck
    }
}

/// A number from 0 to 1 (exclusive) that depends on nothing but the arguments, so that a seed decides the outcome of the
/// nth request whatever happens beside it. (The mixing function is that of `SplitMix64`.)
fn chance_of(seed: u64, rule: u64, number: u64) -> f64 {
    let mut mixed = seed;
    for part in [rule, number] {
        mixed = (mixed ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    // The upper 32 bits are exact in a double.
    f64::from(u32::try_from(mixed >> 32).unwrap_or_default()) / 2_f64.powi(32)
}

/// A fault that is in force. Dropping this changes nothing; [`Injection::lift`] ends the fault.
#[derive(Debug)]
pub struct Injection {
    plan: Arc<Plan>,
    id: u64,
}

impl Injection {
    /// Ends the fault.
    pub fn lift(self) {
        self.plan.lift(self.id);
    }

    /// How many requests or frames it has struck so far; 0 after [`Faults::clear`](crate::Faults::clear).
    pub fn struck(&self) -> u64 {
        self.plan.rules().list.iter().find(|rule| rule.id == self.id).map_or(0, |rule| rule.struck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(target: Target) -> Rule {
        Rule { id: 1, fault: Fault::Frame(FrameFault::Withhold), target, seen: 0, struck: 0 }
    }

    #[test]
    fn the_counts_spare_strike_and_stop() {
        let mut rule = rule(Target::all().after(2).times(3));
        let struck: Vec<bool> = (0..7).map(|_| rule.draw(0)).collect();
        assert_eq!(struck, [false, false, true, true, true, false, false]);
    }

    #[test]
    fn a_seed_decides_and_the_share_is_kept() {
        let draws = |seed| {
            let mut rule = rule(Target::all().chance(0.2));
            (0..2000).map(|_| rule.draw(seed)).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        let struck = draws(7).into_iter().filter(|struck| *struck).count();
        assert!((320..480).contains(&struck), "{struck}");
    }

    #[test]
    fn faults_of_a_frame_add_up() {
        let plan = Arc::new(Plan::default());
        let delay = Duration::from_millis(5);
        for fault in [FrameFault::Duplicate, FrameFault::Delay(delay), FrameFault::Delay(delay)] {
            plan.inject(Fault::Frame(fault), Target::all());
        }
        let outcome = plan.frame(Subject::default);
        assert_eq!((outcome.copies, outcome.delay, outcome.cut), (2, 2 * delay, None));
        plan.clear();
        assert_eq!(plan.frame(Subject::default), FrameOutcome::default());
    }
}
