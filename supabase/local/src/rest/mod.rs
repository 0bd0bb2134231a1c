//! `/rest/v1`: what PostgREST answers, answered from the same database.
