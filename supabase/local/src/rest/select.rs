//! The `select` parameter: columns with aliases and casts, and related rows in brackets.

use super::error::RestError;
use super::grammar::{Field, JsonKey, field, field_name, identifier};
use super::parsec::{self, Failed, Read, Reader};

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
    parsec::parse(&format!("select parameter ({text})"), text, items)
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

fn items(r: &mut Reader<'_>) -> Read<Vec<Item>> {
    let list = |r: &mut Reader<'_>| r.sep_by1(item, |r| r.lexeme(|r| r.char(',')));
    r.optional(list).map(Option::unwrap_or_default)
}

fn item(r: &mut Reader<'_>) -> Read<Item> {
    let with_items = |r: &mut Reader<'_>, embed: Embed| {
        r.char('(')?;
        let items = items(r)?;
        r.char(')')?;
        Ok(Item::Embed(Embed { items, ..embed }))
    };
    r.either(
        |r| {
            let embed = r.attempt(|r| r.lexeme(spread))?;
            with_items(r, embed)
        },
        |r| {
            r.either(
                |r| {
                    let embed = r.attempt(|r| r.lexeme(relation))?;
                    with_items(r, embed)
                },
                |r| r.lexeme(column),
            )
        },
    )
}

/// `...table!hint`, with a bracket ahead.
fn spread(r: &mut Reader<'_>) -> Read<Embed> {
    r.string("...")?;
    let target = field_name(r)?;
    let (hint, inner) = embed_parameters(r)?;
    r.ahead("(")?;
    Ok(Embed { target, alias: None, hint, inner, spread: true, items: Vec::new() })
}

/// `alias:table!hint`, with a bracket ahead.
fn relation(r: &mut Reader<'_>) -> Read<Embed> {
    let alias = alias(r)?;
    let target = field_name(r)?;
    if target == "count" {
        return Err(Failed);
    }
    let (hint, inner) = embed_parameters(r)?;
    r.ahead("(")?;
    Ok(Embed { target, alias, hint, inner, spread: false, items: Vec::new() })
}

fn alias(r: &mut Reader<'_>) -> Read<Option<String>> {
    r.optional(|r| {
        r.attempt(|r| {
            let alias = field_name(r)?;
            r.char(':')?;
            r.not_followed_by(|c| c == ':')?;
            Ok(alias)
        })
    })
}

/// Up to two of `!hint`, `!inner` and `!left`: the first hint, and whether the first kind of join is an inner one.
fn embed_parameters(r: &mut Reader<'_>) -> Read<(Option<String>, bool)> {
    /// One parameter: a hint, or whether the join is an inner one.
    type Parameter = Result<String, bool>;
    let one = |r: &mut Reader<'_>| -> Read<Parameter> {
        r.char('!')?;
        r.either(
            |r| r.attempt(|r| r.string("left").map(|()| Err(false))),
            |r| {
                r.either(
                    |r| r.attempt(|r| r.string("inner").map(|()| Err(true))),
                    |r| r.attempt(field_name).map(Ok),
                )
            },
        )
    };
    let parameters = [r.optional(one)?, r.optional(one)?];
    let hint = parameters.iter().flatten().find_map(|parameter| parameter.clone().ok());
    let inner = parameters.iter().flatten().find_map(|parameter| parameter.clone().err()).unwrap_or(false);
    Ok((hint, inner))
}

/// A column, `*`, or an aggregate.
fn column(r: &mut Reader<'_>) -> Read<Item> {
    let star = |r: &mut Reader<'_>| {
        r.string("*")?;
        end(r)?;
        Ok(Item::All)
    };
    let count = |r: &mut Reader<'_>| {
        alias(r)?;
        r.string("count()")?;
        r.optional(cast)?;
        end(r)?;
        Ok(Item::Aggregate)
    };
    let plain = |r: &mut Reader<'_>| {
        let alias = alias(r)?;
        let field = field(r)?;
        let cast_to = r.optional(cast)?;
        let aggregate = r.optional(|r| {
            r.attempt(|r| {
                r.char('.')?;
                aggregate(r)?;
                r.string("()")
            })
        })?;
        r.optional(cast)?;
        end(r)?;
        Ok(if aggregate.is_some() { Item::Aggregate } else { Item::Column { field, cast: cast_to, alias } })
    };
    r.either(|r| r.attempt(star), |r| r.either(|r| r.attempt(count), plain))
}

/// `::type`.
fn cast(r: &mut Reader<'_>) -> Read<String> {
    r.string("::")?;
    identifier(r)
}

fn aggregate(r: &mut Reader<'_>) -> Read<()> {
    r.either(
        |r| r.string("sum"),
        |r| {
            r.either(
                |r| r.string("avg"),
                |r| {
                    r.either(
                        |r| r.string("count"),
                        |r| r.either(|r| r.attempt(|r| r.string("max")), |r| r.attempt(|r| r.string("min"))),
                    )
                },
            )
        },
    )
}

/// What follows an item.
fn end(r: &mut Reader<'_>) -> Read<()> {
    r.either(|r| r.ahead(")"), |r| r.either(|r| r.ahead(","), |r| r.attempt(Reader::eof)))
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
