//! What the database knows of a stack.

use std::time::Duration;

use serde::Deserialize;
use tendril_realtime::Rest;

use crate::job::{Product, Version};

/// The longest that the request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Which program wrote the state of a stack last; none, if nobody knows. Nothing fails because it cannot be asked, or because the
/// database is of a contract that does not keep it.
pub(crate) async fn stack_version(rest: &Rest, state_key: &str) -> Option<(Product, Version)> {
    #[derive(Deserialize)]
    struct Stack {
        terraform_version: Option<String>,
    }
    let asked =
        rest.from("stacks").select("terraform_version").eq("state_key", state_key).limit(1).timeout(TIMEOUT);
    match asked.rows::<Stack>().await {
        Ok(stacks) => read(stacks.first()?.terraform_version.as_deref()?),
        Err(error) => {
            tracing::debug!(state = state_key, error = %format_args!("{error:#}"), "it is not known which version wrote the state");
            None
        }
    }
}

/// Reads `terraform 1.11.4`.
fn read(title: &str) -> Option<(Product, Version)> {
    let (name, version) = title.split_once(' ')?;
    let product = Product::ALL.into_iter().find(|product| product.name() == name)?;
    Some((product, Version::parse(version)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_a_product_and_a_version() {
        let version = Version::parse("1.9.1").unwrap();
        assert_eq!(read("tofu 1.9.1"), Some((Product::OpenTofu, version)));
        for text in ["", "tofu", "1.9.1", "packer 1.9.1", "terraform latest"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
