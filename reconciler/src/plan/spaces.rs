//! Whose namespaces an instance lives in: its own, those of the host, or those of another instance.

use std::collections::{BTreeMap, BTreeSet};

use model::types::{Dependency, Namespace, Project, Service};

use super::{
    called,
    draft::Draft,
    step::Cause,
    wanted::{self, Member, Wanted, Wants},
};
use crate::{
    key::InstanceKey,
    observed::{Instance, Observed, State},
    spec::{SHM_SIZE, Space, Spaces},
};

/// Links of a chain of services that share; a project that loads has no cycle.
pub const DEEPEST: usize = 16;

/// What services lend: by project and name of the lender, with whom it is lent to.
#[derive(Default)]
pub struct Lent<'a> {
    of: BTreeMap<(&'a str, &'a str), Borrowers<'a>>,
}

#[derive(Default, Clone, Copy)]
struct Borrowers<'a> {
    pid: Option<(&'a str, &'a str)>,
    ipc: Option<(&'a str, &'a str)>,
}

impl<'a> Lent<'a> {
    pub fn new(wants: &Wants<'a>) -> Self {
        let mut lent = Lent::default();
        for project in wants.projects.values() {
            for (name, service) in &project.services {
                let spaces = &service.namespaces;
                for (is_pid, space) in [(true, &spaces.pid), (false, &spaces.ipc)] {
                    let Some((owner, lender)) = space.as_ref().and_then(|it| lender(wants, project, it))
                    else {
                        continue;
                    };
                    let borrowers = lent.of.entry((owner, lender)).or_default();
                    let place = if is_pid {
                        &mut borrowers.pid
                    } else {
                        &mut borrowers.ipc
                    };
                    place.get_or_insert((&project.name, name));
                }
            }
        }
        lent
    }

    fn to(&self, project: &str, service: &str) -> Borrowers<'a> {
        self.of.get(&(project, service)).copied().unwrap_or_default()
    }
}

/// Who runs in whose namespaces, as is seen: by who made them, and by each who passed them on.
#[derive(Default)]
pub struct Within<'a> {
    of: BTreeMap<&'a InstanceKey, BTreeMap<&'a InstanceKey, Kinds>>,
}

/// Which namespaces somebody lives in.
#[derive(Debug, Default, Clone, Copy)]
pub struct Kinds {
    pub network: bool,
    pub pid: bool,
}

impl<'a> Within<'a> {
    pub fn new(draft: &Draft<'a>) -> Self {
        let mut within = Within::default();
        let Some(all) = draft.observed.instances.known() else {
            return within;
        };
        for (key, seen) in all {
            let runs = || matches!(seen.state, State::Running { .. }) || draft.starting(key).is_some();
            if seen.sandbox.spaces.of.is_none() || !runs() {
                continue;
            }
            for (number, kind) in KINDS.into_iter().enumerate() {
                for lender in lenders(all, seen, kind) {
                    let kinds = within.of.entry(lender).or_default().entry(key).or_default();
                    kinds.network |= number == 0;
                    kinds.pid |= number == 1;
                }
            }
        }
        within
    }

    /// Those that run in the namespaces of `key`.
    pub fn of(&self, key: &InstanceKey) -> impl Iterator<Item = (&'a InstanceKey, Kinds)> {
        let there = self.of.get(key).into_iter().flatten();
        there.map(|(key, kinds)| (*key, *kinds))
    }
}

const KINDS: [fn(&Spaces) -> Space; 3] = [|spaces| spaces.network, |spaces| spaces.pid, |spaces| spaces.ipc];

/// Those whose namespaces `seen` lives in.
pub fn lenders_of<'a>(
    all: &'a BTreeMap<InstanceKey, Instance>,
    seen: &'a Instance,
) -> BTreeSet<&'a InstanceKey> {
    KINDS
        .into_iter()
        .flat_map(|kind| lenders(all, seen, kind))
        .collect()
}

/// Those whose namespace of one kind `seen` lives in: who made it last, before it who passed it on.
fn lenders<'a>(
    all: &'a BTreeMap<InstanceKey, Instance>,
    mut seen: &'a Instance,
    kind: fn(&Spaces) -> Space,
) -> Vec<&'a InstanceKey> {
    let mut lenders = Vec::new();
    while kind(&seen.sandbox.spaces) == Space::Joined && lenders.len() <= DEEPEST {
        let of = seen.sandbox.spaces.of.as_ref();
        let there = of.and_then(|of| all.get_key_value(of));
        match there {
            // Of one that has lost its pause it cannot be told any more.
            Some((lender, there))
                if there.identity.is_empty() || seen.joined.as_ref() == Some(&there.identity) =>
            {
                lenders.push(lender);
                seen = there;
            }
            _ => break,
        }
    }
    lenders
}

