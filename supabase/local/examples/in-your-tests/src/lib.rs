//! A client of a to-do list in Supabase: what is to be tested.

use reqwest::{Client, Error, RequestBuilder};
use serde::Deserialize;
use serde_json::json;

/// The list of one user.
pub struct Todos {
    client: Client,
    url: String,
    key: String,
    token: String,
}

#[derive(Deserialize)]
struct Todo {
    title: String,
}

impl Todos {
    /// The project's URL and key, and the user's token.
    pub fn new(url: &str, key: &str, token: &str) -> Self {
        Self { client: Client::new(), url: format!("{url}/rest/v1/todos"), key: key.into(), token: token.into() }
    }

    /// Adds something to do.
    pub async fn add(&self, title: &str) -> Result<(), Error> {
        let request = self.signed(self.client.post(&self.url)).json(&json!({ "title": title }));
        request.send().await?.error_for_status().map(drop)
    }

    /// What is to be done, the oldest first.
    pub async fn titles(&self) -> Result<Vec<String>, Error> {
        let request = self.signed(self.client.get(format!("{}?select=title&order=id", self.url)));
        let todos: Vec<Todo> = request.send().await?.error_for_status()?.json().await?;
        Ok(todos.into_iter().map(|todo| todo.title).collect())
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        request.header("apikey", &self.key).bearer_auth(&self.token)
    }
}
