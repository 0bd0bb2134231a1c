//! The portal's page of a deployment.

use std::io::IsTerminal as _;

use serde_json::json;

use crate::{
    cli,
    context::Context,
    control_plane::{deployment, project::variable},
    failure::{Failure, FailureKind, Result},
};

/// Opens the page in a browser where there is one, and prints its address.
pub(super) async fn open(context: &Context, options: &cli::Open) -> Result<()> {
    let project = context.project()?;
    let row = deployment::find(&project, &options.id).await?;
    let portal =
        variable("GRAPE_PORTAL_URL").or_else(|| project.profile.portal.clone()).ok_or_else(|| {
            Failure::new(FailureKind::Usage, "Where the portal is, is not known.").next(
                "Set it once: `grape login --portal https://portal.example.com`, or set GRAPE_PORTAL_URL.",
            )
        })?;
    let address = format!("{}/deployment/?id={}", portal.trim_end_matches('/'), row.id);
    if context.out.is_json() {
        context.out.json(&json!({ "url": address }))?;
    } else {
        context.out.line(&address)?;
    }
    if !options.print
        && !context.out.is_json()
        && std::io::stdout().is_terminal()
        && open::that_detached(&address).is_err()
    {
        context.out.note("No browser can be opened here: open the address yourself.");
    }
    Ok(())
}
