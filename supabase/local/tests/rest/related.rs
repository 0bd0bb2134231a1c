//! Related rows inside of rows.

use serde_json::json;
use supabase_local::rest::Settings;

use crate::service::{Place, Service};

const TABLES: &str = "
create table authors (id int primary key, name text, born date);
create table books (id int primary key, title text, author_id int references authors, editor_id int references authors);
create table tags (id int primary key, tag text);
create table book_tags (book_id int references books, tag_id int references tags, primary key (book_id, tag_id));
create table covers (book_id int primary key references books, colour text);
grant all on authors, books, tags, book_tags, covers to anon;
insert into authors values (1, 'Ann', '1900-01-01'), (2, 'Bob', null), (3, 'Cy', null);
insert into books values (10, 'Alpha', 1, 2), (11, 'Beta', 1, null), (12, 'Gamma', 2, null);
insert into tags values (100, 'old'), (101, 'new');
insert into book_tags values (10, 100), (10, 101), (12, 101);
insert into covers values (10, 'red');
";

#[tokio::test(flavor = "multi_thread")]
async fn related_rows_come_inside_of_rows() {
    let place = Place::prepare("related").await;
    place.sql(TABLES).await;
    let service = Service::start(&place, Settings::default()).await;
    for (path, expected) in [
        // One row at the end: by foreign key, by column, by hint.
        (
            "/books?select=title,author_id(name)&id=eq.10",
            json!([{"title": "Alpha", "author_id": {"name": "Ann"}}]),
        ),
        (
            "/books?select=title,by:authors!books_author_id_fkey(name),editor:authors!editor_id(name)&id=in.(10,11)&order=id",
            json!([
                {"title": "Alpha", "by": {"name": "Ann"}, "editor": {"name": "Bob"}},
                {"title": "Beta", "by": {"name": "Ann"}, "editor": null}
            ]),
        ),
        // One to one.
        (
            "/books?select=id,covers(colour)&order=id&limit=2",
            json!([{"id": 10, "covers": {"colour": "red"}}, {"id": 11, "covers": null}]),
        ),
        // Many rows at the end, with their own order, page and filter.
        (
            "/authors?select=name,books!author_id(title)&order=id&books.order=title.desc",
            json!([
                {"name": "Ann", "books": [{"title": "Beta"}, {"title": "Alpha"}]},
                {"name": "Bob", "books": [{"title": "Gamma"}]},
                {"name": "Cy", "books": []}
            ]),
        ),
        (
            "/authors?select=name,b:books!author_id(title)&b.limit=1&b.order=id&b.title=neq.Alpha&id=eq.1",
            json!([{"name": "Ann", "b": [{"title": "Beta"}]}]),
        ),
        // Many to many.
        (
            "/books?select=id,tags(tag)&order=id&tags.order=tag",
            json!([
                {"id": 10, "tags": [{"tag": "new"}, {"tag": "old"}]},
                {"id": 11, "tags": []},
                {"id": 12, "tags": [{"tag": "new"}]}
            ]),
        ),
        // Only rows that have related ones.
        ("/books?select=id,tags!inner(tag)&tags.tag=eq.old", json!([{"id": 10, "tags": [{"tag": "old"}]}])),
        ("/authors?select=name,books!author_id()&books=is.null", json!([{"name": "Cy"}])),
        (
            "/authors?select=name,books!author_id()&books=not.is.null&order=id",
            json!([{"name": "Ann"}, {"name": "Bob"}]),
        ),
        // Columns of the related row in the row itself; order by one.
        ("/books?select=title,...author_id(name)&id=eq.12", json!([{"title": "Gamma", "name": "Bob"}])),
        (
            "/books?select=id,author_id(name)&order=author_id(name).desc,id&limit=1",
            json!([{"id": 12, "author_id": {"name": "Bob"}}]),
        ),
        // Two levels.
        (
            "/covers?select=colour,books(title,author_id(name,born))",
            json!([{"colour": "red", "books": {"title": "Alpha", "author_id": {"name": "Ann", "born": "1900-01-01"}}}]),
        ),
    ] {
        let answer = service.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert_eq!(answer.json(), expected, "{path}");
    }
    let ambiguous = service.get("/books?select=id,authors(name)").await;
    assert_eq!(
        (ambiguous.status, &ambiguous.json()["code"]),
        (300, &json!("PGRST201")),
        "{}",
        ambiguous.body
    );
    let absent = service.get("/books?select=id&authors.name=eq.x").await;
    assert_eq!((absent.status, &absent.json()["code"]), (400, &json!("PGRST108")), "{}", absent.body);
    let counted = service
        .request("GET", "/books?select=id,tags!inner(tag)&tags.tag=eq.new", "Prefer: count=exact", "")
        .await;
    assert_eq!(counted.header("content-range"), Some("0-1/2"));
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn written_rows_show_their_related_rows() {
    let place = Place::prepare("written").await;
    place.sql(TABLES).await;
    let service = Service::start(&place, Settings::default()).await;
    let body = r#"{"id": 13, "title": "Delta", "author_id": 3}"#;
    let prefer = "Prefer: return=representation";
    let answer = service.request("POST", "/books?select=title,author_id(name)", prefer, body).await;
    assert_eq!(answer.json(), json!([{"title": "Delta", "author_id": {"name": "Cy"}}]), "{}", answer.body);
    let answer =
        service.request("PATCH", "/books?id=eq.12&select=id,tags(tag)", prefer, r#"{"title": "G"}"#).await;
    assert_eq!(answer.json(), json!([{"id": 12, "tags": [{"tag": "new"}]}]), "{}", answer.body);
    place.remove().await;
}
