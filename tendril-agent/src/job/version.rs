//! Versions of Terraform and OpenTofu, and what a deployment or a template asks for: one version, or constraints as in
//! `required_version`.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};

/// Longest text that is read as a request.
const LONGEST: usize = 200;

/// Which of the two programs it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Product {
    /// `terraform`.
    Terraform,
    /// `tofu`.
    OpenTofu,
}

impl Product {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Terraform, Self::OpenTofu];

    /// The name of its program, as its users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terraform => "terraform",
            Self::OpenTofu => "tofu",
        }
    }
}

/// A whole version such as `1.11.4` or `1.12.0-beta1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version(semver::Version);

impl Version {
    /// Reads a version with all its three numbers.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        semver::Version::parse(text).ok().map(Self)
    }

    /// Whether it comes before a release.
    pub(crate) fn has_prerelease(&self) -> bool {
        !self.0.pre.is_empty()
    }

    /// Without what marks it as a version before a release.
    fn release(&self) -> Self {
        Self(semver::Version::new(self.0.major, self.0.minor, self.0.patch))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp_precedence(&other.0).then_with(|| self.0.build.cmp(&other.0.build))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    /// `~>`: the last number that is written may grow.
    Pessimistic,
}

impl Operator {
    /// The longer ones first.
    const ALL: [(&'static str, Self); 7] = [
        (">=", Self::GreaterOrEqual),
        ("<=", Self::LessOrEqual),
        ("!=", Self::NotEqual),
        ("~>", Self::Pessimistic),
        ("=", Self::Equal),
        (">", Self::Greater),
        ("<", Self::Less),
    ];
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Comparison {
    operator: Operator,
    version: Version,
    /// How many numbers are written.
    numbers: usize,
}

impl Comparison {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (operator, version) = Operator::ALL
            .iter()
            .find_map(|(sign, operator)| Some((*operator, text.strip_prefix(sign)?)))
            .unwrap_or((Operator::Equal, text));
        let version = version.trim_start();
        let version = version.strip_prefix('v').unwrap_or(version);
        let end = version.find(['-', '+']).unwrap_or(version.len());
        let (numbers, rest) = version.split_at(end);
        let count = numbers.split('.').count();
        let padded = match count {
            1 => format!("{numbers}.0.0{rest}"),
            2 => format!("{numbers}.0{rest}"),
            _ => version.to_owned(),
        };
        Some(Self { operator, version: Version::parse(&padded)?, numbers: count })
    }

    /// As Terraform's own library compares: a version before a release fits only where one is asked for.
    fn fits(&self, version: &Version) -> bool {
        let same_release = version.release() == self.version.release();
        let comparable = match (version.has_prerelease(), self.version.has_prerelease()) {
            (true, false) => false,
            (true, true) => same_release,
            (false, _) => true,
        };
        let order = version.0.cmp_precedence(&self.version.0);
        match self.operator {
            Operator::Equal => order.is_eq(),
            Operator::NotEqual => order.is_ne(),
            Operator::Greater => comparable && order.is_gt(),
            Operator::GreaterOrEqual => comparable && order.is_ge(),
            Operator::Less => comparable && order.is_lt(),
            Operator::LessOrEqual => comparable && order.is_le(),
            Operator::Pessimistic => comparable && order.is_ge() && self.begins(version),
        }
    }

    /// Whether all numbers but the last that is written are the same.
    fn begins(&self, version: &Version) -> bool {
        let (own, other) = (&self.version.0, &version.0);
        (self.numbers < 2 || own.major == other.major) && (self.numbers < 3 || own.minor == other.minor)
    }
}

/// Comparisons that a version must all fit: `>= 1.9, < 2.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Constraints {
    text: String,
    all: Vec<Comparison>,
}

impl Constraints {
    /// Reads what `required_version` may hold.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let all = text.split(',').map(Comparison::parse).collect::<Option<Vec<_>>>()?;
        Some(Self { text: text.trim().to_owned(), all })
    }

    pub(crate) fn fits(&self, version: &Version) -> bool {
        self.all.iter().all(|comparison| comparison.fits(version))
    }

    /// Whether a program of this version takes a template with this `required_version`: Terraform compares without what marks it
    /// as a version before a release.
    pub(crate) fn takes(&self, version: &Version) -> bool {
        self.fits(&version.release())
    }
}

