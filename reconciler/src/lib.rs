//! What should happen next: pure decisions, and the loop that carries them out.
//!
//! ```text
//!   Desired ─┐
//!   Observed ┼─► plan() ─► Plan { changes, steps, waiting } ─► execute ─► Backend::apply
//!   Memory  ─┘     ▲                                                        │
//!                  └────────────── Backend::observe ◄───────────────────────┘
//! ```

#[macro_use]
pub mod planted;

pub mod ability;
pub mod backoff;
pub mod compare;
pub mod converge;
mod derive;
pub mod desired;
pub mod execute;
pub mod gate;
pub mod journal;
pub mod key;
mod look;
pub mod memory;
pub mod observed;
pub mod plan;
pub mod port;
pub mod pull;
pub mod restart;
pub mod rollout;
pub mod spec;
pub mod status;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
