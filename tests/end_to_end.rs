//! The end-to-end tests: the real binary on the real kernel, each test with a host of its own.
//!
//! One program, so that everything is linked once. Without root, or where the kernel refuses what is
//! needed, each test says `skipped: reason`; with `STEAD_REQUIRE_KERNEL=1` that is a failure.

mod host;

mod agent_death;
mod attach;
mod attributes;
mod bad_manifests;
mod blkio;
mod cdi;
mod config;
mod configs;
mod contract;
mod cp;
mod edit;
mod examples;
mod exec_logs;
mod faults;
mod files;
mod harness;
mod hooks;
mod image_verbs;
mod images;
mod intents;
mod interfaces;
mod kill_sweep;
mod leaks;
mod lifecycle;
mod looks;
mod names;
mod output;
mod plan;
mod registry;
mod repair;
mod repair_host;
mod restart;
mod rollout;
mod secrecy;
mod security;
mod sharing;
mod shim_death;
mod single_agent;
mod tags;
mod truth;
mod why;
