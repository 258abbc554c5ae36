//! The host is broken in every way the simulation knows, and put right: nothing but the broken thing is
//! touched, and the invariants hold all the while.

use std::collections::{BTreeMap, BTreeSet};

use reconciler::{
    desired::Desired,
    key::{InstanceKey, ResourceKey, Slot},
    observed::Observed,
    plan,
    testing::{
        drive::Drive,
        invariants::Watch,
        sim_host::{Random, damage::Damage},
    },
};

const TEXT: &str = "db
  volume data:/data
  restart always
web
  needs db
  restart always
  port 8080:80
  net default
  net back
net back internal
";

fn key(service: &str) -> InstanceKey {
    InstanceKey {
        project: "shop".to_owned(),
        service: service.to_owned(),
        index: 1,
        slot: Slot::A,
    }
}

fn network(name: &str) -> ResourceKey {
    ResourceKey {
        project: "shop".to_owned(),
        name: format!("shop_{name}"),
    }
}

struct Host {
    drive: Drive,
    watch: Watch,
}

impl Host {
    fn whole(seed: u64) -> Self {
        let mut drive = Drive::new(seed);
        drive.host.image("app:1", "sha256:aaaa", true);
        drive.file("shop", TEXT).unwrap();
        let mut host = Host {
            drive,
            watch: Watch::new(),
        };
        host.watch.wants(&host.drive.desired);
        host.settle();
        host
    }

    /// Until nothing is left to be done, and delays of failures are over.
    fn settle(&mut self) {
        for _ in 0..60 {
            self.drive.pass();
            self.look();
            self.drive.host.advance(70_000);
        }
        let plan = self.drive.plan();
        assert!(plan.steps.is_empty(), "{}", plan::render(&plan));
    }

    fn look(&mut self) {
        let mut world = self.drive.host.world();
        if let Err(violation) = self.watch.after(&mut world) {
            let done: Vec<_> = world.done.iter().rev().take(3).collect();
            panic!("{violation}\n{done:#?}");
        }
    }

    fn damage(&mut self, damage: &Damage) {
        self.drive.host.world().damage(damage);
        self.look();
    }

    fn seen(&self) -> Observed {
        self.drive.host.observe_all(&BTreeSet::from(["app:1".to_owned()]))
    }
}

/// What an agent puts right by itself, and whose process it may take for that.
fn repairable() -> Vec<(Damage, &'static [&'static str])> {
    let (net, back) = (network("default"), network("back"));
    let (web, db) = (key("web"), key("db"));
    let eth0 = || "eth0".to_owned();
    vec![
        (Damage::BridgeDeleted(net.clone()), &[]),
        (Damage::BridgeDeleted(back.clone()), &[]),
        (Damage::BridgeDown(net.clone()), &[]),
        (Damage::BridgeAddressRemoved(net.clone()), &[]),
        (
            Damage::BridgeAddressAdded(net.clone(), [192, 0, 2, 1].into()),
            &[],
        ),
        (Damage::BridgeMtu(net.clone()), &[]),
        (Damage::BridgeMac(net.clone()), &[]),
        (Damage::BridgeAlias(net.clone()), &[]),
        (Damage::BridgeSpanningTree(net.clone()), &[]),
        (Damage::BridgeRenamed(net.clone()), &[]),
        (Damage::BridgeIpv6(net.clone()), &[]),
        (Damage::BridgeRouteRemoved(net.clone()), &[]),
        (Damage::VethDeleted(web.clone(), eth0()), &[]),
        (Damage::VethDown(web.clone(), eth0()), &[]),
        (Damage::VethOffBridge(web.clone(), eth0()), &[]),
        (Damage::VethHairpin(web.clone(), eth0()), &[]),
        (Damage::VethMtu(web.clone(), eth0()), &[]),
        (Damage::InnerDown(web.clone(), eth0()), &[]),
        (Damage::InnerAddressRemoved(web.clone(), eth0()), &[]),
        (Damage::InnerRouteRemoved(db.clone(), eth0()), &[]),
        (Damage::InnerMac(web.clone(), eth0()), &[]),
        (Damage::LoopbackDown(web.clone()), &[]),
        (Damage::RulesFlushed, &[]),
        (Damage::RuleDeleted, &[]),
        (Damage::EndpointElementDeleted(net.clone()), &[]),
        (Damage::PortElementDeleted, &[]),
        (Damage::ForwardingOff, &[]),
        (Damage::LocalnetOff(net.clone()), &[]),
        (Damage::ZoneDeleted(net.clone()), &[]),
        (Damage::ZoneChanged(net.clone()), &[]),
        (Damage::LimitsChanged(web.clone()), &[]),
        (Damage::ProcessStrayed(web.clone()), &[]),
        (Damage::MountUnmounted(db.clone(), 0), &[]),
        (Damage::NetworkRecordDeleted(net.clone()), &[]),
        (
            Damage::VolumeRecordDeleted(ResourceKey {
                project: "shop".to_owned(),
                name: "shop_data".to_owned(),
            }),
            &[],
        ),
        (Damage::IdRecordDeleted("shop".to_owned()), &[]),
        (Damage::OverlayUnmounted(web.clone()), &["web"]),
        (Damage::UpperDeleted(web.clone()), &["web"]),
        (Damage::LayersDeleted("sha256:aaaa".to_owned()), &["db", "web"]),
        (Damage::ShimKilled(web.clone()), &["web"]),
        (Damage::ProcessKilled(db.clone(), 1), &["db"]),
    ]
}

