//! Attacks on the walls of a container, and what the probe says of them. `SEC-nn`: the known flaw that a test
//! is about; see docs/security.md.

mod probe;