/// Project and service whose namespace is asked for.
fn lender<'a>(wants: &Wants<'a>, project: &'a Project, space: &'a Namespace) -> Option<(&'a str, &'a str)> {
    match space {
        Namespace::Service(name) => Some((&project.name, name)),
        Namespace::Container(name) => {
            let member = wants.instances.iter().find(|member| called::is(member, name))?;
            let Wanted { project, service } = member.wanted;
            let mut services = project.services.iter();
            let (name, _) = services.find(|(_, one)| std::ptr::eq(*one, service))?;
            Some((&project.name, name))
        }
        _ => None,
    }
}

/// Whether a sandbox with `theirs` has what one with `asked` is to join: processes and IPC of its own only where
/// they outlive the container.
pub fn lends(theirs: &Spaces, asked: &Spaces) -> bool {
    let joined = Space::Joined;
    (asked.pid != joined || theirs.pid == joined || theirs.lends_pid)
        && (asked.ipc != joined || theirs.ipc == joined || theirs.lends_ipc.is_some())
}

/// The namespaces of `member`; the error says why they cannot be had and what to do.
pub fn spaces(
    wants: &Wants<'_>,
    observed: &Observed,
    lent: &Lent<'_>,
    member: &Member<'_>,
) -> Result<Spaces, String> {
    let borrowers = match lent.of.is_empty() || member.key.index != 1 {
        true => Borrowers::default(),
        false => lent.to(&member.key.project, &member.key.service),
    };
    let mut spaces = own(wants, observed, member, 0)?;
    spaces.lends_pid = borrowers.pid.is_some() && spaces.pid == Space::Own;
    let service = member.wanted.service;
    let lends_ipc = borrowers.ipc.is_some() || service.namespaces.ipc == Some(Namespace::Shareable);
    if lends_ipc && spaces.ipc == Space::Own {
        spaces.lends_ipc = Some(service.resources.shm_size.unwrap_or(SHM_SIZE));
    }
    Ok(spaces)
}

fn own(wants: &Wants<'_>, observed: &Observed, member: &Member<'_>, depth: usize) -> Result<Spaces, String> {
    let Wanted { project, service } = member.wanted;
    let asked = &service.namespaces;
    let mut spaces = Spaces {
        host_ids: service.security.privileged || asked.userns_mode == Some(Namespace::Host),
        host_uts: asked.uts == Some(Namespace::Host),
        host_cgroup: asked.cgroup == Some(Namespace::Host),
        ..Spaces::default()
    };
    let all = [
        ("network_mode", &asked.network_mode, &mut spaces.network),
        ("ipc", &asked.ipc, &mut spaces.ipc),
        ("pid", &asked.pid, &mut spaces.pid),
    ];
    let mut joined: Option<(&str, Joined)> = None;
    let mut hosts = None;
    for (field, asked, space) in all {
        let found = match asked {
            Some(Namespace::Host) => {
                hosts = Some(field);
                *space = Space::Host;
                continue;
            }
            Some(Namespace::Service(name)) => of_service(wants, observed, project, name, depth),
            Some(Namespace::Container(name)) => of_container(wants, observed, project, name, depth),
            _ => continue,
        };
        let found = found.map_err(|why| format!("`{field}` cannot be had: {why}"))?;
        *space = Space::Joined;
        match &joined {
            Some((first, other)) if other.key != found.key => {
                return Err(format!(
                    "`{first}` and `{field}` name two services; write the same one, or share less"
                ));
            }
            _ => joined = Some((field, found)),
        }
    }
    spaces.host_ids |= hosts.is_some();
    if let Some((field, joined)) = joined {
        // A namespace is ruled from the user namespace that it was made in.
        if spaces.host_ids && !joined.host_ids {
            return Err(format!(
                "it is to have the ids of the host, and {} has ids of its own, whose namespaces `{field}` \
                 joins; write `userns_mode: host` there, too, or nowhere",
                joined.key.service
            ));
        }
        if joined.key.project != project.name && !spaces.host_ids {
            return Err(format!(
                "{} is of another project, and each project has ids of its own; write `userns_mode: host` \
                 in both, or keep the two services in one project",
                joined.key.service
            ));
        }
        spaces.host_ids = joined.host_ids;
        spaces.of = Some(joined.key);
    }
    Ok(spaces)
}

struct Joined {
    key: InstanceKey,
    host_ids: bool,
}

