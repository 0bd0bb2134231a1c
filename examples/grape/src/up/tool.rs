//! A program of this machine: found, run, and its output read.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
};

use crate::failure::{Failure, FailureKind, Result};

/// How many lines of a program's output are stored for its failure.
const TAIL: usize = 30;

/// A program, and how to get it where it is missing.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    program: PathBuf,
    install: &'static str,
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// Its exit code; 128 and the signal that ended it.
    pub(super) code: i32,
    /// What it printed on stdout.
    pub(super) out: String,
    /// The last lines of stderr.
    pub(super) tail: String,
}

impl Finished {
    /// Whether it ended well.
    pub(super) fn ok(&self) -> bool {
        self.code == 0
    }
}

impl Tool {
    pub(super) fn terraform() -> Self {
        let named = std::env::var_os("TENDRIL_TERRAFORM").filter(|name| !name.is_empty()).map(PathBuf::from);
        let on_path = |name: &str| {
            let dirs = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&dirs).any(|dir| dir.join(name).is_file())
        };
        let other = || if !on_path("terraform") && on_path("tofu") { "tofu" } else { "terraform" };
        Self {
            program: named.unwrap_or_else(|| other().into()),
            install: "Install Terraform (https://developer.hashicorp.com/terraform/install) or OpenTofu.",
        }
    }

    pub(super) fn kubectl() -> Self {
        Self {
            program: "kubectl".into(),
            install: "Install kubectl: https://kubernetes.io/docs/tasks/tools/",
        }
    }

    pub(super) fn helm() -> Self {
        Self {
            program: "helm".into(),
            install: "Install Helm 3.14 or newer: https://helm.sh/docs/intro/install/",
        }
    }

    pub(super) fn aws() -> Self {
        Self {
            program: "aws".into(),
            install: "Install the AWS CLI: https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html",
        }
    }

    /// The program's name.
    pub(super) fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }

    /// Begins a command.
    pub(super) fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        Run { tool: self.clone(), command, input: None }
    }

    fn missing(&self, error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::NotFound {
            return Failure::new(FailureKind::ToolMissing, format!("{} is not installed.", self.name()))
                .next(self.install);
        }
        let text = format!("{} cannot be started: {error}", self.program.display());
        Failure::new(FailureKind::ToolMissing, text).next(self.install).caused_by(error)
    }
}

/// A command that is about to run.
#[derive(Debug)]
pub(super) struct Run {
    tool: Tool,
    command: Command,
    input: Option<Vec<u8>>,
}

impl Run {
    /// Where it runs.
    pub(super) fn directory(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// A variable of its environment.
    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What it reads on stdin: the way for secrets, which other users see in arguments.
    pub(super) fn input(mut self, text: Vec<u8>) -> Self {
        self.input = Some(text);
        self
    }

    /// Runs it to its end; `on_line` gets each line as it comes. Ctrl-C reaches it as it reaches this program: it is waited for,
    /// so that it can stop in good order.
    pub(super) async fn finish(self, mut on_line: impl FnMut(&str)) -> Result<Finished> {
        let Self { tool, mut command, input } = self;
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| tool.missing(error))?;
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            // One that does not read ends with its own complaint.
            let _ = stdin.write_all(&text).await;
            let _ = stdin.shutdown().await;
        }
        let (mut out, mut tail) = (Vec::new(), Vec::new());
        read(&mut child, |line, is_err| {
            on_line(&line);
            if is_err {
                tail.push(line.clone());
                if tail.len() > TAIL {
                    tail.remove(0);
                }
            } else {
                out.push(line);
            }
        })
        .await?;
        let status = child.wait().await?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let code = status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0));
        if tail.is_empty() {
            tail.extend(out.iter().rev().take(TAIL).rev().cloned());
        }
        Ok(Finished { code, out: out.join("\n"), tail: tail.join("\n") })
    }

    /// Runs it to its end in silence.
    pub(super) async fn quiet(self) -> Result<Finished> {
        self.finish(|_| {}).await
    }
}

/// Reads both streams line by line.
async fn read(child: &mut Child, mut on_line: impl FnMut(String, bool)) -> Result<()> {
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else { return Ok(()) };
    let (mut out, mut err) = (BufReader::new(out), BufReader::new(err));
    let (mut out_open, mut err_open) = (true, true);
    let (mut from_out, mut from_err) = (Vec::new(), Vec::new());
    while out_open || err_open {
        tokio::select! {
            more = next(&mut out, &mut from_out), if out_open => match more? {
                Some(line) => on_line(line, false),
                None => out_open = false,
            },
            more = next(&mut err, &mut from_err), if err_open => match more? {
                Some(line) => on_line(line, true),
                None => err_open = false,
            },
        }
    }
    Ok(())
}

/// The next line; what was read of one that is not complete stays in `buffer`, so that a cancelled call loses nothing.
async fn next(
    stream: &mut BufReader<impl AsyncRead + Unpin>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<String>> {
    let read = stream.read_until(b'\n', buffer).await?;
    if read == 0 && buffer.is_empty() {
        return Ok(None);
    }
    let line = String::from_utf8_lossy(buffer).trim_end_matches(['\r', '\n']).to_owned();
    buffer.clear();
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(program: &str) -> Tool {
        Tool { program: program.into(), install: "Install it." }
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named_with_the_way_to_get_it() {
        let failure = tool("no-such-program").command(["x"]).quiet().await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::ToolMissing);
        assert_eq!(
            (failure.to_string().as_str(), failure.next_step()),
            ("no-such-program is not installed.", Some("Install it."))
        );
    }

    #[tokio::test]
    async fn what_a_program_prints_is_heard_line_by_line_and_its_last_words_are_kept() {
        let script = "cat; for i in $(seq 100); do echo \"line $i\" >&2; done; exit 3";
        let mut lines = Vec::new();
        let run = tool("sh").command(["-c", script]).input(b"secret\nlast".to_vec());
        let finished = run.finish(|line| lines.push(line.to_owned())).await.unwrap();
        assert_eq!((finished.code, finished.out.as_str()), (3, "secret\nlast"));
        assert_eq!(lines.len(), 102);
        assert!(
            finished.tail.starts_with("line 71\n") && finished.tail.ends_with("line 100"),
            "{}",
            finished.tail
        );
    }

    #[tokio::test]
    async fn a_program_that_a_signal_ended_has_a_code_too() {
        assert_eq!(tool("sh").command(["-c", "kill -9 $$"]).quiet().await.unwrap().code, 137);
    }
}