impl fmt::Display for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `config_snapshot.terraform_version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VersionRequest {
    /// Which program; none: that of the agent.
    pub(crate) product: Option<Product>,
    pub(crate) constraints: Constraints,
}

impl VersionRequest {
    /// Reads it: a version or constraints, perhaps behind the program's name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let text = text.trim();
        let (product, constraints) = match text.split_once(' ') {
            Some(("terraform", rest)) => (Some(Product::Terraform), rest),
            Some(("tofu" | "opentofu", rest)) => (Some(Product::OpenTofu), rest),
            _ => (None, text),
        };
        Some(Self { product, constraints: Constraints::parse(constraints)? })
    }
}

impl fmt::Display for VersionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(product) = self.product {
            write!(f, "{} ", product.name())?;
        }
        self.constraints.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(constraints: &str, version: &str) -> bool {
        Constraints::parse(constraints).unwrap().fits(&Version::parse(version).unwrap())
    }

    #[test]
    fn constraints_mean_what_they_mean_to_terraform() {
        for (constraints, fitting, others) in [
            ("1.11.4", &["1.11.4"] as &[&str], &["1.11.3", "1.11.5", "1.11.4-rc1"] as &[&str]),
            ("= 1.11", &["1.11.0"], &["1.11.4"]),
            ("v1.11.4", &["1.11.4"], &["1.11.5"]),
            ("!= 1.11.4", &["1.11.3", "1.12.0"], &["1.11.4"]),
            (">= 1.9, < 2.0", &["1.9.0", "1.99.99"], &["1.8.9", "2.0.0", "1.12.0-beta1", "2.0.0-rc1"]),
            ("~> 1.9", &["1.9.0", "1.11.4"], &["1.8.9", "2.0.0"]),
            ("~> 1.9.2", &["1.9.2", "1.9.9"], &["1.9.1", "1.10.0"]),
            ("~> 1", &["1.0.0", "2.5.0"], &["0.15.5"]),
            (">1.9.0,<=1.11.4", &["1.9.1", "1.11.4"], &["1.9.0", "1.11.5"]),
            ("1.12.0-beta1", &["1.12.0-beta1"], &["1.12.0", "1.12.0-beta2"]),
            (
                ">= 1.12.0-beta1",
                &["1.12.0-beta1", "1.12.0-rc1", "1.12.0", "1.13.0"],
                &["1.12.0-alpha1", "1.13.0-beta1"],
            ),
        ] {
            for version in fitting {
                assert!(fits(constraints, version), "{version} fits \"{constraints}\"");
            }
            for version in others {
                assert!(!fits(constraints, version), "{version} does not fit \"{constraints}\"");
            }
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        let long = ">= 1.0.0, ".repeat(30) + "< 2";
        for text in [
            "",
            " ",
            "latest",
            "1.x",
            "1..2",
            "1.2.3.4",
            "-1",
            "=> 1.9",
            ">= ",
            "1.9 2.0",
            "1.9,",
            "../1.9",
            "1.9/terraform",
            "terraform",
            "tofu",
            "packer 1.9.0",
            "１.9.0",
            "99999999999999999999.0.0",
            "01.2.3",
            long.as_str(),
        ] {
            let request = VersionRequest::parse(text);
            assert!(request.is_none(), "{text:?}: {request:?}");
        }
    }

    #[test]
    fn a_request_may_name_the_program() {
        let product = |text: &str| VersionRequest::parse(text).unwrap().product;
        assert_eq!(product("1.9.0"), None);
        assert_eq!(product("tofu ~> 1.9"), Some(Product::OpenTofu));
        assert_eq!(product("opentofu 1.9.0"), Some(Product::OpenTofu));
        assert_eq!(product("terraform >= 1.9, < 2"), Some(Product::Terraform));
        assert_eq!(VersionRequest::parse("opentofu  ~> 1.9").unwrap().to_string(), "tofu ~> 1.9");
    }

    #[test]
    fn a_template_takes_the_versions_before_a_release_that_it_requires() {
        let required = Constraints::parse(">= 1.12.0").unwrap();
        assert!(required.takes(&Version::parse("1.12.0-beta1").unwrap()));
        assert!(!required.takes(&Version::parse("1.11.4").unwrap()));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[-v~<>=!,. 0-9a-z+]{0,40}") {
            let _read = VersionRequest::parse(&text);
        }

        #[test]
        fn a_version_fits_itself_and_what_surrounds_it(major in 0_u64..30, minor in 0_u64..30, patch in 0_u64..30) {
            let version = format!("{major}.{minor}.{patch}");
            prop_assert!(fits(&version, &version));
            let next = format!("{major}.{minor}.{}", patch + 1);
            let [grows, around, not_it] =
                [format!("~> {version}"), format!(">= {version}, < {next}"), format!("!= {version}")];
            prop_assert!(fits(&grows, &version) && fits(&around, &version) && !fits(&not_it, &version));
        }
    }
}
