//! Names: zone files the agent writes, and the resolver every shim answers from.
