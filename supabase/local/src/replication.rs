//! Committed changes of the published tables, as a stream of whole transactions. [`crate::changes`] and [`crate::realtime`] read it.

mod pgoutput;
mod stream;

pub(crate) use pgoutput::{Cell, Identity, Operation, Relation, RowChange, Tuple};
pub(crate) use stream::{Source, Transaction, stream};
