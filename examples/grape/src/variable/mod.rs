//! Values of a template's variables: read from the command line and from files, typed by the template's schema.
//!
//! ```text
//! number    a number that JSON can hold without changing it
//! schema    the type of each variable; text becomes a value of that type
//! values    what was given, checked: the column's `variables`
//! ```

pub mod number;
pub mod schema;
pub mod values;
