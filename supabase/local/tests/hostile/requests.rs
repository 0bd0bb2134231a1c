//! Requests: some are pieces thrown together, some are nearly right.

use std::fmt::Write as _;

use crate::random::Random;

const QUERY: [&str; 48] = [
    "select=",
    "id",
    "body",
    "meta->>a",
    "*",
    ",",
    "(",
    ")",
    "links(",
    "...",
    "!inner",
    "::text",
    "&",
    "=",
    "eq.",
    "not.",
    "in.(",
    "or=",
    "and=",
    "order=",
    ".desc",
    ".nullslast",
    "limit=",
    "offset=",
    "-1",
    "99999999999999999999",
    "%00",
    "%",
    "%ff",
    "\"",
    "\\",
    "'",
    ";--",
    "<",
    ">",
    "{",
    "}",
    "|",
    "é",
    "on_conflict=",
    "columns=",
    "like.",
    "fts.",
    "is.null",
    "owner=",
    "count()",
    ".",
    "notes",
];

const BODIES: [&str; 12] = [
    "",
    "{}",
    "[]",
    "[{}]",
    r#"{"body":"x"}"#,
    r#"[{"body":"x"},{"owner":null}]"#,
    r#"{"n":2}"#,
    r#"{"n":"x"}"#,
    "{",
    "null",
    "\u{0}",
    r#"{"body":"\u0000"}"#,
];

/// Names of columns, and what is none.
const COLUMNS: [&str; 12] = [
    "id",
    "owner",
    "body",
    "meta",
    "meta->>a",
    "meta->'b'->0",
    "nothing",
    "",
    "\"id\"",
    "i\u{0}d",
    "id::text",
    "xmin",
];

const OPERATORS: [&str; 24] = [
    "eq",
    "neq",
    "gt",
    "gte",
    "lt",
    "lte",
    "like",
    "ilike",
    "match",
    "imatch",
    "in",
    "is",
    "isdistinct",
    "fts",
    "plfts(english)",
    "cs",
    "cd",
    "ov",
    "sl",
    "adj",
    "not.eq",
    "not.not.eq",
    "eq(any)",
    "like(all)",
];

/// Values that mean something to somebody on the way.
const VALUES: [&str; 26] = [
    "1",
    "null",
    "true",
    "%",
    "*hidden*",
    "%25hidden%25",
    "'",
    "''; drop table notes; --",
    "\\",
    "%5C%5C%27",
    "\"",
    "%00",
    "a%00b",
    "%ff",
    "{1,2}",
    "(1,2)",
    "(\"a,b\",c)",
    "[1,3)",
    "{\"a\":1}",
    "é%F0%9F%A6%80",
    "99999999999999999999999",
    "-0",
    "NaN",
    "infinity",
    "$1",
    "(select body from notes)",
];

const SELECTS: [&str; 26] = [
    "*",
    "id,body",
    "id,links(url)",
    "id,links(notes(links(notes(id,body))))",
    "...links(url)",
    "id,links!inner(url,notes!left(*))",
    "id,links!none(url)",
    "a:id,b:body::text",
    "count()",
    "body.max(),owner",
    "id.sum()::text",
    "meta->a->>b",
    "id,id,id",
    "links(count())",
    "links()",
    "()",
    "*,",
    "(*)",
    "links(",
    "id::regclass",
    "body::json",
    "\"id\",\"no such\"",
    "notes(*)",
    "owner,links(*,notes(*,links(*)))",
    "%00",
    "id,...links!note_id(url,...notes(body))",
];

const ORDERS: [&str; 10] = [
    "id",
    "body.desc.nullslast",
    "links(url).asc",
    "meta->a.desc",
    "id.up",
    "id,",
    "%00",
    "links(url)",
    "nothing",
    "id.asc.nullsfirst.x",
];

