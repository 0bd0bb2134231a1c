//! The one node: which images it has, how much memory, and the processes of its containers.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Mutex, MutexGuard},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::{
    defaults::quantity,
    store::{Kind, Store},
};

/// Labels of the node; a `nodeSelector` must be among them.
const LABELS: &[(&str, &str)] = &[("kubernetes.io/os", "linux"), ("tendril.dev/pool", "runs")];

#[derive(Debug)]
pub(super) struct Node {
    /// Where the volumes and root directories of pods are.
    dir: PathBuf,
    /// By image: the entry point.
    images: Mutex<BTreeMap<String, Vec<String>>>,
    memory: f64,
}

/// A container that runs.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) child: Child,
    pub(super) log: PathBuf,
    /// `/dev/termination-log`.
    message: PathBuf,
    root: PathBuf,
}

/// Why a container does not start.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// A variable names a Secret that is not there yet; the kubelet tries again.
    Missing(String),
    /// A volume names one: only an event says so.
    NotMounted(String),
    /// Its program cannot be executed.
    StartError(String),
}

impl Node {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, images: Mutex::default(), memory: 64.0 * 1024.0 * 1024.0 * 1024.0 }
    }

    pub(super) fn add_image(&self, image: &str, entry_point: &[&str]) {
        let entry_point = entry_point.iter().map(|&part| part.to_owned()).collect();
        self.images().insert(image.to_owned(), entry_point);
    }

    pub(super) fn has_image(&self, image: &str) -> bool {
        self.images().contains_key(image)
    }

    /// Why the scheduler finds no node for it.
    pub(super) fn refuses(&self, spec: &Value) -> Option<String> {
        let selector = spec["nodeSelector"].as_object().into_iter().flatten();
        let fits = |(name, value): (&String, &Value)| {
            LABELS.iter().any(|label| label.0 == name && Some(label.1) == value.as_str())
        };
        let tail = "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
        if !selector.into_iter().all(fits) {
            return Some(format!(
                "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. {tail}"
            ));
        }
        let wanted: f64 = spec["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|container| quantity(&container["resources"]["requests"]["memory"]))
            .sum();
        (wanted > self.memory).then(|| format!("0/1 nodes are available: 1 Insufficient memory. {tail}"))
    }

    /// Starts the first container of a pod as a process. There is no mount namespace here: where an argument or a variable
    /// begins with the path of a volume, it is that of the pod's own directory.
    pub(super) fn start(&self, store: &Store, pod: &Value) -> Result<Container, NotStarted> {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let root = self.dir.join(uid);
        let failed = |error: io::Error| NotStarted::StartError(error.to_string());
        let spec = &pod["spec"];
        let container = &spec["containers"][0];
        let mut mounts = Vec::new();
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let (name, path) = (&mount["name"], mount["mountPath"].as_str().unwrap_or_default());
            let volume =
                spec["volumes"].as_array().into_iter().flatten().find(|volume| volume["name"] == *name);
            let place = match volume.and_then(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
            {
                // What is on a volume is there for every pod.
                Some(claim) => {
                    self.dir.join("volumes").join(claim).join(mount["subPath"].as_str().unwrap_or_default())
                }
                None => root.join(path.trim_start_matches('/')),
            };
            fs::create_dir_all(&place).map_err(failed)?;
            let files =
                volume.map(|volume| files(store, volume)).transpose().map_err(|missing| match missing {
                    NotStarted::Missing(why) => {
                        NotStarted::NotMounted(format!("MountVolume.SetUp failed for volume {name} : {why}"))
                    }
                    other => other,
                })?;
            for (file, bytes) in files.into_iter().flatten() {
                fs::write(place.join(file), bytes).map_err(failed)?;
            }
            mounts.push((path.to_owned(), place));
        }
        mounts.push(("/dev/termination-log".to_owned(), root.join("termination-log")));
        // The longest first: /data/plans is not below /data.
        mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        let placed = |text: &str| {
            mounts.iter().find(|(path, _)| text == path || text.starts_with(&format!("{path}/"))).map_or_else(
                || text.to_owned(),
                |(path, place)| format!("{}{}", place.display(), &text[path.len()..]),
            )
        };
        let image = container["image"].as_str().unwrap_or_default();
        let strings = |list: &Value| {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(placed).collect::<Vec<_>>()
        };
        let mut line = strings(&container["command"]);
        if line.is_empty() {
            line = self.images().get(image).cloned().unwrap_or_default();
        }
        line.extend(strings(&container["args"]));
        let (program, args) =
            line.split_first().ok_or_else(|| NotStarted::StartError("no command specified".to_owned()))?;
        fs::create_dir_all(&root).map_err(failed)?;
        let (log, message) = (root.join("container.log"), root.join("termination-log"));
        let out = fs::File::create(&log).map_err(failed)?;
        let mut command = std::process::Command::new(program);
        if rustix::process::geteuid().is_root() && is_program(program) {
            // A container's host name is its pod's.
            command = std::process::Command::new("unshare");
            let rename = "printf %s \"$0\" >/proc/sys/kernel/hostname; exec \"$@\"";
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            command.args(["--uts", "--", "/bin/sh", "-c", rename, name, program]);
        }
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOSTNAME", pod["metadata"]["name"].as_str().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(failed)?)
            .stderr(out)
            .current_dir(&root)
            .process_group(0);
        for variable in container["env"].as_array().into_iter().flatten() {
            let name = variable["name"].as_str().unwrap_or_default();
            command.env(name, placed(&value(store, pod, variable)?));
        }
        let child = Command::from(command).kill_on_drop(true).spawn().map_err(failed)?;
        Ok(Container { child, log, message, root })
    }

    /// Writes the files of Secrets that a pod need not have, and that were made since it started.
    pub(super) fn refresh(&self, store: &Store, pod: &Value) {
        let root = self.dir.join(pod["metadata"]["uid"].as_str().unwrap_or_default());
        let spec = &pod["spec"];
        let volumes = spec["volumes"].as_array().into_iter().flatten();
        for volume in volumes.filter(|volume| volume["secret"]["optional"] == true) {
            let mounts = spec["containers"][0]["volumeMounts"].as_array().into_iter().flatten();
            for mount in mounts.filter(|mount| mount["name"] == volume["name"]) {
                let place =
                    root.join(mount["mountPath"].as_str().unwrap_or_default().trim_start_matches('/'));
                for (file, bytes) in files(store, volume).unwrap_or_default() {
                    // Whole or not at all, as the kubelet does it.
                    let part = place.join(format!(".{file}"));
                    let _gone = fs::write(&part, bytes).and_then(|()| fs::rename(&part, place.join(file)));
                }
            }
        }
    }

    fn images(&self) -> MutexGuard<'_, BTreeMap<String, Vec<String>>> {
        self.images.lock().expect("nobody panics while holding it")
    }
}

