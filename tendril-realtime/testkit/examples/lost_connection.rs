//! A test of one's own: what does my program do when the connection breaks? Run it:
//! `cargo run -p tendril-realtime-testkit --example lost_connection`

use serde::Deserialize;
use serde_json::json;
use tendril_realtime::{ChangeEvent, Client, PostgresChanges, StreamExt as _};
use tendril_realtime_testkit::FakeServer;

#[derive(Debug, Deserialize)]
struct Todo {
    id: i64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = FakeServer::start().await?;
    let client = Client::builder(server.url(), "anon-key").build()?;
    let changes = PostgresChanges::on("public", "todos");
    let mut todos = client.channel("todos").postgres_changes::<Todo>(changes).subscribe().await?;

    server.insert("public", "todos", json!({"id": 1}));
    server.cut_connections();
    while let Some(event) = todos.next().await {
        match event? {
            ChangeEvent::Insert(todo) => println!("todo {}", todo.id),
            ChangeEvent::Interrupted(error) => println!("interrupted: {error:#}"),
            ChangeEvent::Resync(reason) => {
                println!("back ({reason:?}) after {} connections", server.journal().upgrades());
                break;
            }
            _ => {}
        }
    }
    Ok(())
}
