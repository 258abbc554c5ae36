//! What happened, as a number that two runs of one seed must share, and as lines for people.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
};

use crate::converge::Note;

/// FNV-1a, 64 bits: the same on every machine and in every build.
#[derive(Debug, Clone)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.byte(*byte));
    }

    // The same whatever the width and the byte order of the machine.
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 ^= self.0 >> 29;
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }
}

/// How much of a run is kept as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    None,
    /// The last ones.
    Last(usize),
    /// Each is printed as it comes.
    Print,
}

#[derive(Debug)]
pub struct Trace {
    hash: Fnv,
    lines: Lines,
    kept: VecDeque<String>,
}

impl Trace {
    pub fn new(lines: Lines) -> Self {
        Trace {
            hash: Fnv::default(),
            lines,
            kept: VecDeque::new(),
        }
    }

    /// Something happened at `at`. The text is made only where somebody reads it.
    pub fn note(&mut self, at: u64, what: impl Hash, text: impl FnOnce() -> String) {
        self.hash.write_u64(at);
        what.hash(&mut self.hash);
        let limit = match self.lines {
            Lines::None => return,
            Lines::Print => 0,
            Lines::Last(limit) => limit,
        };
        let line = format!("{:>10}.{:03} {}", at / 1000, at % 1000, text());
        if limit == 0 {
            println!("{line}");
            return;
        }
        if self.kept.len() == limit {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }

    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub fn into_lines(self) -> Vec<String> {
        self.kept.into()
    }
}

pub fn note_text(note: &Note) -> String {
    match note {
        Note::Good { project, good } => format!("{project} is good at {}", good.revision),
        Note::Barred { project, barred } => match barred {
            Some(barred) => format!("{project}: {} is barred: {}", barred.revision, barred.why),
            None => format!("{project}: nothing is barred"),
        },
    }
}
