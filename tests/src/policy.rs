//! A row level security policy that is taken away for the time of a test, and put back also when the test fails.

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures_util::FutureExt as _;

use crate::world::World;

/// Runs `test` without the policy `name` on `table` (`schema.table`). An external project is shared: a test that calls this has
/// `policies` in its name, by which `.config/nextest.toml` lets it run alone.
pub async fn without_policy<T>(world: &World, table: &str, name: &str, test: impl AsyncFnOnce() -> T) -> T {
    let definition = "select format('create policy %I on %s as %s for %s to %s%s%s', policyname, $1::text, permissive, cmd,
            (select string_agg(quote_ident(role), ', ') from unnest(roles) role),
            ' using (' || qual || ')', ' with check (' || with_check || ')')
        from pg_policies where format('%I.%I', schemaname, tablename) = $1 and policyname = $2";
    let create: String =
        world.database.query_one(definition, &[&table, &name]).await.expect("the policy").get(0);
    let drop = format!("drop policy \"{name}\" on {table}");
    world.database.batch_execute(&drop).await.expect("the policy is dropped");
    let outcome = AssertUnwindSafe(test()).catch_unwind().await;
    world.database.batch_execute(&create).await.expect("the policy is created again");
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}
