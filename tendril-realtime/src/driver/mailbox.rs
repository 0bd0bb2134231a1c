//! The queue between the driver and one stream. The driver never waits on it: what does not fit becomes an event.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use crate::{
    error::Error,
    session::{Delivery, ResyncReason},
    wire::{BroadcastPayload, UserBroadcast},
};

/// How much a stream may fall behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) events: usize,
    /// Counted over the frames that the events keep in memory.
    pub(crate) bytes: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { events: 4096, bytes: 16 << 20 }
    }
}

/// What a stream takes out of its mailbox.
#[derive(Debug)]
pub(crate) enum Item {
    Delivery(Delivery),
    /// So many events did not fit and are gone; what follows is complete again.
    Lagged(u64),
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Sender(Arc<Shared>);

/// The stream's end. Dropping it makes the driver throw away what is meant for it.
#[derive(Debug)]
pub(crate) struct Receiver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    waker: AtomicWaker,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Delivery>,
    capacity: Capacity,
    /// Events in the queue that count against the capacity; marks do not.
    events: usize,
    bytes: usize,
    /// How many of the newest events still borrow the frames they came in.
    attached: usize,
    /// No more comes with the batch that brought those.
    batch_is_over: bool,
    /// Events dropped from the front since the stream last looked.
    lagged: u64,
    /// The newest mark that stood before a dropped event.
    mark: Option<ResyncReason>,
    /// Why the stream ends, once the queue is empty.
    end: Option<Error>,
    /// The driver is gone, or has delivered the end.
    finished: bool,
    abandoned: bool,
}

/// A new mailbox.
pub(crate) fn mailbox(capacity: Capacity) -> (Sender, Receiver) {
    let state = State {
        queue: VecDeque::new(),
        capacity,
        events: 0,
        bytes: 0,
        attached: 0,
        batch_is_over: false,
        lagged: 0,
        mark: None,
        end: None,
        finished: false,
        abandoned: false,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), waker: AtomicWaker::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Puts it in without waiting and without waking the reader: see [`wake`](Self::wake).
    pub(crate) fn put(&self, delivery: Delivery) -> Put {
        let mut state = self.0.lock();
        if state.abandoned || state.finished {
            return Put::default();
        }
        let is_event = is_event(&delivery);
        let dropped = match delivery {
            Delivery::Finish => {
                state.finished = true;
                0
            }
            Delivery::End(error) => {
                state.end = Some(error);
                state.finished = true;
                0
            }
            Delivery::Resync(_) if matches!(state.queue.back(), Some(Delivery::Resync(_))) => {
                // Two gaps with nothing in between are one.
                state.queue.pop_back();
                state.queue.push_back(delivery);
                0
            }
            Delivery::TransientError(_)
                if matches!(state.queue.back(), Some(Delivery::TransientError(_))) =>
            {
                // Only the last of a row of failures matters; their number has no bound.
                state.queue.pop_back();
                state.queue.push_back(delivery);
                0
            }
            delivery => {
                if state.batch_is_over {
                    // The reader has not come for what the last batch brought.
                    state.detach_waiting();
                }
                state.events += 1;
                state.bytes += weight(&delivery);
                state.queue.push_back(delivery);
                state.attached += 1;
                state.make_room()
            }
        };
        Put { is_event, dropped }
    }

    /// Gives all that waits memory of its own, apart from the frames it came in.
    pub(crate) fn release_frames(&self) {
        self.0.lock().detach_waiting();
    }

    /// Whether the stream was dropped.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.lock().abandoned
    }

    /// Wakes the reader; once after a batch.
    pub(crate) fn wake(&self) {
        self.0.lock().batch_is_over = true;
        self.0.waker.wake();
    }
}

impl State {
    /// Frames share the buffers they were read into: a few bytes that wait must not keep a large buffer alive. Events of the
    /// batch that is being put in share it with the driver anyway; those of earlier batches are copied out, once.
    fn detach_waiting(&mut self) {
        let waiting = self.queue.len();
        for delivery in self.queue.iter_mut().skip(waiting - self.attached.min(waiting)) {
            let before = weight(delivery);
            detach(delivery);
            self.bytes = self.bytes.saturating_sub(before) + weight(delivery);
        }
        self.attached = 0;
        self.batch_is_over = false;
    }

    /// Drops from the front what exceeds the capacity. The oldest goes, so that what remains is complete up to now.
    fn make_room(&mut self) -> u64 {
        let before = self.lagged;
        while self.events > self.capacity.events || (self.bytes > self.capacity.bytes && self.events > 1) {
            let Some(dropped) = self.queue.pop_front() else { break };
            self.attached = self.attached.min(self.queue.len());
            self.events = self.events.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(weight(&dropped));
            match dropped {
                Delivery::Resync(reason) => self.mark = Some(reason),
                // A failure that was followed by so much is history.
                Delivery::TransientError(_) | Delivery::PresenceReset => {}
                _ => self.lagged += 1,
            }
        }
        self.lagged - before
    }

