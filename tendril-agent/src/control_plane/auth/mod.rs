//! The machine token: read from a setting or exchanged for the cluster's key, and renewed before it expires.
//!
//! ```text
//! credential      the one secret that the agent was given, and where it is stored
//! cluster_key     its form, where it is an API key
//! exchange        an API key in, a machine token out
//! machine_token   the claims of a token, read without verification
//! renewal         how long the token is good, and when the next one is due
//! session         gives requests the current token
//! ```

mod cluster_key;
mod credential;
mod exchange;
mod machine_token;
mod renewal;
pub(crate) mod session;

pub use self::credential::{Claim, Credential};
pub(crate) use self::{
    machine_token::MachineToken,
    session::{Exchange, Session},
};
