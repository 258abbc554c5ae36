//! Mistakes that could be made in this crate, to be switched on one at a time: the tests must find each.
//! Without the feature `planted` there are none, and nothing of this costs anything.

/// Whether the mistake of this name is made now: `false`, known when this is compiled.
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($name:literal) => {
        false
    };
}

/// Whether the mistake of this name is made now.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($name:literal) => {{
        const NUMBER: usize = crate::planted::number($name);
        crate::planted::chosen(NUMBER)
    }};
}

/// Every mistake, by its name, and what is done wrong.
#[cfg(feature = "planted")]
pub const MISTAKES: &[(&str, &str)] = &[
    (
        "address-twice",
        "an address that was chosen in this pass is given out again",
    ),
    ("attempts-not-counted", "each failure counts as the first"),
    (
        "barred-for-ever",
        "a changed manifest does not clear what was taken back",
    ),
    (
        "before-the-image",
        "a container is started before its image is unpacked",
    ),
    (
        "before-the-look",
        "a project is converged while the host is still looked at",
    ),
    (
        "before-the-volume",
        "a container is started before its volumes are made",
    ),
    ("begun-forgotten", "what is half way has lost its class and cause"),
    (
        "blocked-counts-as-ready",
        "a step does not wait for what is not to be had",
    ),
    (
        "busy-key-looked-at",
        "what an action is at is looked at meanwhile",
    ),
    (
        "change-unnoticed",
        "a change of the host does not release what waits for one",
    ),
    ("completed-with-an-error", "a job that failed counts as completed"),
    ("delay-never-grows", "every try comes after the first delay"),
    (
        "drain-skipped",
        "the old slot is stopped without waiting for its connections",
    ),
    (
        "dwellers-not-stopped",
        "who lives in a process namespace that goes is killed with it, without its grace",
    ),
    ("drift-ignored", "an interface that is gone is not made again"),
    ("error-forgets-the-start", "a step that failed is taken for done"),
    ("event-lost", "a hint about a container is dropped"),
    (
        "failure-never-forgotten",
        "a success does not clear the failures before",
    ),
    ("failure-not-waited-for", "what failed is tried again at once"),
    (
        "firewall-drift-ignored",
        "rules that are seen to be broken stay so",
    ),
    ("firewall-stays", "rules that could not be set are not set again"),
    (
        "foreign-routes-ignored",
        "a subnet is taken that the host routes elsewhere",
    ),
    (
        "gate-ignored-on-revive",
        "a container that ended is started again without its dependencies",
    ),
    ("gone-entry-stays", "what is not seen any more stays known"),
    (
        "hold-not-respected",
        "a project without a good manifest is taken down",
    ),
    ("holder-ignored", "a host port is reserved while another holds it"),
    (
        "hook-failure-forgiven",
        "a start that failed counts as a run, if only its hooks took long enough",
    ),
    (
        "hooks-ignored",
        "a service counts as started before its hooks are done",
    ),
    ("incomplete-is-whole", "an unread source counts as an empty one"),
    ("internal-with-gateway", "an internal network leads outside"),
    ("jitter-unbounded", "a delay may be a hundred times as long"),
    ("job-run-twice", "an exit record without a sandbox is not read"),
    (
        "joins-whatever-there-is",
        "namespaces are joined before the sandbox is there that lends them",
    ),
    (
        "lender-anew-unnoticed",
        "who shares namespaces stays in those of a sandbox that is gone",
    ),
    (
        "lent-room-goes",
        "a sandbox is removed while others run in its namespaces",
    ),
    ("limit-one-more", "one restart more than the limit"),
    (
        "lost-volume-used",
        "a service starts on a volume whose data is missing",
    ),
    (
        "manifest-does-not-forgive",
        "a changed manifest waits out the failures of the old one",
    ),
    (
        "missed-not-looked-at",
        "what an action touched during a look is not looked at again",
    ),
    ("monitor-ignored", "an updated one has settled as soon as it runs"),
    (
        "network-without-look",
        "a network is removed while the containers cannot be read",
    ),
    ("no-cap", "delays double for ever"),
    (
        "no-stop-before",
        "a container is replaced without stopping what runs",
    ),
    ("old-names-stay", "the names of a network that goes stay"),
    (
        "operator-ignored",
        "what an operator has stopped is started again",
    ),
    (
        "outdated-failure-counts",
        "a step of the former manifest holds the new one up",
    ),
    ("parallelism-ignored", "all instances are updated at once"),
    (
        "pause-end-unnoticed",
        "a sandbox lends namespaces that nobody holds any more",
    ),
    (
        "port-not-yet-given-up",
        "a host port counts as free while it is being given up",
    ),
    (
        "ports-before-the-sandbox",
        "host ports lead to an address that nobody has yet",
    ),
    (
        "pre-stop-restarts",
        "another command before the stop restarts the container",
    ),
    (
        "prepared-once-for-all",
        "what runs before the start does not run again for another version",
    ),
    (
        "ratio-ignored",
        "failures of an update are tolerated whatever the limit",
    ),
    (
        "removed-field-unnoticed",
        "a line taken out of the manifest changes nothing",
    ),
    (
        "reserved-too-early",
        "a sandbox is made before its endpoint is isolated",
    ),
    ("restart-at-once", "no delay before a restart"),
    (
        "restarts-not-counted",
        "the count of restarts starts anew each time",
    ),
    ("resync-never", "a hint that was lost is never made up for"),
    ("root-gone-ignored", "a process whose root is gone runs on"),
    ("same-key-twice", "a step is planned for what is under way"),
    (
        "second-name-not-kept",
        "a name is not kept where another has brought its image",
    ),
    (
        "sharer-restarts-with-its-lender",
        "who shares namespaces is restarted with the container that lends them",
    ),
    (
        "stale-look",
        "a look that began before an action overrides what came of it",
    ),
    (
        "starting-is-healthy",
        "a probe that has not answered yet counts as healthy",
    ),
    (
        "stop-order-ignored",
        "dependencies are stopped before their dependants",
    ),
    (
        "stopped-counts-as-replaced",
        "an end of the version before counts while the new one is stopped",
    ),
    (
        "streak-never-over",
        "a container that ran for a day is still in its crash loop",
    ),
    ("success-is-failure", "on-failure starts again after a success"),
    (
        "unknown-is-absent",
        "containers that cannot be read count as not there",
    ),
    (
        "unknown-keeps-old",
        "what cannot be read is taken to be as before",
    ),
    (
        "update-before-ready",
        "names and host ports move to a new slot that is not ready",
    ),
    ("volume-without-consent", "a plain down removes the volumes"),
    ("wrong-slot-goes", "of two slots the one that serves is removed"),
];

#[cfg(feature = "planted")]
static CHOSEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(usize::MAX);

/// The place of a mistake; one that is not in the list does not compile.
#[cfg(feature = "planted")]
pub const fn number(name: &str) -> usize {
    let mut number = 0;
    while number < MISTAKES.len() {
        if same(MISTAKES[number].0.as_bytes(), name.as_bytes()) {
            return number;
        }
        number += 1;
    }
    panic!("this mistake is not in the list")
}

#[cfg(feature = "planted")]
const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(feature = "planted")]
pub fn chosen(number: usize) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == number
}

/// From now on this mistake is made, in all threads; `None`: none is.
#[cfg(feature = "planted")]
pub fn choose(name: Option<&str>) {
    let number = name.map_or(usize::MAX, number);
    CHOSEN.store(number, std::sync::atomic::Ordering::Relaxed);
}
