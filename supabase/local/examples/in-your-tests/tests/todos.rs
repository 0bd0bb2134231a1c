//! The client on a real PostgreSQL with its own policies.

use in_your_tests::Todos;
use supabase_local::Stack;

const ANN: &str = "11111111-1111-4111-8111-111111111111";
const BOB: &str = "22222222-2222-4222-8222-222222222222";

#[tokio::test]
async fn each_user_sees_only_what_is_theirs() {
    let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/supabase/migrations");
    let stack = Stack::builder().migrations(migrations).start().await.expect("the stack starts");
    let of = |user: &str| Todos::new(&stack.api_url(), stack.anon_key(), &stack.mint_user(user));
    let (ann, bob) = (of(ANN), of(BOB));
    ann.add("water the plants").await.expect("it is added");
    bob.add("feed the cat").await.expect("it is added");
    assert_eq!(ann.titles().await.unwrap(), ["water the plants"]);
    assert_eq!(bob.titles().await.unwrap(), ["feed the cat"]);
    stack.stop().await.expect("the stack stops");
}
