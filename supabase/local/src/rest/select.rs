//! The `select` parameter: columns with aliases and casts, and related rows in brackets.

use super::error::RestError;
use super::grammar::{Cursor, Field, JsonKey, Misread, Read};

/// One item of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// `*`.
    All,
    /// A column or a value inside one.
    Column {
        /// What is read.
        field: Field,
        /// The type it is cast to.
        cast: Option<String>,
        /// The name it gets.
        alias: Option<String>,
    },
    /// An aggregate function; the server forbids them.
    Aggregate,
    /// Rows of a related table.
    Embed(Embed),
}

/// Related rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Embed {
    /// The table, or the foreign key that leads to it.
    pub(super) target: String,
    /// The name the rows get.
    pub(super) alias: Option<String>,
    /// Which of several relationships is meant.
    pub(super) hint: Option<String>,
    /// Rows without related ones are left out.
    pub(super) inner: bool,
    /// Its columns become columns of the row itself.
    pub(super) spread: bool,
    /// What is selected of it.
    pub(super) items: Vec<Item>,
}

impl Embed {
    /// The name under which it appears and by which filters mean it.
    pub(super) fn label(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.target)
    }
}

/// Reads the parameter. What cannot begin an item selects everything, as PostgREST has it.
pub(super) fn parse(text: &str) -> Result<Vec<Item>, RestError> {
    items(&mut Cursor::new(text)).map_err(|error: Misread| error.of(&format!("select parameter ({text})")))
}

/// The name a JSON path gets: that of its last key.
pub(super) fn path_label(field: &Field) -> Option<&str> {
    if field.path.is_empty() {
        return None;
    }
    let key = field.path.iter().rev().find_map(|step| match &step.key {
        JsonKey::Name(name) => Some(name.as_str()),
        JsonKey::Index(_) => None,
    });
    Some(key.unwrap_or(&field.name))
}

fn items(cursor: &mut Cursor<'_>) -> Read<Vec<Item>> {
    cursor.blanks();
    let begins = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '"' | '*' | '.');
    if !cursor.peek().is_some_and(begins) {
        return Ok(Vec::new());
    }
    let mut items = Vec::new();
    loop {
        cursor.blanks();
        items.push(item(cursor)?);
        cursor.blanks();
        if !cursor.eat(",") {
            return Ok(items);
        }
    }
}

fn item(cursor: &mut Cursor<'_>) -> Read<Item> {
    if cursor.eat("*") {
        return Ok(Item::All);
    }
    if cursor.rest().starts_with("count()") {
        cursor.eat("count()");
        return Ok(Item::Aggregate);
    }
    let spread = cursor.eat("...");
    let alias = if spread { None } else { alias(cursor) };
    let field = cursor.field()?;
    if matches!(cursor.peek(), Some('!' | '(')) && field.path.is_empty() {
        return embed(cursor, field.name, alias, spread).map(Item::Embed);
    }
    if cursor.eat(".") {
        for name in ["count", "sum", "avg", "max", "min"] {
            if cursor.eat(name) {
                cursor.expect("()")?;
                return Ok(Item::Aggregate);
            }
        }
    }
    let cast = cursor.eat("::").then(|| cast(cursor)).transpose()?;
    match cursor.peek() {
        None | Some(',' | ')') => Ok(Item::Column { field, cast, alias }),
        Some(_) => Err(cursor.misread("\"->>\", \"->\", \"::\", \".\", \",\" or end of input")),
    }
}

/// A type's name; only word characters, because it cannot be quoted.
fn cast(cursor: &mut Cursor<'_>) -> Read<String> {
    let name = cursor.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ' '));
    if name.trim().is_empty() { Err(cursor.misread("letter or digit")) } else { Ok(name.trim().to_owned()) }
}

fn alias(cursor: &mut Cursor<'_>) -> Option<String> {
    let mut ahead = cursor.clone();
    let alias = ahead.name().ok()?;
    if ahead.rest().starts_with("::") || !ahead.eat(":") {
        return None;
    }
    *cursor = ahead;
    Some(alias)
}

fn embed(cursor: &mut Cursor<'_>, target: String, alias: Option<String>, spread: bool) -> Read<Embed> {
    let (mut hint, mut inner) = (None, false);
    while cursor.eat("!") {
        match cursor.name()?.as_str() {
            "inner" => inner = true,
            "left" => {}
            name => hint = Some(name.to_owned()),
        }
    }
    cursor.expect("(")?;
    let items = items(cursor)?;
    cursor.expect(")")?;
    Ok(Embed { target, alias, hint, inner, spread, items })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_aliases_paths_and_casts() {
        let items = parse("id,x:meta->a->>b::int, big::text").unwrap();
        assert_eq!(items.len(), 3);
        let Item::Column { field, cast, alias } = &items[1] else { panic!() };
        assert_eq!((field.path.len(), cast.as_deref(), alias.as_deref()), (2, Some("int"), Some("x")));
        assert_eq!(path_label(field), Some("b"));
    }

    #[test]
    fn related_tables_nest_and_take_hints() {
        let items = parse("*,c:clusters!fk!inner(id,users(*)),...owner(name)").unwrap();
        let Item::Embed(embed) = &items[1] else { panic!() };
        assert_eq!((embed.label(), embed.hint.as_deref(), embed.inner), ("c", Some("fk"), true));
        assert!(matches!(&embed.items[1], Item::Embed(users) if users.target == "users"));
        assert!(matches!(&items[2], Item::Embed(owner) if owner.spread));
    }

    #[test]
    fn garbage_selects_everything_but_a_broken_list_is_an_error() {
        assert_eq!(parse("(").unwrap(), []);
        assert_eq!(parse("").unwrap(), []);
        assert!(parse("id,").is_err());
    }
}
