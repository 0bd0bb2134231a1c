//! Everything that `PostgREST` can do, through the library's own methods, on rows of a real database.

use serde::Deserialize;
use serde_json::{Value, json};
use supabase_local::{Stack, rest::Settings};
use tendril_realtime::{
    Filter, Rest, Retry, TextSearch, col,
    rest::{Count, Explain, QueryBuilder},
};

const SCHEMA: &str = "
    create table public.authors (id int primary key, name text not null, city text);
    create table public.books (id int primary key, author_id int references public.authors, title text, tags text[],
        meta jsonb, sold int, period int4range, body text, words tsvector generated always as (to_tsvector('english', body)) stored);
    insert into public.authors values (1, 'Ada', 'London'), (2, 'Bob', null), (3, 'Eve', 'Ankara');
    insert into public.books (id, author_id, title, tags, meta, sold, period, body) values
        (1, 1, 'Engines', '{maths,\"a,b\"}', '{\"lang\": \"en\", \"pages\": {\"n\": 100}}', 10, '[1,5)', 'the fat cats sat'),
        (2, 1, 'Notes', '{maths}', '{\"lang\": \"fr\"}', 20, '[5,9)', 'a rat ran away'),
        (3, 2, 'Lies', '{}', null, null, '[10,20)', 'the cat and the rat'),
        (4, 3, 'Exit, (now)', null, '{\"lang\": \"en\"}', 30, null, 'nothing here');
    create schema billing;
    create table billing.invoices (id int primary key, cents bigint);
    insert into billing.invoices values (1, 9007199254740993), (2, 5);
    create function billing.total() returns bigint language sql stable as 'select sum(cents)::bigint from billing.invoices where id = 2';
    create function public.add(a int, b int default 1) returns int language sql immutable as 'select a + b';
    create function public.join_words(words text[], sep text) returns text language sql immutable as 'select array_to_string(words, sep)';
    create function public.sold_over(minimum int) returns setof public.books language sql stable as 'select * from public.books where sold > minimum';
    grant usage on schema billing to service_role;
    grant all on all tables in schema public to service_role; grant all on all tables in schema billing to service_role;
    grant execute on all functions in schema billing to service_role;";

async fn stack() -> (Stack, Rest) {
    let settings = Settings {
        schemas: vec!["public".to_owned(), "billing".to_owned()],
        transaction_override: true,
        plan_enabled: true,
        ..Settings::default()
    };
    let stack =
        Stack::builder().without_migrations().sql(SCHEMA).rest(settings).start().await.expect("a stack");
    let rest = Rest::builder(stack.api_url(), stack.service_role_key()).build().expect("a handle");
    (stack, rest)
}

#[derive(Debug, Deserialize, PartialEq)]
struct Id {
    id: i32,
}

