//! How long the steps of a start take, printed.

use std::os::fd::AsFd;

use crate::{
    rig::{Space, median, on_a_host},
    shop,
};

#[test]
fn how_long_it_takes() {
    on_a_host(|| {
        let mut root = shop("a0000d");
        let spec = root.sandboxes["web"].1.clone();
        let spaces: Vec<Space> = (0..20).map(|_| Space::new()).collect();
        let attach = median(|turn| {
            let mut key = spec.key.clone();
            key.index = turn + 10;
            let mut endpoint = spec.endpoints[0].clone();
            endpoint.address = std::net::Ipv4Addr::new(10, 64, 1, 100 + turn as u8);
            endpoint.mac[5] = 100 + turn as u8;
            root.net
                .attach(&key, &endpoint, true, spaces[turn as usize].fd.as_fd())
                .unwrap();
        });
        let resolver = median(|turn| {
            root.net
                .prepare_resolver(spaces[turn as usize].fd.as_fd(), 4000)
                .unwrap();
        });
        let change = median(|turn| {
            root.publish("0.0.0.0", 20000 + turn as u16, "web");
            root.sync();
        });
        let tcp_only = median(|turn| {
            let target = root
                .spec
                .ports
                .iter()
                .next()
                .map(|(key, target)| (*key, *target))
                .unwrap();
            let key = reconciler::spec::PublishKey {
                published: 30000 + turn as u16,
                protocol: reconciler::spec::Protocol::Tcp,
                ..target.0
            };
            root.spec.ports.insert(key, target.1);
            root.sync();
        });
        let nothing = median(|_| root.sync());
        let observe = median(|_| drop(root.firewall.observe().unwrap()));
        println!(
            "median of 20: attach {attach} us, resolver {resolver} us, publish {change} us, TCP only {tcp_only} us, sync without a change \
             {nothing} us, observe {observe} us"
        );
    });
}
