//! Scheduled jobs. The extension comes with `scripts/setup.sh`.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::time::{Duration, Instant};

use supabase_local::{ErrorKind, PgCron, Stack};
use tokio_postgres::NoTls;

#[tokio::test]
async fn the_projects_owner_schedules_jobs_and_they_run() {
    let stack = Stack::builder().pg_cron(PgCron::Required).without_migrations().start().await.unwrap();
    let (owner, connection) = tokio_postgres::connect(&stack.database_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    owner.batch_execute("create table public.runs (at timestamptz default now())").await.unwrap();
    // Debian's 1.4 supports minutes only.
    let schedule = "select cron.schedule('note', '* * * * *', 'insert into public.runs default values')";
    owner.batch_execute(schedule).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(75);
    while owner.query_one("select count(*) from public.runs", &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(Instant::now() < deadline, "no job ran in more than a minute");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let done = "select count(*) from cron.job_run_details where status = 'succeeded' or status = 'running'";
    assert!(owner.query_one(done, &[]).await.unwrap().get::<_, i64>(0) > 0);
    owner.batch_execute("delete from cron.job_run_details where end_time < now()").await.unwrap();
    let shared = Stack::builder().shared_postgres(stack.postgres().unwrap()).start().await.unwrap_err();
    assert_eq!(shared.kind(), ErrorKind::Database, "{shared}");
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn without_being_asked_no_job_can_run() {
    let stack = Stack::builder().without_migrations().start().await.unwrap();
    let (admin, connection) = tokio_postgres::connect(&stack.admin_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let loaded = admin.query_one("show shared_preload_libraries", &[]).await.unwrap();
    assert_eq!(loaded.get::<_, String>(0), "");
    stack.stop().await.unwrap();
}