/// Whether there is such a program: otherwise its start must fail.
fn is_program(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The files of a volume.
fn files(store: &Store, volume: &Value) -> Result<Vec<(String, Vec<u8>)>, NotStarted> {
    let mut names = Vec::new();
    if let Some(name) = volume["secret"]["secretName"].as_str() {
        names.push((name, volume["secret"]["optional"] == true));
    }
    for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
        if let Some(name) = source["secret"]["name"].as_str() {
            names.push((name, source["secret"]["optional"] == true));
        }
    }
    let mut found = Vec::new();
    for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
        if let Some(path) = source["serviceAccountToken"]["path"].as_str() {
            found.push((path.to_owned(), b"run-account".to_vec()));
        }
    }
    for (name, is_optional) in names {
        match store.get(Kind::Secret, name) {
            Some(secret) => {
                for (file, value) in secret["data"].as_object().into_iter().flatten() {
                    let bytes =
                        BASE64_STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
                    found.push((file.clone(), bytes));
                }
            }
            None if is_optional => {}
            None => return Err(NotStarted::Missing(format!("secret \"{name}\" not found"))),
        }
    }
    Ok(found)
}

/// The value of a variable.
fn value(store: &Store, pod: &Value, variable: &Value) -> Result<String, NotStarted> {
    if let Some(text) = variable["value"].as_str() {
        return Ok(text.to_owned());
    }
    let from = &variable["valueFrom"];
    if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
        let field = match path.split_once("['") {
            Some((map, key)) => {
                let key = key.trim_end_matches("']");
                &pod["metadata"][map.trim_start_matches("metadata.")][key]
            }
            None => path.split('.').fold(pod, |value, step| &value[step]),
        };
        return Ok(field.as_str().unwrap_or_default().to_owned());
    }
    let name = from["secretKeyRef"]["name"].as_str().unwrap_or_default();
    let secret = store
        .get(Kind::Secret, name)
        .ok_or_else(|| NotStarted::Missing(format!("secret \"{name}\" not found")))?;
    let key = from["secretKeyRef"]["key"].as_str().unwrap_or_default();
    let bytes = BASE64_STANDARD.decode(secret["data"][key].as_str().unwrap_or_default()).unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Container {
    /// SIGTERM to the first process, as a container runtime does it.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.try_into().unwrap_or(0))) {
            let _gone = kill_process(pid, signal);
        }
    }

    /// SIGKILL to the first process and everything that descends from it: its pid namespace ends.
    pub(super) fn kill(&self) {
        let Some(leader) = self.child.id() else { return };
        self.signal(Signal::STOP);
        loop {
            let family: Vec<u32> = descendants(leader).into_iter().filter(|pid| is_alive(*pid)).collect();
            for pid in &family {
                if let Some(pid) = Pid::from_raw((*pid).try_into().unwrap_or(0)) {
                    let _gone = kill_process(pid, Signal::KILL);
                }
            }
            if family.is_empty() {
                break;
            }
        }
        self.signal(Signal::KILL);
    }

    /// What is left when the first process has ended: processes that work below the pod's directory.
    pub(super) fn sweep(&self) {
        for pid in processes() {
            let inside =
                fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&self.root));
            if let (true, Some(pid)) = (inside, Pid::from_raw(pid.try_into().unwrap_or(0))) {
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// What the program wrote to `/dev/termination-log`, or the end of its log, where the pod wants that.
    pub(super) fn message(&self, container: &Value, failed: bool) -> Option<String> {
        let text = fs::read_to_string(&self.message).unwrap_or_default();
        if text.is_empty() && failed && container["terminationMessagePolicy"] == "FallbackToLogsOnError" {
            return tail(&self.log, 2048);
        }
        (!text.is_empty()).then_some(text)
    }
}

fn tail(path: &Path, bytes: usize) -> Option<String> {
    let text = fs::read(path).ok()?;
    let end = &text[text.len().saturating_sub(bytes)..];
    (!end.is_empty()).then(|| String::from_utf8_lossy(end).into_owned())
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

fn descendants(leader: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = processes().filter_map(|pid| Some((pid, stat(pid)?.1))).collect();
    let mut family = vec![leader];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.split_off(1)
}

/// Exit code as the kubelet writes it: 128 + n for a signal.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255)
}
