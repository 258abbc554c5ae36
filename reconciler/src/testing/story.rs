//! Projects in a few lines, for tests: a small language instead of Compose files.