async fn ids(request: QueryBuilder) -> Vec<i32> {
    let rows: Vec<Id> = request.select("id").order("id").rows().await.expect("rows");
    rows.into_iter().map(|row| row.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operator_chooses_the_rows_that_sql_chooses() {
    let (_stack, rest) = stack().await;
    let cases: Vec<(Filter, &[i32])> = vec![
        (col("sold").eq(20), &[2]),
        (col("sold").neq(20), &[1, 4]),
        (col("sold").gt(10), &[2, 4]),
        (col("sold").gte(10), &[1, 2, 4]),
        (col("sold").lt(20), &[1]),
        (col("sold").lte(20), &[1, 2]),
        (col("title").like("E%"), &[1, 4]),
        (col("title").like("E*"), &[1, 4]),
        (col("title").ilike("e%"), &[1, 4]),
        (col("title").like_any(["E%", "L%"]), &[1, 3, 4]),
        (col("title").like_all(["E%", "%s"]), &[1]),
        (col("title").ilike_any(["e%", "l%"]), &[1, 3, 4]),
        (col("title").ilike_all(["e%", "%S"]), &[1]),
        (col("title").like_any(["Exit, (%"]), &[4]),
        (col("title").regex("^E.*s$"), &[1]),
        (col("title").iregex("^e"), &[1, 4]),
        (col("sold").is_null(), &[3]),
        (col("sold").not_null(), &[1, 2, 4]),
        (col("sold").is("not_null"), &[1, 2, 4]),
        (col("sold").is_distinct(20), &[1, 3, 4]),
        (!col("sold").is_distinct(20), &[2]),
        (col("title").in_list(["Notes", "Exit, (now)"]), &[2, 4]),
        (col("title").in_list(Vec::<&str>::new()), &[]),
        (col("title").not_in(["Notes", "Exit, (now)"]), &[1, 3]),
        (col("tags").contains(["maths"]), &[1, 2]),
        (col("tags").contains(["a,b"]), &[1]),
        (col("tags").contains("{maths}"), &[1, 2]),
        (col("meta").contains(json!({"lang": "en"})), &[1, 4]),
        (col("tags").contained_by(["maths", "x"]), &[2, 3]),
        (col("tags").overlaps(["a,b", "x"]), &[1]),
        (col("period").contains("[2,3)"), &[1]),
        (col("period").overlaps("[4,6)"), &[1, 2]),
        (col("period").contained_by("[0,10)"), &[1, 2]),
        (col("period").range_lt("[5,6)"), &[1]),
        (col("period").range_gt("[5,6)"), &[3]),
        (col("period").range_gte("[5,9)"), &[2, 3]),
        (col("period").range_lte("[5,9)"), &[1, 2]),
        (col("period").range_adjacent("[5,9)"), &[1]),
        (col("words").text_search("fat & cat"), &[1]),
        (col("words").text_search(TextSearch::plain("cats rats").config("english")), &[3]),
        (col("words").text_search(TextSearch::phrase("fat cats").config("english")), &[1]),
        (col("words").text_search(TextSearch::websearch("cat -fat")), &[3]),
        (!col("words").text_search("cat"), &[2, 4]),
        (col("meta").key("lang").text().eq("en"), &[1, 4]),
        (col("meta").key("pages").key("n").eq(100), &[1]),
        (col("sold").op("gt", 10), &[2, 4]),
        (col("sold").op("eq(any)", "{10,20}"), &[1, 2]),
        (col("tags").op("not.cs", "{maths}"), &[3]),
        (("sold", "not.eq", 20).into(), &[1, 4]),
        (col("sold").eq(10).or(col("title").eq("Exit, (now)")), &[1, 4]),
        (col("sold").eq(10).or(col("sold").gt(10).and(col("author_id").eq(1))), &[1, 2]),
        (!(col("sold").eq(10).or(col("sold").eq(20))), &[4]),
        (!(col("sold").eq(10).and(col("author_id").eq(1))), &[2, 3, 4]),
        (col("tags").contains(["a,b"]).or(col("meta").contains(json!({"lang": "fr"}))), &[1, 2]),
        (
            col("words").text_search(TextSearch::plain("cat").config("english")).or(col("id").in_list([2])),
            &[1, 2, 3],
        ),
        (col("title").like_any(["Exit, (%"]).or(col("id").is_distinct(3).and(col("sold").is_null())), &[4]),
        (Filter::all([col("sold").gt(5), col("sold").lt(25)]), &[1, 2]),
        (Filter::any([col("id").eq(3)]), &[3]),
    ];
    for (filter, expected) in cases {
        assert_eq!(ids(rest.from("books").filter(filter.clone())).await, expected, "{filter:?}");
    }
    let each_method_twice = rest.from("books").gt("sold", 5).gt("sold", 10).lt("sold", 30).lt("sold", 25);
    assert_eq!(ids(each_method_twice).await, [2]);
    let two_ors =
        rest.from("books").or([col("id").eq(1), col("id").eq(2)]).or([col("id").eq(2), col("id").eq(3)]);
    assert_eq!(ids(two_ors).await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_pages_and_embedded_tables_are_what_was_asked_for() {
    let (_stack, rest) = stack().await;
    let rows: Vec<Id> = rest
        .from("books")
        .select("id")
        .order(col("author_id").desc())
        .order(col("sold").desc())
        .rows()
        .await
        .expect("rows");
    assert_eq!(
        rows.iter().map(|row| row.id).collect::<Vec<_>>(),
        [4, 3, 2, 1],
        "the second order counts too"
    );
    let rows: Vec<Id> = rest
        .from("books")
        .select("id")
        .order(col("sold").asc().nulls_first())
        .range(0, 1)
        .rows()
        .await
        .expect("rows");
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [3, 1]);
    let rows: Vec<Value> = rest
        .from("authors")
        .select("id")
        .select("books(id)")
        .eq(col("sold").of("books"), 20)
        .order("id")
        .rows()
        .await
        .expect("rows");
    assert_eq!(rows[0], json!({"id": 1, "books": [{"id": 2}]}));
    assert_eq!(rows[1], json!({"id": 2, "books": []}));
    let rows: Vec<Value> = rest
        .from("authors")
        .select("id,books(id)")
        .order(col("id").of("books").desc())
        .limit_of(["books"], 1)
        .order("id")
        .rows()
        .await
        .expect("rows");
    assert_eq!(rows[0], json!({"id": 1, "books": [{"id": 2}]}));
    let rows: Vec<Value> = rest
        .from("authors")
        .select("id,books(id)")
        .order(col("id").of("books"))
        .offset_of(["books"], 1)
        .filter(col("sold").of("books").gt(5).or(col("sold").of("books").is_null()))
        .eq("id", 1)
        .rows()
        .await
        .expect("rows");
    assert_eq!(rows, [json!({"id": 1, "books": [{"id": 2}]})]);
    let rows: Vec<Id> = rest
        .from("books")
        .select("id,authors(name)")
        .order(col("name").of("authors").desc().of_outer_rows())
        .order("id")
        .rows()
        .await
        .expect("rows");
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [4, 3, 1, 2]);
    let limited = rest.from("books").limit(1).limit(2).offset(3).offset(1);
    assert_eq!(ids(limited).await, [2, 3], "the last limit and the last offset hold");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_the_form_that_was_asked_for() {
    let (_stack, rest) = stack().await;
    let csv = rest.from("authors").select("id,name,city").order("id").csv().await.expect("CSV");
    assert_eq!(csv, "id,name,city\n1,Ada,London\n2,Bob,\n3,Eve,Ankara");
    let written = rest
        .from("authors")
        .insert(&json!({"id": 9, "name": "X"}))
        .select("id,name")
        .csv()
        .await
        .expect("CSV");
    assert_eq!(written, "id,name\n9,X");
    let deleted: Option<Id> =
        rest.from("authors").delete().eq("id", 9).select("id").maybe_single().await.expect("one row");
    assert_eq!(deleted, Some(Id { id: 9 }));

    let one: Value = rest.from("authors").strip_nulls().eq("id", 2).single().await.expect("one row");
    assert_eq!(one, json!({"id": 2, "name": "Bob"}));
    let rows: Vec<Value> = rest.from("authors").strip_nulls().eq("id", 2).rows().await.expect("rows");
    assert_eq!(rows, [json!({"id": 2, "name": "Bob"})]);

    let head = rest.from("books").gt("sold", 10).count(Count::Exact).head().execute().await.expect("a head");
    assert_eq!((head.count(), head.body().len()), (Some(2), 0));

    assert_eq!(rest.from("books").eq("id", 77).maybe_single::<Id>().await.expect("no row"), None);
    let several = rest.from("books").maybe_single::<Id>().await.expect_err("several rows");
    assert_eq!(several.code(), "PGRST116");
    let none = rest.from("books").eq("id", 77).single::<Id>().await.expect_err("no row");
    assert_eq!(none.code(), "PGRST116");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_how_a_request_would_be_executed_and_executes_nothing_unless_it_is_to_be_measured() {
    let (_stack, rest) = stack().await;
    let books = || rest.from("books").select("id").gt("sold", 5).order("id");
    let text = books().explain(Explain::default()).await.expect("a plan");
    assert!(text.contains("Seq Scan on books") && text.contains("Filter: (sold > 5)"), "{text}");
    let json = books().explain(Explain::default().json().verbose()).await.expect("a plan");
    let plan: Value = serde_json::from_str(&json).expect("JSON");
    assert!(plan[0]["Plan"]["Output"].is_array(), "{plan}");
    let measured = books().explain(Explain::default().analyze().buffers().settings()).await.expect("a plan");
    assert!(measured.contains("actual time") && measured.contains("Buffers: shared hit"), "{measured}");

    let authors = || rest.from("authors").eq("id", 50).count(Count::Exact).head();
    let insert = || rest.from("authors").insert(&json!({"id": 50, "name": "Y"}));
    let plan = insert().explain(Explain::default()).await.expect("a plan");
    assert!(plan.contains("Insert on authors"), "{plan}");
    assert_eq!(authors().execute().await.expect("a count").count(), Some(0), "it was only explained");
    insert().rollback().explain(Explain::default().analyze()).await.expect("a plan");
    assert_eq!(authors().execute().await.expect("a count").count(), Some(0), "it was taken back");
    let measured = insert().explain(Explain::default().analyze().wal()).await.expect("a plan");
    assert!(measured.contains("WAL: records="), "{measured}");
    assert_eq!(authors().execute().await.expect("a count").count(), Some(1));
    let deleted =
        rest.from("authors").delete().eq("id", 50).explain(Explain::default()).await.expect("a plan");
    assert!(deleted.contains("Delete on authors"), "{deleted}");
    let call =
        rest.rpc("sold_over", &json!({"minimum": 5})).explain(Explain::default()).await.expect("a plan");
    assert!(call.contains("books"), "{call}");

    let error = books().explain(Explain::default().wal()).await.expect_err("only with `analyze`");
    assert_eq!((error.code(), error.retry()), ("22023", Retry::Never));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_gives_no_plans_and_a_database_without_postgis_are_errors_that_say_so() {
    let stack = Stack::builder().without_migrations().sql(SCHEMA).start().await.expect("a stack");
    let rest = Rest::builder(stack.api_url(), stack.service_role_key()).build().expect("a handle");
    let error = rest.from("books").explain(Explain::default()).await.expect_err("plans are off by default");
    assert_eq!((error.code(), error.retry()), ("PGRST107", Retry::Never));
    let error = rest.from("books").geojson::<Value>().await.expect_err("there is no PostGIS");
    assert_eq!((error.code(), error.retry()), ("42883", Retry::Never));
}

/// The one function of `PostGIS` that `PostgREST` calls, for a column `place` that holds a geometry as JSON.
const AS_GEOJSON: &str = "
    create table public.sites (id int primary key, name text, place jsonb);
    insert into public.sites values (1, 'Berlin', '{\"type\": \"Point\", \"coordinates\": [13.4, 52.5]}'), (2, 'nowhere', null);
    create function public.st_asgeojson(record) returns text language plpgsql immutable as $$ begin
        return json_build_object('type', 'Feature', 'geometry', to_json($1) -> 'place',
            'properties', to_jsonb($1) - 'place')::text; end $$;
    grant all on public.sites to service_role;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_with_a_geometry_come_as_a_collection_of_features() {
    let stack = Stack::builder().without_migrations().sql(AS_GEOJSON).start().await.expect("a stack");
    let rest = Rest::builder(stack.api_url(), stack.service_role_key()).build().expect("a handle");
    let features: Value = rest.from("sites").eq("id", 1).geojson().await.expect("features");
    let berlin = json!({"type": "Feature", "geometry": {"type": "Point", "coordinates": [13.4, 52.5]},
        "properties": {"id": 1, "name": "Berlin"}});
    assert_eq!(features, json!({"type": "FeatureCollection", "features": [berlin]}));
    let none: Value = rest.from("sites").eq("id", 9).geojson().await.expect("features");
    assert_eq!(none, json!({"type": "FeatureCollection", "features": []}));
    let written = rest.from("sites").insert(&json!({"id": 3, "name": "new"})).geojson::<Value>().await;
    assert_eq!(written.expect("features")["features"][0]["properties"]["name"], "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_must_concern_one_row_changes_nothing_when_it_concerns_more() {
    let (stack, rest) = stack().await;
    let database = tendril_tests::connect(&stack.admin_url()).await;
    let sold = async || -> i64 {
        database
            .query_one("select coalesce(sum(sold), 0) from public.books", &[])
            .await
            .expect("a sum")
            .get(0)
    };
    let change = json!({"sold": 0});
    let error = rest
        .from("books")
        .update(&change)
        .eq("author_id", 1)
        .maybe_single::<Id>()
        .await
        .expect_err("two rows");
    assert_eq!(error.code(), "PGRST116");
    assert_eq!(sold().await, 60);
    assert_eq!(
        rest.from("books").update(&change).eq("id", 77).maybe_single::<Id>().await.expect("no row"),
        None
    );
    let dry: Vec<Id> =
        rest.from("books").update(&change).eq("author_id", 1).rollback().rows().await.expect("a dry run");
    assert_eq!(dry.len(), 2);
    assert_eq!(sold().await, 60, "everything was taken back");
    let one: Option<Id> =
        rest.from("books").update(&change).eq("id", 1).maybe_single().await.expect("one row");
    assert_eq!((one, sold().await), (Some(Id { id: 1 }), 50));
    let error =
        rest.from("books").delete().gt("id", 0).max_affected(2).execute().await.expect_err("too many");
    assert_eq!(error.code(), "PGRST124");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_and_other_schemas_are_reached() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Invoice {
        id: i32,
        cents: u64,
    }
    let (_stack, rest) = stack().await;
    let billing = rest.schema("billing");
    let invoices: Vec<Invoice> = billing.from("invoices").order("id").rows().await.expect("rows");
    assert_eq!(invoices[0], Invoice { id: 1, cents: 9_007_199_254_740_993 }, "every digit");
    let added: Invoice = billing
        .from("invoices")
        .insert(&json!({"id": 3, "cents": u64::try_from(i64::MAX).expect("it fits")}))
        .single()
        .await
        .expect("a row");
    assert_eq!(added.cents, 9_223_372_036_854_775_807);
    let gone: Vec<Invoice> = billing
        .from("invoices")
        .delete()
        .eq("cents", 9_223_372_036_854_775_807_u64)
        .rows()
        .await
        .expect("rows");
    assert_eq!(gone, [added]);
    assert_eq!(billing.rpc("total", &json!({})).value::<i64>().await.expect("a sum"), 5);
    assert_eq!(billing.rpc("total", &json!({})).get().value::<i64>().await.expect("a sum"), 5);
    let hidden = rest.schema("secret").from("invoices").rows::<Invoice>().await.expect_err("not exposed");
    assert_eq!(hidden.code(), "PGRST106");

    assert_eq!(rest.rpc("add", &json!({"a": 2, "b": 3})).value::<i32>().await.expect("a sum"), 5);
    assert_eq!(rest.rpc("add", &json!({"a": 2})).get().value::<i32>().await.expect("a sum"), 3);
    let words = json!({"words": ["a", "b,c", "\"d\""], "sep": " & "});
    for request in [rest.rpc("join_words", &words), rest.rpc("join_words", &words).get()] {
        assert_eq!(request.value::<String>().await.expect("a text"), "a & b,c & \"d\"");
    }
    let over = |minimum: i32| rest.rpc("sold_over", &json!({"minimum": minimum}));
    assert_eq!(ids(over(5).eq("author_id", 1)).await, [1, 2]);
    assert_eq!(ids(over(5).get().neq("author_id", 1)).await, [4]);
    assert_eq!(over(25).select("id").maybe_single::<Id>().await.expect("one row"), Some(Id { id: 4 }));
    assert_eq!(over(99).select("id").maybe_single::<Id>().await.expect("no row"), None);
    let head = over(5).head().count(Count::Exact).execute().await.expect("a head");
    assert_eq!(head.count(), Some(3));
}
