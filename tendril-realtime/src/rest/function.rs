//! Edge Functions: the same keys, tokens, deadlines and retries as for rows.

use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Serialize;
use url::Url;

use super::{Parts, Response, Rest, path_segment};
use crate::error::Error;

impl Rest {
    /// Calls an Edge Function with a JSON body (POST).
    ///
    /// What it does is its own affair, so that it is called again only where the first call was not executed.
    ///
    /// ```no_run
    /// # async fn run(rest: tendril_realtime::Rest) -> Result<(), tendril_realtime::Error> {
    /// let answer = rest.invoke("greet", &serde_json::json!({"name": "Ada"})).await?;
    /// let greeting: String = answer.json()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Postgrest`](crate::ErrorKind::Postgrest) for an answer other than 2xx, whoever gave it: the function, or the gateway before it, which
    /// is 404 where no such function is deployed. Its code and message are those of a JSON body `{"code", "message"}`.
    pub async fn invoke<B: Serialize + ?Sized>(&self, function: &str, body: &B) -> Result<Response, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::unserializable("body", &error))?;
        let address = format!("{}/{}", self.functions, path_segment("function", function)?);
        let url = Url::parse(&address).map_err(|error| Error::invalid("function", error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.send(Parts { method: Method::POST, url, headers, body: Bytes::from(body), idempotent: false })
            .await
    }
}
