//! The end of a container: drain, hooks, signal, grace, SIGKILL; and who does not end even so.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use reconciler::{key::InstanceKey, spec::SandboxSpec};

use super::{LinuxBackend, apply::at, error::ApplyError};
use crate::{
    cgroup,
    shim::protocol::{Hooks, Request, Run},
    stuck,
};

/// How long the kernel may take to end killed processes before it is reported.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// Killed, and asleep in the kernel for so long: it is not about to end.
const STUCK_AFTER: Duration = Duration::from_millis(500);
/// Between two counts of connections: one costs up to 10 ms.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);

impl LinuxBackend {
    /// Until no TCP connection from elsewhere passes through the host ports of the instance.
    fn drain(&self, sandbox: &SandboxSpec, patience: Duration) {
        let deadline = Instant::now() + patience;
        let addresses = sandbox
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address)
            .collect();
        while Instant::now() < deadline {
            match self.firewall.connections(&addresses) {
                Ok(0) => return,
                Ok(_) => thread::sleep(DRAIN_PAUSE.min(deadline.saturating_duration_since(Instant::now()))),
                // What must stop stops, watched or not.
                Err(error) => return tracing::warn!(key = %sandbox.key, %error, "not drained"),
            }
        }
    }

    /// Drain, hooks, signal, grace, SIGKILL; done when nothing is left in the payload cgroup.
    pub(super) fn stop(&self, key: &InstanceKey, drain: Duration) -> Result<(), ApplyError> {
        if self.sandboxes.get(key).is_none() {
            let cgroup = self.instance_cgroup(key);
            cgroup::kill(&cgroup).map_err(|source| at(&cgroup, source))?;
            return self.wait_empty(key, &cgroup);
        }
        let state = self.state(key)?;
        if let (Run::Running { .. }, Some(container)) = (&state.run, &state.record.container) {
            self.drain(&state.record.assignment.sandbox, drain);
            let hooks = &state.record.hooks;
            // Who has begun to stop it goes on, also where another agent had asked for it.
            let request = match container.pre_stop.is_empty() && *hooks == Hooks::default() {
                true => Request::Signal {
                    signal: container.stop_signal,
                },
                false => Request::Stop,
            };
            self.ask(key, &request)?;
            let deadline = Instant::now() + Duration::from_millis(container.stop_grace);
            // The first process decides when the service has stopped; the rest is killed with it.
            while Instant::now() < deadline && matches!(self.state(key)?.run, Run::Running { .. }) {
                thread::sleep(Duration::from_millis(5));
            }
        }
        self.ask(key, &Request::Kill)?;
        let payload = self.instance_cgroup(key).join("payload");
        self.wait_empty(key, &payload)?;
        let deadline = Instant::now() + KILL_PATIENCE;
        while matches!(self.state(key)?.run, Run::Running { .. }) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(super) fn wait_empty(&self, key: &InstanceKey, cgroup: &Path) -> Result<(), ApplyError> {
        let started = Instant::now();
        while cgroup::populated(cgroup).map_err(|source| at(cgroup, source))? {
            // Nothing ends it but what it waits for: it is told as soon as it is certain.
            if started.elapsed() > STUCK_AFTER
                && let Some(fault) = stuck::after_kill(&self.instance_cgroup(key).join("payload"))
            {
                return Err(ApplyError::Stuck {
                    key: key.clone(),
                    fault: Box::new(fault),
                });
            }
            if started.elapsed() > KILL_PATIENCE {
                return Err(ApplyError::StillAlive {
                    key: key.clone(),
                    after: KILL_PATIENCE.as_secs() * 1000,
                    cgroup: cgroup.to_owned(),
                });
            }
            thread::sleep(Duration::from_millis(if started.elapsed() < STUCK_AFTER {
                1
            } else {
                20
            }));
        }
        Ok(())
    }
}
