//! The writing half of a socket: a task of its own, so that a client that does not read holds up no other.

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{SinkExt as _, stream::SplitSink};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::fault::{Cut, Faults};

/// What the writer is given, in this order.
#[derive(Debug)]
pub(super) enum WriterCommand {
    Frame {
        message: Message,
        /// Not sent before.
        due: Option<Instant>,
        /// Not sent while this rule of the fault plan is in force.
        held_by: Option<u64>,
    },
    /// The socket ends.
    End(Cut),
}

/// Writes until the socket ends, and returns how. Waits while sockets are stalled.
pub(super) async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut commands: mpsc::UnboundedReceiver<WriterCommand>,
    faults: Faults,
) -> Cut {
    let mut stalled = faults.stalled();
    while let Some(command) = commands.recv().await {
        // An error means that the stack is gone: then nothing stalls any more.
        let _ = stalled.wait_for(|stalled| !stalled).await;
        let sent = match command {
            WriterCommand::Frame { message, due, held_by } => {
                if due.is_some() || held_by.is_some() {
                    // What came before must not wait as well.
                    let _ = sink.flush().await;
                }
                if let Some(rule) = held_by {
                    faults.lifted(rule).await;
                }
                if let Some(due) = due {
                    sleep_until(due).await;
                }
                match sink.feed(message).await {
                    // What waits is written together.
                    Ok(()) if !commands.is_empty() => Ok(()),
                    Ok(()) => sink.flush().await,
                    failed => failed,
                }
            }
            WriterCommand::End(cut) => {
                // Errors mean that the peer is gone already.
                let _ = match cut {
                    Cut::Close(code) => {
                        sink.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await
                    }
                    Cut::Abrupt => sink.flush().await,
                };
                return cut;
            }
        };
        if sent.is_err() {
            break;
        }
    }
    Cut::Abrupt
}