fn of_service(
    wants: &Wants<'_>,
    observed: &Observed,
    project: &Project,
    name: &str,
    depth: usize,
) -> Result<Joined, String> {
    of_member(wants, observed, first(wants, project, name)?, depth)
}

/// The container whose namespaces are those of a service.
fn first<'w, 'a>(wants: &'w Wants<'a>, project: &Project, name: &str) -> Result<&'w Member<'a>, String> {
    let members = wants.of(&project.name, name);
    let members = wants.instances.get(members).unwrap_or_default();
    let mut first = members
        .iter()
        .filter(|member| member.key.index == 1 && !wants.replaced.contains_key(&member.key));
    first.next().ok_or_else(|| {
        format!("no container of {name} shall run; give it a `scale` of 1, or remove the attribute")
    })
}

/// Why one that runs could not be made again: nobody is to lend what it shares.
pub fn unlent(wants: &Wants<'_>, member: &Member<'_>) -> Option<String> {
    let Wanted { project, service } = member.wanted;
    let asked = &service.namespaces;
    let all = [
        ("network_mode", &asked.network_mode),
        ("ipc", &asked.ipc),
        ("pid", &asked.pid),
    ];
    all.into_iter().find_map(|(field, space)| match space {
        Some(Namespace::Service(name)) => {
            let why = first(wants, project, name).err()?;
            Some(format!("`{field}` could not be had again: {why}"))
        }
        _ => None,
    })
}

fn of_container(
    wants: &Wants<'_>,
    observed: &Observed,
    project: &Project,
    name: &str,
    depth: usize,
) -> Result<Joined, String> {
    if let Some(member) = wants.instances.iter().find(|member| called::is(member, name)) {
        return of_member(wants, observed, member, depth);
    }
    // Of a project that nothing is planned for in this pass.
    let seen = observed.instances.known().into_iter().flatten();
    let mut others = seen.filter(|(key, _)| key.project != project.name);
    let found = others.find(|(key, instance)| called::was(key, instance, name));
    let (key, instance) = found.ok_or_else(|| {
        format!(
            "there is no container {name}; `stead ps` shows those there are, and containers of other programs \
             cannot be joined"
        )
    })?;
    Ok(Joined {
        key: key.clone(),
        host_ids: instance.sandbox.spaces.host_ids,
    })
}

fn of_member(
    wants: &Wants<'_>,
    observed: &Observed,
    member: &Member<'_>,
    depth: usize,
) -> Result<Joined, String> {
    if depth > DEEPEST {
        return Err("services share in a circle; end it at one of them".to_owned());
    }
    Ok(Joined {
        key: member.key.clone(),
        host_ids: own(wants, observed, member, depth + 1)?.host_ids,
    })
}

/// Why a sandbox that has `have` must be made anew for `want`.
pub fn cause(wants: &Wants<'_>, lent: &Lent<'_>, key: &InstanceKey, have: &Spaces, want: &Spaces) -> Cause {
    let borrowers = lent.to(&key.project, &key.service);
    let borrower = match () {
        () if want.lends_pid && !have.lends_pid => borrowers.pid.map(|who| ("pid", who)),
        () if want.lends_ipc.is_some() && have.lends_ipc.is_none() => borrowers.ipc.map(|who| ("ipc", who)),
        () => None,
    };
    let manifest = borrower.and_then(|(field, (project, service))| {
        let project = wants.projects.get(project)?;
        let spaces = &project.services.get(service)?.namespaces;
        let space = if field == "pid" { &spaces.pid } else { &spaces.ipc };
        let field = format!("services.{service}.{field}");
        Some(wanted::cause(
            project,
            field,
            None,
            space.as_ref().map(ToString::to_string),
        ))
    });
    manifest.unwrap_or_else(|| wanted::noun("sandbox", Some("its namespaces are others now".to_owned())))
}

/// Why a sandbox is made anew that has joined namespaces of `lender`.
pub fn anew(lender: &InstanceKey) -> Cause {
    let text = format!("it shares namespaces of {lender}, whose sandbox is made anew");
    wanted::noun("sandbox", Some(text))
}

/// Whether `service` is restarted when `dependency` becomes another one. Not who shares its namespaces, where
/// nothing else asks for it: they outlive the container.
pub fn restarts_with(service: &Service, dependency: &str, on: &Dependency) -> bool {
    let spaces = &service.namespaces;
    let shares =
        |space: &Option<Namespace>| matches!(space, Some(Namespace::Service(name)) if name == dependency);
    if planted!("sharer-restarts-with-its-lender") {
        return on.restart;
    }
    on.restart
        && ![&spaces.network_mode, &spaces.ipc, &spaces.pid]
            .into_iter()
            .any(shares)
}
