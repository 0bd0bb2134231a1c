//! A client for plain requests.

/// Every test's own.
pub(crate) fn client() -> reqwest::Client {
    // The first test of this process installs it; nothing here is encrypted, and the client wants one all the same.
    let _there = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}
