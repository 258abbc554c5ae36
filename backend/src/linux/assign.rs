//! A sandbox that is made: a ready supervisor, and what it is given.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, PoisonError},
};

use reconciler::{key::InstanceKey, plan::action::Action, spec::SandboxSpec};

use super::{
    LinuxBackend,
    apply::{asked, at},
    error::ApplyError,
    sandboxes::{self, Sandbox},
};
use crate::{
    sandbox::Kind,
    shim::{
        client::ClientError,
        protocol::{Assignment, Lender, Reply, Request, Resolver},
    },
};

impl LinuxBackend {
    /// `next`: what is to follow in it.
    pub(super) fn new_sandbox(
        &self,
        spec: &SandboxSpec,
        next: Option<&Action>,
    ) -> Result<Arc<Sandbox>, ApplyError> {
        let directory = self.layout.container(&spec.key);
        let logs = self.layout.logs(&spec.key);
        for path in [&directory, &logs] {
            fs::create_dir_all(path).map_err(|source| at(path, source))?;
        }
        let (lent, lender) = match &spec.spaces.of {
            Some(lender) => {
                let (kinds, descriptors, lender) = self.lend(lender)?;
                ((kinds, descriptors), Some(lender))
            }
            None => Default::default(),
        };
        let assignment = Assignment {
            sandbox: spec.clone(),
            mark: self.layout.mark.clone(),
            cgroup: self.instance_cgroup(&spec.key),
            socket: self.shim_socket(&spec.key),
            directory,
            logs,
            resolver: self.resolver(spec),
            boot_id: self.boot_id.clone(),
            lent: lent.0,
            lender,
        };
        let (events, theirs) = UnixStream::pair().map_err(|source| at(&assignment.socket, source))?;
        let lent = lent.1.iter().map(AsFd::as_fd);
        let along: Vec<_> = [theirs.as_fd()].into_iter().chain(lent).collect();
        let mut client = self.pool.take().map_err(ApplyError::Spawn)?;
        let request = Request::Assign(Box::new(assignment));
        let ahead = self.ahead(next);
        let answer = client
            .request_and_tell(&request, &along, ahead.as_ref())
            .map_err(|error| asked(&spec.key, error))?;
        let (Reply::Assigned, Some(netns)) = (answer.0, answer.1.into_iter().next()) else {
            return Err(asked(&spec.key, ClientError::Unexpected));
        };
        self.watcher
            .subscribe(&spec.key, events.into())
            .map_err(|source| at(&self.shim_socket(&spec.key), source))?;
        let links = sandboxes::links(&self.layout.mark, &spec.key);
        let sandbox = Sandbox::new(netns, client, links);
        Ok(self.sandboxes.insert(spec.key.clone(), sandbox))
    }

    /// Namespaces of `key` that another sandbox is to join, and whose they are.
    fn lend(&self, key: &InstanceKey) -> Result<(Vec<Kind>, Vec<OwnedFd>, Lender), ApplyError> {
        let none = || ApplyError::NoSandbox { key: key.clone() };
        let sandbox = self.sandboxes.get(key).ok_or_else(none)?;
        let answer = sandbox.client().request(&Request::Lend, &[]);
        let (Reply::Lent { kinds }, descriptors) = answer.map_err(|error| asked(key, error))? else {
            return Err(asked(key, ClientError::Unexpected));
        };
        let lender = Lender {
            identity: sandbox.identity.clone(),
            directory: self.layout.container(key),
        };
        Ok((kinds, descriptors, lender))
    }

    pub(super) fn keep_id_base(&self, project: &str, base: u32) -> Result<(), ApplyError> {
        let _turn = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        if self.id_bases.get(project)?.is_none() {
            self.id_bases.put(project, &base)?;
        }
        Ok(())
    }

    /// Zones in the order of the endpoints; names of the outside only where there is a way out.
    pub(super) fn resolver(&self, spec: &SandboxSpec) -> Resolver {
        Resolver {
            zones: spec
                .endpoints
                .iter()
                .map(|endpoint| self.zone_file(&endpoint.network))
                .collect(),
            forward: spec.endpoints.iter().any(|endpoint| endpoint.gateway.is_some()),
        }
    }
}
