//! The table: networks, and how a service takes part in them.

use super::parts::*;
use crate::shape::{Form, Keys, Object, Shape, Zero};

pub const NETWORK_OR_NULL: Shape = Shape::OneOf(&[Shape::Object(&NETWORK), Shape::Null]);
pub const ATTACHMENTS: Shape = Shape::OneOf(&[
    UNIQUE_TEXTS,
    names(
        Keys::Names,
        &Shape::OneOf(&[Shape::Object(&ATTACHMENT), Shape::Null]),
    ),
]);
pub const EXTERNAL: Shape = Shape::OneOf(&[Shape::Bool, Shape::Text, Shape::Object(&EXTERNAL_NAME)]);

#[rustfmt::skip]
const NETWORK: Object = object(&[
    text("name", "Name of the network, used as it is, without the project's name"),
    text("driver", "How the network is made; `bridge` if nothing is said"),
    field("driver_opts", OPTIONS, Form::Labels, "Options of the driver"),
    section("ipam", &IPAM, "Which addresses the network has"),
    field("external", EXTERNAL, Form::Bool(Zero::Omit), "The network exists already and is not managed here").cast(),
    switch("internal", "No way from this network to the outside").cast(),
    field("enable_ipv4", BOOL_OR_TEXT, Form::Bool(Zero::Keep), "Whether IPv4 addresses are given").cast(),
    field("enable_ipv6", BOOL_OR_TEXT, Form::Bool(Zero::Keep), "Whether IPv6 addresses are given").cast(),
    switch("attachable", "Containers of others may join (swarm)").cast(),
    labels("labels", "Labels of the network"),
]);

#[rustfmt::skip]
const EXTERNAL_NAME: Object = object(&[
    text("name", "Deprecated: write `name` beside `external: true`"),
]);

#[rustfmt::skip]
const IPAM: Object = object(&[
    text("driver", "How addresses are managed; `default` if nothing is said"),
    field("config", list(&Shape::Object(&POOL)), Form::Parts, "The subnets"),
    field("options", names(Keys::Line, &Shape::Text), Form::Labels, "Options of the driver"),
]);

#[rustfmt::skip]
const POOL: Object = object(&[
    text("subnet", "The subnet, like `10.1.0.0/16`"),
    text("ip_range", "Part of the subnet that addresses are taken from"),
    text("gateway", "Address of the gateway"),
    field("aux_addresses", names(Keys::Line, &Shape::Text), Form::Labels, "Addresses that others use, by host name"),
]);

#[rustfmt::skip]
const ATTACHMENT: Object = object(&[
    texts("aliases", "Further names of the service on this network"),
    text("interface_name", "Name of the interface in the container"),
    text("ipv4_address", "Fixed IPv4 address, out of a subnet that the network declares"),
    text("ipv6_address", "Fixed IPv6 address, out of a subnet that the network declares"),
    texts("link_local_ips", "Further link-local addresses"),
    text("mac_address", "Hardware address of the interface"),
    field("driver_opts", OPTIONS, Form::Labels, "Options of the network's driver for this interface"),
    field("priority", Shape::Number, Form::Int(Zero::Omit), "Networks are joined in this order, the highest first"),
    field("gw_priority", Shape::Number, Form::Int(Zero::Omit), "The network with the highest has the default route"),
]);
