//! The files that the agent generates in a module, and what a template may not have because of them.

/// Name of the generated variables file. Terraform gets it by `-var-file`, which wins over every file of the template.
pub(super) const VARIABLES_FILE: &str = "zz_tendril.auto.tfvars.json";
/// Name of the generated backend file; an override file replaces a backend block of the template.
pub(crate) const BACKEND_FILE: &str = "zz_tendril_override.tf.json";

/// Whether the agent writes a file of this name into the module, or one beside it while it writes.
pub(super) fn is_generated(name: &str) -> bool {
    [VARIABLES_FILE, BACKEND_FILE].iter().any(|file| name.strip_suffix(".new").unwrap_or(name) == *file)
}

/// Whether Terraform would read this file after the agent's own, and let it win.
pub(super) fn overrides_backend(name: &str) -> bool {
    let stem = [".tf", ".tf.json", ".tofu", ".tofu.json"].iter().find_map(|end| name.strip_suffix(end));
    stem.is_some_and(|stem| stem == "override" || stem.ends_with("_override")) && name > BACKEND_FILE
}