fn others(pids: BTreeMap<InstanceKey, u32>, but: &[&str]) -> BTreeMap<InstanceKey, u32> {
    let kept = pids.into_iter();
    kept.filter(|(key, _)| !but.contains(&key.service.as_str()))
        .collect()
}

#[test]
fn each_damage_is_seen_and_put_right_and_nobody_else_is_touched() {
    for (damage, hurt) in repairable() {
        let mut host = Host::whole(1);
        let before = host.seen();
        let pids = others(host.drive.pids(), hurt);
        host.damage(&damage);
        let records = matches!(
            damage,
            Damage::NetworkRecordDeleted(_) | Damage::VolumeRecordDeleted(_) | Damage::IdRecordDeleted(_)
        );
        let hurt_now = host.seen() != before;
        assert!(hurt_now != records, "{damage:?} is not seen");
        host.settle();
        assert_eq!(others(host.drive.pids(), hurt), pids, "{damage:?}");
        assert_eq!(host.drive.pids().len(), 2, "{damage:?}");
        let after = host.seen();
        assert_eq!(after.networks, before.networks, "{damage:?}");
        assert_eq!(after.firewall, before.firewall, "{damage:?}");
        assert_eq!(after.zones, before.zones, "{damage:?}");
        assert_eq!(after.volumes, before.volumes, "{damage:?}");
        for instance in after.instances.known().unwrap().values() {
            assert_eq!(instance.drift, Vec::<String>::new(), "{damage:?}");
        }
    }
}

#[test]
fn a_volume_that_is_not_there_holds_its_service_until_it_is_back() {
    for damage in [
        Damage::VolumeMovedAway("shop_data".to_owned()),
        Damage::VolumeReplaced("shop_data".to_owned()),
    ] {
        let mut host = Host::whole(1);
        host.damage(&damage);
        host.damage(&Damage::ProcessKilled(key("db"), 1));
        host.settle();
        assert!(!host.drive.pids().contains_key(&key("db")), "{damage:?}");
        assert!(!host.drive.plan().waiting.is_empty());
        assert!(host.drive.host.world().mend());
        host.settle();
        assert!(host.drive.pids().contains_key(&key("db")), "{damage:?}");
        let world = host.drive.host.world();
        assert_eq!(world.directories["shop_data"].written, 2, "its own data");
    }
}

#[test]
fn any_accidents_together_are_put_right_once_what_no_agent_can_mend_is_mended() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(100) {
        let mut random = Random(seed);
        let mut host = Host::whole(seed);
        for _ in 0..6 {
            let damage = host.drive.host.world().possible_damage(&mut random);
            if let Some(damage) = damage {
                host.damage(&damage);
            }
            match random.below(8) {
                0 => {
                    host.drive.host.world().power_cut(&mut random);
                    host.drive.new_agent();
                }
                1 => {
                    host.drive.host.world().agent_dies();
                    host.drive.new_agent();
                }
                _ => {}
            }
            host.drive.pass();
            host.look();
            host.drive.host.advance(1_000);
        }
        while host.drive.host.world().mend() {}
        host.settle();
        assert_eq!(
            host.drive.pids().len(),
            2,
            "SEED {seed}: {}",
            plan::render(&host.drive.plan())
        );
        let world = host.drive.host.world();
        assert!(world.steps > 0 && world.violations.is_empty(), "SEED {seed}");
    }
}

#[test]
fn nothing_is_left_of_a_project_that_goes() {
    let mut host = Host::whole(3);
    host.drive.desired = Desired::default();
    host.watch.wants(&host.drive.desired);
    host.settle();
    let world = host.drive.host.world();
    assert!(world.instances.is_empty() && world.trees.is_empty() && world.bridges.is_empty());
    assert!(world.networks.is_empty() && world.zones.is_empty() && world.ended.is_empty());
    assert_eq!(world.firewall, Default::default());
    assert!(!world.ip_forward, "it was off before");
    assert_eq!(world.volumes.len(), 1, "the data stays");
}
