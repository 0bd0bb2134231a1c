//! The conditions of [`Column`](super::Column) as methods of what takes filters one after the other.

/// Writes a method for each condition; the type has a method `filter(self, impl Into<Filter>) -> Self`.
macro_rules! filter_methods {
    () => {
        $crate::filter::filter_methods! { @
            eq(value: impl std::fmt::Display) "Only rows whose column equals the value.";
            neq(value: impl std::fmt::Display) "Only rows whose column differs from the value and is not NULL.";
            gt(value: impl std::fmt::Display) "Only rows whose column is greater than the value.";
            gte(value: impl std::fmt::Display) "Only rows whose column is greater than the value, or equal.";
            lt(value: impl std::fmt::Display) "Only rows whose column is less than the value.";
            lte(value: impl std::fmt::Display) "Only rows whose column is less than the value, or equal.";
            like(pattern: impl std::fmt::Display) "Only rows whose column matches an SQL pattern with `%` and `_`.";
            ilike(pattern: impl std::fmt::Display) "As `like`, without regard to case.";
            regex(pattern: impl std::fmt::Display) "Only rows whose column matches a POSIX regular expression.";
            iregex(pattern: impl std::fmt::Display) "As `regex`, without regard to case.";
            is_distinct(value: impl std::fmt::Display) "Only rows whose column differs from the value, NULL included.";
            is(word: impl std::fmt::Display) "Only rows whose column is `null`, `true`, `false` or `unknown`.";
            is_null() "Only rows whose column has no value.";
            not_null() "Only rows whose column has a value.";
            contains(value: impl Into<$crate::filter::Operand>) "Only rows whose array, JSON object or range contains this one.";
            contained_by(value: impl Into<$crate::filter::Operand>) "Only rows whose array, JSON object or range is contained in this one.";
            overlaps(value: impl Into<$crate::filter::Operand>) "Only rows whose array or range has something in common with this one.";
            range_lt(range: impl std::fmt::Display) "Only rows whose range is wholly before this one.";
            range_gt(range: impl std::fmt::Display) "Only rows whose range is wholly after this one.";
            range_gte(range: impl std::fmt::Display) "Only rows whose range has no point before this one.";
            range_lte(range: impl std::fmt::Display) "Only rows whose range has no point after this one.";
            range_adjacent(range: impl std::fmt::Display) "Only rows whose range touches this one without a common point.";
            text_search(query: impl Into<$crate::filter::TextSearch>) "Only rows whose column matches a full-text query.";
        }

        /// Only rows whose column is one of the values. No values choose no rows.
        pub fn in_list<V: std::fmt::Display>(
            self,
            column: impl Into<$crate::filter::Column>,
            values: impl IntoIterator<Item = V>,
        ) -> Self {
            self.filter(column.into().in_list(values))
        }

        /// Only rows whose column is none of the values, and not NULL.
        #[doc(alias = "notIn")]
        pub fn not_in<V: std::fmt::Display>(
            self,
            column: impl Into<$crate::filter::Column>,
            values: impl IntoIterator<Item = V>,
        ) -> Self {
            self.filter(column.into().not_in(values))
        }

        /// Only rows for which at least one of the filters holds.
        pub fn or<F: Into<$crate::filter::Filter>>(self, filters: impl IntoIterator<Item = F>) -> Self {
            self.filter($crate::filter::Filter::any(filters))
        }

        /// Only rows for which the filter does not hold (nor is unknown because of a NULL).
        pub fn not(self, filter: impl Into<$crate::filter::Filter>) -> Self {
            self.filter(!filter.into())
        }

        /// Only rows whose columns equal these values.
        #[doc(alias = "match")]
        pub fn match_<C: Into<$crate::filter::Column>, V: std::fmt::Display>(
            self,
            values: impl IntoIterator<Item = (C, V)>,
        ) -> Self {
            values.into_iter().fold(self, |whole, (column, value)| whole.eq(column, value))
        }
    };
    (@ $($name:ident($($argument:ident: $kind:ty)?) $doc:literal;)*) => {
        $(
            #[doc = $doc]
            #[doc = concat!("See [`Column::", stringify!($name), "`](crate", "::Column::", stringify!($name), ").")]
            pub fn $name(self, column: impl Into<$crate::filter::Column> $(, $argument: $kind)?) -> Self {
                self.filter(column.into().$name($($argument)?))
            }
        )*
    };
}

pub(crate) use filter_methods;
