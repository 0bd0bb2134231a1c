//! Which launcher is used, and what becomes of executors when the dispatcher is told to stop.

#[cfg(feature = "kubernetes")]
const CHOICES: &str = "write \"local\", \"in-process\" or \"kubernetes\"";
#[cfg(not(feature = "kubernetes"))]
const CHOICES: &str = "write \"local\" or \"in-process\"";

/// Where claimed attempts run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LauncherKind {
    /// As processes of this machine that outlive the agent.
    Local,
    /// Inside the agent's own process.
    InProcess,
    /// As pods of Kubernetes Jobs.
    #[cfg(feature = "kubernetes")]
    Kubernetes,
}

impl LauncherKind {
    /// Reads `--launcher`.
    pub(crate) fn read(text: Option<&str>) -> Result<Self, String> {
        match text.unwrap_or("local") {
            "local" => Ok(Self::Local),
            "in-process" => Ok(Self::InProcess),
            #[cfg(feature = "kubernetes")]
            "kubernetes" => Ok(Self::Kubernetes),
            #[cfg(not(feature = "kubernetes"))]
            "kubernetes" => Err(
                "--launcher / TENDRIL_LAUNCHER is \"kubernetes\", and this program was built without the feature `kubernetes`: write \"local\" or \"in-process\", or build it with that feature"
                    .to_owned(),
            ),
            other => Err(format!(
                "--launcher / TENDRIL_LAUNCHER is \"{other}\": {CHOICES}"
            )),
        }
    }

    /// Most jobs at the same time: pods are not this machine's load.
    pub(crate) const fn most(self) -> usize {
        match self {
            Self::Local | Self::InProcess => 64,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes => 1000,
        }
    }
}

/// What SIGTERM does to running jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// They may end by themselves, then they are interrupted.
    Drain,
    /// They go on without the agent, and its next start takes them over.
    Detach,
}

impl OnStop {
    /// Reads `--on-stop`.
    pub(crate) fn read(text: Option<&str>, launcher: Option<LauncherKind>) -> Result<Self, String> {
        match text.unwrap_or("drain") {
            // Pods do not end with their dispatcher, whatever is said.
            #[cfg(feature = "kubernetes")]
            "drain" | "detach" if launcher == Some(LauncherKind::Kubernetes) => Ok(Self::Detach),
            "drain" => Ok(Self::Drain),
            "detach" if launcher == Some(LauncherKind::InProcess) => Err(
                "--on-stop / TENDRIL_ON_STOP is \"detach\", and --launcher is \"in-process\": jobs inside the agent end with it. Write --launcher local, or --on-stop drain"
                    .to_owned(),
            ),
            "detach" => Ok(Self::Detach),
            other => Err(format!("--on-stop / TENDRIL_ON_STOP is \"{other}\": write \"drain\" or \"detach\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_launcher_and_what_does_not_go_together_is_refused() {
        assert_eq!(LauncherKind::read(None), Ok(LauncherKind::Local));
        assert_eq!(LauncherKind::read(Some("in-process")), Ok(LauncherKind::InProcess));
        assert!(LauncherKind::read(Some("docker")).unwrap_err().contains("\"docker\""));
        assert_eq!(OnStop::read(None, None), Ok(OnStop::Drain));
        #[cfg(feature = "kubernetes")]
        {
            assert_eq!(LauncherKind::read(Some("kubernetes")), Ok(LauncherKind::Kubernetes));
            assert_eq!(OnStop::read(None, Some(LauncherKind::Kubernetes)), Ok(OnStop::Detach));
        }
        #[cfg(not(feature = "kubernetes"))]
        {
            let refused = LauncherKind::read(Some("kubernetes")).unwrap_err();
            assert!(refused.contains("built without the feature `kubernetes`"), "{refused}");
        }
        assert_eq!(OnStop::read(Some("detach"), Some(LauncherKind::Local)), Ok(OnStop::Detach));
        let refused = OnStop::read(Some("detach"), Some(LauncherKind::InProcess)).unwrap_err();
        assert!(refused.contains("--launcher local"), "{refused}");
        assert!(OnStop::read(Some("kill"), None).unwrap_err().contains("\"kill\""));
    }
}