const PREFER: [&str; 20] = [
    "return=representation",
    "return=minimal",
    "return=headers-only",
    "count=exact",
    "count=planned",
    "count=estimated",
    "tx=rollback",
    "max-affected=0, handling=strict",
    "handling=strict, nonsense=1",
    "resolution=merge-duplicates",
    "resolution=ignore-duplicates",
    "missing=default",
    "timezone=Nowhere/Land",
    "timezone=America/New_York",
    "max-affected=-1, handling=strict",
    "x",
    "",
    "params=single-object",
    "a=b, return=representation",
    "tx=commit, tx=rollback",
];

const RANGES: [&str; 9] =
    ["0-0", "0-", "5-1", "-1-5", "99999999999999999999-", "x", "0-9,20-29", "items=0-1", "1000000-1000001"];

const CALLS: [(&str, &str); 12] = [
    ("twice?n=2", ""),
    ("twice", r#"{"n":2}"#),
    ("twice", r#"[{"n":2}]"#),
    ("twice?n=x", ""),
    ("fails", "{}"),
    ("find", r#"{"pattern":"%"}"#),
    ("find?pattern=%25&select=id,links(url)&limit=3", ""),
    ("find?pattern=%25&body=like.*hidden*", ""),
    ("find", r#"{"pattern":"'\u0000"}"#),
    ("nothing?a=b", ""),
    ("busy", "{}"),
    ("find", r#"{"pattern":{"a":[1]}}"#),
];

/// One request, whole or not.
pub(crate) fn request(random: &mut Random, key: &str, token: &str) -> Vec<u8> {
    let (method, target, body) = match random.below(3) {
        0 => thrown(random),
        _ => nearly_right(random),
    };
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\napikey: {key}\r\n");
    // Writing to a String cannot fail.
    match random.below(4) {
        0 => {}
        1 if random.once_in(3) => {
            write!(head, "Authorization: Bearer {}x\r\n", &token[..token.len() - random.below(3)]).unwrap();
        }
        _ => write!(head, "Authorization: Bearer {token}\r\n").unwrap(),
    }
    for _ in 0..random.below(3) {
        write!(head, "Prefer: {}\r\n", random.mostly(&PREFER, 6)).unwrap();
    }
    if random.once_in(4) {
        write!(head, "Range: {}\r\n", random.mostly(&RANGES, 2)).unwrap();
    }
    if random.once_in(10) {
        write!(
            head,
            "{}: {}\r\n",
            random.one_of(&["Accept-Profile", "Content-Profile"]),
            random.one_of(&["public", "auth", "", "x\"y"])
        )
        .unwrap();
    }
    let accept = random.mostly(
        &[
            "*/*",
            "application/vnd.pgrst.object+json",
            "application/vnd.pgrst.array+json;nulls=stripped",
            "application/vnd.pgrst.plan+json; for=\"application/json\"",
            "application/geo+json",
            "text/csv",
            "x/y",
            "",
        ],
        1,
    );
    let media = random.mostly(
        &["application/json", "text/csv", "application/x-www-form-urlencoded", "text/plain", "x/y"],
        1,
    );
    write!(head, "Accept: {accept}\r\nContent-Type: {media}\r\n").unwrap();
    // Sometimes the body is shorter than promised.
    let length = if random.once_in(20) { body.len().saturating_sub(1) } else { body.len() };
    write!(head, "Content-Length: {length}\r\n\r\n{body}").unwrap();
    head.into_bytes()
}

/// Pieces in any order.
fn thrown(random: &mut Random) -> (String, String, String) {
    let method = random.one_of(&["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", "FOO", ""]);
    let path = match random.below(8) {
        0 => format!("/auth/v1/{}", random.one_of(&["token", "user", "signup", "logout", "admin/users", ""])),
        1 => {
            format!("/realtime/v1/api/broadcast{}", random.one_of(&["", "/a/events/b", "/%00/events/", "?"]))
        }
        2 => format!("/{}", random.text(&QUERY)),
        3 => format!("/rest/v1/rpc/{}", random.one_of(&["twice", "fails", "none", "", "twice/"])),
        _ => format!("/rest/v1/{}", random.one_of(&["notes", "links", "none", "", "notes/", "%00", "é"])),
    };
    let query: String = (0..random.below(8)).map(|_| random.one_of(&QUERY)).collect();
    (method.to_owned(), format!("{path}?{query}"), random.one_of(&BODIES).to_owned())
}

/// What a client could have sent, with one thing or another that no client sends.
fn nearly_right(random: &mut Random) -> (String, String, String) {
    if random.once_in(5) {
        let (call, body) = CALLS[random.below(CALLS.len())];
        let method = if body.is_empty() { "GET" } else { "POST" };
        return (method.to_owned(), format!("/rest/v1/rpc/{call}"), body.to_owned());
    }
    let table = random.one_of(&["notes", "notes", "notes", "links", "hidden_view"]);
    let mut query: Vec<String> = (0..random.below(4)).map(|_| filter(random, 0)).collect();
    if random.below(2) == 0 {
        query.push(format!("select={}", random.mostly(&SELECTS, 4)));
    }
    if random.once_in(3) {
        query.push(format!("order={}", random.mostly(&ORDERS, 1)));
    }
    if random.once_in(3) {
        query.push(format!("limit={}&offset={}", random.mostly(&VALUES, 1), random.mostly(&VALUES, 1)));
    }
    if random.once_in(6) {
        query.push(format!("links.{}", filter(random, 0)));
    }
    let (method, body) = match random.below(8) {
        0 => {
            query.push(format!("on_conflict={}", random.mostly(&COLUMNS, 4)));
            ("POST", row(random))
        }
        1 => ("POST", format!("[{},{}]", row(random), row(random))),
        2 => ("PATCH", row(random)),
        3 => ("PUT", row(random)),
        4 => ("DELETE", String::new()),
        5 => ("HEAD", String::new()),
        _ => ("GET", String::new()),
    };
    (method.to_owned(), format!("/rest/v1/{table}?{}", query.join("&").replace(' ', "+")), body)
}

/// A filter, alone or in a tree of others.
fn filter(random: &mut Random, depth: usize) -> String {
    let leaf = |random: &mut Random, sign: &str| {
        let (column, operator, value) =
            (random.mostly(&COLUMNS, 4), random.mostly(&OPERATORS, 8), random.mostly(&VALUES, 1));
        format!("{column}{sign}{operator}.{value}")
    };
    if depth == 0 && random.once_in(200) {
        // Deeper than any client goes.
        let deep = 300;
        return format!("or=({}id.eq.1{})", "and(".repeat(deep), ")".repeat(deep));
    }
    match (random.below(3), depth) {
        (0, 0) => {
            let parts: Vec<String> = (0..=random.below(3)).map(|_| filter(random, 1)).collect();
            format!("{}=({})", random.one_of(&["or", "and", "not.or"]), parts.join(","))
        }
        (0, 1..3) => {
            let parts: Vec<String> = (0..=random.below(3)).map(|_| filter(random, depth + 1)).collect();
            format!("{}({})", random.one_of(&["or", "and", "not.and"]), parts.join(","))
        }
        (_, 0) => leaf(random, "="),
        _ => leaf(random, "."),
    }
}

/// A row to write.
fn row(random: &mut Random) -> String {
    random
        .mostly(
            &[
                r#"{"body":"mine"}"#,
                r#"{"body":"mine","owner":"99999999-9999-4999-8999-999999999999"}"#,
                r#"{"id":1,"body":"taken"}"#,
                r#"{"meta":{"a":{"b":[1,null,"\u0000"]}}}"#,
                r#"{"meta":1e400}"#,
                r#"{"body":null,"nothing":1}"#,
                r#"{"note_id":1,"url":"x"}"#,
                r#"{"owner":"not-a-uuid"}"#,
                "{}",
                "[]",
                "body,meta\nx,{}\n",
                "body=x&meta=1",
            ],
            1,
        )
        .to_owned()
}
