//! What went wrong before, so that the next try waits.

/// Failures by key. Lost with the agent: a new one tries at once.
#[derive(Debug, Clone, Default)]
pub struct Memory {}
