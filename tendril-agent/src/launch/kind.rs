//! Which launcher is used, and what becomes of executors when the dispatcher is told to stop.

/// Where claimed attempts run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LauncherKind {
    /// As processes of this machine that outlive the agent.
    Local,
    /// Inside the agent's own process.
    InProcess,
}

impl LauncherKind {
    /// Reads `--launcher`.
    pub(crate) fn read(text: Option<&str>) -> Result<Self, String> {
        match text.unwrap_or("in-process") {
            "local" => Ok(Self::Local),
            "in-process" => Ok(Self::InProcess),
            other => Err(format!(
                "--launcher / TENDRIL_LAUNCHER is \"{other}\": write \"local\" or \"in-process\""
            )),
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
        assert_eq!(LauncherKind::read(None), Ok(LauncherKind::InProcess));
        assert_eq!(LauncherKind::read(Some("local")), Ok(LauncherKind::Local));
        assert!(LauncherKind::read(Some("docker")).unwrap_err().contains("\"docker\""));
        assert_eq!(OnStop::read(None, None), Ok(OnStop::Drain));
        assert_eq!(OnStop::read(Some("detach"), Some(LauncherKind::Local)), Ok(OnStop::Detach));
        let refused = OnStop::read(Some("detach"), Some(LauncherKind::InProcess)).unwrap_err();
        assert!(refused.contains("--launcher local"), "{refused}");
        assert!(OnStop::read(Some("kill"), None).unwrap_err().contains("\"kill\""));
    }
}
