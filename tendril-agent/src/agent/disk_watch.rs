//! Measures the work directory while the agent runs.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};

use crate::{agent::Agent, control_plane::PULSE, template::git, terraform::state::state_dirs};

/// Between two measurements. A program can write a good deal in that time, and space is reserved for it.
const MEASURE_AFTER: Duration = Duration::from_secs(1);

impl Agent {
    /// Measures the work directory for ever, on a thread that may wait for the disk; has a job make room where there is none.
    pub(super) fn watch_disk(&self) -> impl Future<Output = ()> + 'static {
        let (disk, config, leases) = (self.disk.clone(), Arc::clone(&self.config), self.watched.clone());
        async move {
            loop {
                let (disk, config) = (disk.clone(), Arc::clone(&config));
                let plugins = config.terraform.plugin_cache().map(Path::to_path_buf);
                let measure = move || {
                    disk.look_for_errored_states(|| state_dirs::pass(&config.state_dir));
                    let mirrors = |wanted| git::sweep(&config.work_dir, wanted);
                    disk.measure(&config.work_dir, plugins.as_deref(), config.work_limit, mirrors)
                };
                match spawn_blocking(measure).await {
                    Ok(Some((attempt, pressure))) => leases.evict(&attempt, pressure),
                    Ok(None) => {}
                    Err(error) => tracing::error!(%error, "the work directory cannot be measured"),
                }
                sleep(if leases.is_empty() { PULSE } else { MEASURE_AFTER }).await;
            }
        }
    }
}
