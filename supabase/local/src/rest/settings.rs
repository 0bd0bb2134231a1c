//! What an operator may set, with Supabase's own defaults.

/// Settings of the REST server. `Default` is what a local Supabase project runs with, without a row limit.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Schemas that requests may address; the first is the default one.
    pub schemas: Vec<String>,
    /// The role of requests without a token; `None` refuses them.
    pub anon_role: Option<String>,
    /// What the `aud` claim must contain, if a token has one; `None` takes any.
    pub audience: Option<String>,
    /// Most rows a read returns, whatever its `limit` is.
    pub max_rows: Option<u64>,
    /// Whether an `UPDATE` or `DELETE` without a filter is refused (21000), as on a hosted project.
    pub safe_update: bool,
    /// Whether `Prefer: tx=rollback` is obeyed. Supabase ignores it.
    pub transaction_override: bool,
    /// Whether a client gets the plan of a request (`pgrst.db_plan_enabled`). Supabase refuses it until a project allows it.
    pub plan_enabled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schemas: vec!["public".into()],
            anon_role: Some("anon".into()),
            audience: None,
            max_rows: None,
            safe_update: true,
            transaction_override: false,
            plan_enabled: false,
        }
    }
}