    fn take(&mut self) -> Option<Item> {
        if self.lagged > 0 {
            return Some(Item::Lagged(std::mem::take(&mut self.lagged)));
        }
        if let Some(reason) = self.mark.take() {
            return Some(Item::Delivery(Delivery::Resync(reason)));
        }
        if let Some(delivery) = self.queue.pop_front() {
            self.attached = self.attached.min(self.queue.len());
            self.events = self.events.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(weight(&delivery));
            return Some(Item::Delivery(delivery));
        }
        self.end.take().map(|error| Item::Delivery(Delivery::End(error)))
    }
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Put {
    /// It waits for a reader, and is no mark.
    pub(crate) is_event: bool,
    /// How many events had to go for it.
    pub(crate) dropped: u64,
}

fn is_event(delivery: &Delivery) -> bool {
    !matches!(
        delivery,
        Delivery::Resync(_)
            | Delivery::PresenceReset
            | Delivery::TransientError(_)
            | Delivery::End(_)
            | Delivery::Finish
    )
}

fn detach(delivery: &mut Delivery) {
    match delivery {
        Delivery::Change(change) => change.detach(),
        Delivery::BroadcastText(text) | Delivery::PresenceState(text) | Delivery::PresenceDiff(text) => {
            *text = crate::wire::Slice::from(text.as_str().to_owned());
        }
        Delivery::System(text) => *text = crate::wire::Slice::from(text.as_str().to_owned()),
        Delivery::Broadcast(broadcast) => match &mut broadcast.payload {
            BroadcastPayload::Json(text) => *text = crate::wire::Slice::from(text.as_str().to_owned()),
            BroadcastPayload::Binary(bytes) => *bytes = bytes::Bytes::copy_from_slice(bytes),
        },
        Delivery::Resync(_)
        | Delivery::PresenceReset
        | Delivery::TransientError(_)
        | Delivery::End(_)
        | Delivery::Finish => {}
    }
}

/// Bytes of memory that a waiting event occupies, its place in the queue among them.
fn weight(delivery: &Delivery) -> usize {
    let own = match delivery {
        Delivery::Change(change) => change.weight(),
        Delivery::BroadcastText(text)
        | Delivery::PresenceState(text)
        | Delivery::PresenceDiff(text)
        | Delivery::System(text) => text.as_str().len(),
        Delivery::Broadcast(broadcast) => {
            let payload = match &broadcast.payload {
                BroadcastPayload::Json(text) => text.as_str().len(),
                BroadcastPayload::Binary(bytes) => bytes.len(),
            };
            let names = broadcast.event.len() + broadcast.metadata.as_ref().map_or(0, String::len);
            payload + names + size_of::<UserBroadcast>()
        }
        Delivery::Resync(_)
        | Delivery::PresenceReset
        | Delivery::TransientError(_)
        | Delivery::End(_)
        | Delivery::Finish => return 0,
    };
    own + size_of::<Delivery>()
}

/// Counts what waits in a mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Gauge(Arc<Shared>);

impl Gauge {
    /// Everything that waits to be taken.
    pub(crate) fn waiting(&self) -> u64 {
        let state = self.0.lock();
        state.queue.len() as u64 + u64::from(state.lagged > 0) + u64::from(state.mark.is_some())
    }
}

impl Receiver {
    pub(crate) fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(&self.0))
    }

    /// The next item; `None` when there will be no more.
    pub(crate) fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut state = self.0.lock();
        if let Some(item) = state.take() {
            return Poll::Ready(Some(item));
        }
        if state.finished {
            return Poll::Ready(None);
        }
        drop(state);
        self.0.waker.register(cx.waker());
        // Something may have come between the look and the registration.
        let mut state = self.0.lock();
        match state.take() {
            Some(item) => Poll::Ready(Some(item)),
            None if state.finished => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().finished = true;
        self.0.waker.wake();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        state.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Slice;

    fn event(number: u64) -> Delivery {
        Delivery::BroadcastText(Slice::from(number.to_string()))
    }

    fn drain(receiver: &mut Receiver) -> Vec<String> {
        let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
        let mut seen = Vec::new();
        while let Poll::Ready(Some(item)) = receiver.poll_take(&mut cx) {
            seen.push(match item {
                Item::Lagged(count) => format!("lagged {count}"),
                Item::Delivery(Delivery::BroadcastText(text)) => text.as_str().to_owned(),
                Item::Delivery(Delivery::Resync(_)) => "resync".to_owned(),
                Item::Delivery(other) => format!("{other:?}"),
            });
        }
        seen
    }

    #[test]
    fn a_slow_reader_learns_how_much_it_missed_and_reads_on_without_a_hole() {
        let (sender, mut receiver) = mailbox(Capacity { events: 3, bytes: 1 << 20 });
        for number in 0..10 {
            sender.put(event(number));
        }
        assert_eq!(drain(&mut receiver), ["lagged 7", "7", "8", "9"]);
        sender.put(event(10));
        assert_eq!(drain(&mut receiver), ["10"]);
    }

    #[test]
    fn a_mark_is_not_lost_with_the_events_around_it() {
        let (sender, mut receiver) = mailbox(Capacity { events: 2, bytes: 1 << 20 });
        sender.put(event(0));
        sender.put(Delivery::Resync(ResyncReason::Reconnected));
        sender.put(Delivery::Resync(ResyncReason::Reconnected));
        for number in 1..5 {
            sender.put(event(number));
        }
        let seen = drain(&mut receiver);
        assert_eq!(seen.iter().filter(|item| *item == "resync").count(), 1, "{seen:?}");
        assert_eq!(seen.last().unwrap(), "4");
    }

    #[test]
    fn large_events_are_bounded_by_bytes() {
        let (sender, mut receiver) = mailbox(Capacity { events: 1000, bytes: 1000 });
        for _ in 0..100 {
            sender.put(Delivery::BroadcastText(Slice::from("x".repeat(400))));
        }
        assert_eq!(drain(&mut receiver).len(), 3, "a mark and two events");
    }

    #[test]
    fn the_end_comes_after_everything_that_was_delivered() {
        let (sender, mut receiver) = mailbox(Capacity::default());
        sender.put(event(1));
        sender.put(Delivery::End(Error::new(crate::error::ErrorKind::Closed)));
        sender.put(event(2));
        let seen = drain(&mut receiver);
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0], "1");
        drop(sender);
        let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
        assert!(matches!(receiver.poll_take(&mut cx), Poll::Ready(None)));
    }
}
