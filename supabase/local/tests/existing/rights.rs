//! A user that is no superuser, on a database that is one of Supabase already.

use supabase_local::ErrorKind;

use crate::foreign::Foreign;
use crate::{signs_up, start, works};

#[tokio::test]
async fn each_missing_right_is_named_with_the_sql_that_gives_it() {
    let foreign = Foreign::start(&[]).await;
    start(foreign.url("me", "postgres")).await.unwrap().stop().await.unwrap();
    foreign.sql("postgres", "create role app login password 'pa ss/word'").await;
    // Obeys the advice until there is none, as a user would.
    let mut rounds = 0;
    let stack = loop {
        let error = match start(foreign.url("app", "postgres")).await {
            Ok(stack) => break stack,
            Err(error) => error,
        };
        rounds += 1;
        assert!(rounds < 4, "{error}");
        assert_eq!(error.kind(), ErrorKind::DatabaseUnsuitable, "{error}");
        let text = error.to_string();
        let advice: Vec<&str> =
            text.split("; ").filter_map(|part| part.rsplit_once(": ")).map(|(_, sql)| sql).collect();
        assert!(!advice.is_empty(), "{text}");
        for sql in advice {
            foreign.sql("postgres", sql).await;
        }
    };
    assert!(rounds > 0);
    works(&stack, "without-a-superuser").await;
    signs_up(&stack, "app@example.com").await;
    stack.stop().await.unwrap();
}
