//! A Supabase Realtime and PostgREST client.
mod backoff;
mod endpoint;
mod error;
pub mod rest;
mod secret;
mod tls;
mod token;

pub use self::{
    endpoint::Version,
    error::{ApiError, Error, ErrorKind, Retry},
    rest::Rest,
    secret::{AccessToken, ApiKey},
    token::{TokenFuture, TokenSource},
};
