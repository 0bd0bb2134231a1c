//! The REST server against what PostgREST 16.2 answered: each recorded request is sent again, in order, and
//! the answer compared in status, headers and body.
//!
//! DIFFERENCES.md lists the recordings that are answered differently, each with its reason. A listed recording that is answered
//! alike fails the test as well, so the list stays true.

use std::collections::BTreeSet;
use std::path::PathBuf;

use supabase_local::rest::Settings;

use crate::ledger::listed;
use crate::recording::{self, Exchange};
use crate::service::{Place, Service, folder_of};

/// Recordings that need a server which this one cannot be; the ledger has the reason.
const UNREPLAYABLE: [&str; 8] = ["055-", "060-", "061-", "062-", "063-", "064-", "065-", "066-"];

/// What the database had besides `schema.sql` when the failures were recorded.
const EXTRA_TABLES: &str = r#"
insert into items (code) values ('a,b'), ('q"x'), ('p(1)'), ('back\slash');
create table drops (id uuid primary key, body text);
alter table drops enable row level security;
create policy add_drops on drops for insert to authenticated with check (true);
grant select, insert on drops to authenticated;
create table colpriv (id int primary key, a text, b text);
grant insert, select (id, a) on colpriv to authenticated;
create function slow(s float) returns void language sql as 'select pg_sleep(s)';
"#;

/// The settings of the recorded server: PostgREST's own, where nothing refuses a write of all rows.
fn as_recorded() -> Settings {
    Settings { safe_update: false, ..Settings::default() }
}

fn recordings(folder: &str) -> Vec<Exchange> {
    let folder = folder_of(folder);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| Exchange::read(file)).collect()
}

/// Compares what was found with what is listed.
fn compare_with_ledger(kind: &str, outcomes: &[(String, Result<(), String>)]) {
    let ledger = listed(kind);
    let mut complaints = Vec::new();
    for (name, outcome) in outcomes {
        match (outcome, ledger.get(name)) {
            (Ok(()), Some(_)) => {
                complaints.push(format!("{name} is answered alike now: take it off the ledger"));
            }
            (Err(difference), None) => {
                complaints.push(format!("{name} is answered differently:\n{difference}"));
            }
            _ => {}
        }
    }
    for listed in ledger.keys() {
        let beside = UNREPLAYABLE.iter().any(|number| listed.starts_with(number));
        if !beside && !outcomes.iter().any(|(name, _)| name == listed) {
            complaints.push(format!("{listed} is on the ledger, but was not replayed"));
        }
    }
    let alike = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count();
    println!("{alike} of {} recordings are answered alike", outcomes.len());
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_requests_are_answered_as_recorded() {
    let place = Place::prepare("recorded").await;
    let outcomes = replay_main(&place).await;
    place.remove().await;
    compare_with_ledger("rest/v16.2", &outcomes);
}

/// Replays the recordings on `schema.sql`.
async fn replay_main(place: &Place) -> Outcomes {
    let service = Service::start(place, as_recorded()).await;
    let exchanges = recordings("v16.2");
    let mut replay = Replay::new(&exchanges);
    replay.through(&service, "231").await;
    replay.outcomes
}

/// The recordings of configuration and failure, in the order of the files. Between them stands what was
/// done to the server and the database at the time. They begin with the database as the others left it.
#[tokio::test(flavor = "multi_thread")]
async fn recorded_failures_are_answered_as_recorded() {
    let place = Place::prepare("extra").await;
    replay_main(&place).await;
    let mut exchanges = recordings("v16.2-extra");
    exchanges.retain(|exchange| !UNREPLAYABLE.iter().any(|number| exchange.name.starts_with(number)));
    let mut replay = Replay::new(&exchanges);
    place.sql(EXTRA_TABLES).await;

    let service = Service::start(&place, Settings { transaction_override: true, ..as_recorded() }).await;
    replay.through(&service, "004").await;

    let service = Service::start(&place, as_recorded()).await;
    replay.through(&service, "037").await;
    place.sql("create table fresh (id int primary key); alter table pk2 add extra text").await;
    place.sql("grant all on fresh to anon").await;
    replay.through(&service, "041").await;
    place.sql("notify pgrst, 'reload schema'").await;
    service.until(&exchanges[replay.next()], 200).await;
    replay.through(&service, "043").await;
    place.sql("alter table pk2 drop extra; drop table fresh").await;
    replay.through(&service, "046").await;

    place.sql("alter role authenticated set statement_timeout = '400ms'").await;
    let impatient = Service::start(&place, as_recorded()).await;
    replay.through(&impatient, "047").await;
    place.sql("alter role authenticated reset statement_timeout").await;

    let narrow = Service::with_pool(place.config("authenticator"), as_recorded(), 1).await;
    let long_call = replay.named("049");
    tokio::join!(narrow.send(long_call), async {
        place.until_busy().await;
        replay.through(&narrow, "048").await;
        place.end_busy().await;
    });
    tokio::join!(replay.through(&narrow, "049"), async {
        place.until_busy().await;
        place.end_busy().await;
    });
    replay.through(&narrow, "050").await;

    let short = Service::start(&place, Settings { max_rows: Some(2), ..as_recorded() }).await;
    replay.through(&short, "053").await;
    let blank = Service::start(&place, Settings { anon_role: Some(" ".into()), ..as_recorded() }).await;
    replay.through(&blank, "054").await;
    let closed = Service::start(&place, Settings { anon_role: None, ..as_recorded() }).await;
    replay.through(&closed, "056").await;
    let mut nowhere = place.config("authenticator");
    nowhere = nowhere.dbname("no_such_database").clone();
    let lost = Service::with_pool(nowhere, as_recorded(), 1).await;
    replay.through(&lost, "058").await;
    let strict = Service::start(&place, Settings { audience: Some("other".into()), ..as_recorded() }).await;
    replay.through(&strict, "059").await;
    place.remove().await;
    compare_with_ledger("rest/v16.2-extra", &replay.outcomes);
}

/// Each recording's name, with the difference if there is one.
type Outcomes = Vec<(String, Result<(), String>)>;

/// A walk through recordings in their order.
struct Replay<'a> {
    exchanges: &'a [Exchange],
    known: BTreeSet<String>,
    outcomes: Outcomes,
}

impl<'a> Replay<'a> {
    fn new(exchanges: &'a [Exchange]) -> Self {
        Self { exchanges, known: recording::known_uuids(exchanges), outcomes: Vec::new() }
    }

    /// Index of the next recording.
    fn next(&self) -> usize {
        self.outcomes.len()
    }

    /// The recording whose name begins with this number.
    fn named(&self, number: &str) -> &'a Exchange {
        self.exchanges.iter().find(|exchange| exchange.name.starts_with(number)).unwrap()
    }

    /// Replays all recordings up to the one with this number.
    async fn through(&mut self, service: &Service, last: &str) {
        while let Some(exchange) = self.exchanges.get(self.next())
            && exchange.name.as_str() <= format!("{last}~").as_str()
        {
            let answer = service.send(exchange).await;
            self.outcomes.push((exchange.name.clone(), exchange.compare(&answer, &self.known)));
        }
    }
}
