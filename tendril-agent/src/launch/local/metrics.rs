//! What an executor counts, for the `/metrics` of its dispatcher.
//!
//! An executor serves nothing. It adds up what it counts and writes the sums into a file of its directory. Its dispatcher reads
//! the file when it has changed and adds what is new to its own series. How much it has added is noted beside it, so that a
//! later dispatcher does not add the same again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Label, Level, Metadata, Recorder, SharedString,
    Unit,
};
use serde::{Deserialize, Serialize};

/// What the names of all series begin with: a dispatcher adds no others.
const PREFIX: &str = "tendril_";
/// Most values of one distribution that are kept: an attempt has a few.
const MOST_VALUES: usize = 256;

/// Adds up what this process counts. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    counters: Arc<Mutex<BTreeMap<Series, Arc<AtomicU64>>>>,
    distributions: Arc<Mutex<BTreeMap<Series, Arc<Values>>>>,
}

/// A metric with its labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Series {
    name: String,
    #[serde(default)]
    labels: Vec<(String, String)>,
}

/// The values of one distribution, in their order.
#[derive(Debug, Default)]
struct Values(Mutex<Vec<f64>>);

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    #[serde(default)]
    counters: Vec<(Series, u64)>,
    #[serde(default)]
    distributions: Vec<(Series, Vec<f64>)>,
}

impl Tally {
    /// Becomes the recorder of this process; a second one changes nothing.
    pub(crate) fn install() -> Self {
        let tally = Self::default();
        let _is_first = metrics::set_global_recorder(tally.clone());
        tally
    }

    /// What was counted so far.
    pub(crate) fn totals(&self) -> Totals {
        let counters = lock(&self.counters);
        let counters = counters.iter().map(|(series, sum)| (series.clone(), sum.load(Ordering::Relaxed)));
        let distributions = lock(&self.distributions);
        let distributions =
            distributions.iter().map(|(series, values)| (series.clone(), lock(&values.0).clone()));
        Totals { counters: counters.collect(), distributions: distributions.collect() }
    }
}

impl Totals {
    /// What was counted since those.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let of = |series: &Series| earlier.counters.iter().find(|(other, _)| other == series);
        let counters = self
            .counters
            .iter()
            .map(|(series, sum)| (series.clone(), sum.saturating_sub(of(series).map_or(0, |(_, sum)| *sum))));
        let of = |series: &Series| earlier.distributions.iter().find(|(other, _)| other == series);
        let distributions = self.distributions.iter().map(|(series, values)| {
            let known = of(series).map_or(0, |(_, values)| values.len());
            (series.clone(), values.get(known..).unwrap_or_default().to_vec())
        });
        Self {
            counters: counters.filter(|(_, sum)| *sum > 0).collect(),
            distributions: distributions.filter(|(_, values)| !values.is_empty()).collect(),
        }
    }

    /// Without how they are distributed.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn counters_only(&self) -> Self {
        Self { counters: self.counters.clone(), distributions: Vec::new() }
    }

    /// Adds them to the series of this process.
    pub(crate) fn record(&self) {
        const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        metrics::with_recorder(|recorder| {
            for (series, sum) in &self.counters {
                if let Some(key) = series.key() {
                    recorder.register_counter(&key, &METADATA).increment(*sum);
                }
            }
            for (series, values) in &self.distributions {
                if let Some(key) = series.key() {
                    let histogram = recorder.register_histogram(&key, &METADATA);
                    for value in values {
                        histogram.record(*value);
                    }
                }
            }
        });
    }
}

impl Series {
    fn of(key: &Key) -> Self {
        let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
        Self { name: key.name().to_owned(), labels: labels.collect() }
    }

    fn key(&self) -> Option<Key> {
        let labels = self.labels.iter().map(|(name, value)| Label::new(name.clone(), value.clone()));
        self.name.starts_with(PREFIX).then(|| Key::from_parts(self.name.clone(), labels.collect::<Vec<_>>()))
    }
}

impl Recorder for Tally {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(lock(&self.counters).entry(Series::of(key)).or_default()))
    }

    // They say what is so now, of this process: nothing that could be added to another's.
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::clone(lock(&self.distributions).entry(Series::of(key)).or_default()))
    }
}

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        let mut values = lock(&self.0);
        if values.len() < MOST_VALUES {
            values.push(value);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one of these locks can leave its value in halves.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(tally: &Tally, ended: u64, took: &[f64]) {
        metrics::with_local_recorder(tally, || {
            metrics::counter!("tendril_agent_jobs_ended_total", "status" => "SUCCESS").increment(ended);
            metrics::gauge!("tendril_agent_ready").set(1.0);
            for took in took {
                metrics::histogram!("tendril_agent_job_seconds").record(*took);
            }
        });
    }

    #[test]
    fn what_was_added_is_not_added_again_and_survives_the_file() {
        let executor = Tally::default();
        count(&executor, 2, &[1.5]);
        let first = executor.totals();
        let read: Totals = serde_json::from_slice(&serde_json::to_vec(&first).unwrap()).unwrap();
        assert_eq!(read, first);

        let dispatcher = Tally::default();
        let add = |totals: &Totals| metrics::with_local_recorder(&dispatcher, || totals.record());
        add(&read.since(&Totals::default()));
        assert_eq!(dispatcher.totals(), first);
        count(&executor, 1, &[2.5, 3.5]);
        let second = executor.totals();
        assert_ne!(second, first);
        add(&second.since(&first));
        assert_eq!(dispatcher.totals(), second);
        assert_eq!(second.since(&second), Totals::default());
    }

    #[test]
    fn a_series_of_another_name_is_not_added() {
        let executor = Tally::default();
        metrics::with_local_recorder(&executor, || metrics::counter!("node_load1").increment(1));
        let dispatcher = Tally::default();
        metrics::with_local_recorder(&dispatcher, || executor.totals().record());
        assert_eq!(dispatcher.totals(), Totals::default());
    }
}
