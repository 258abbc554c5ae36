//! Keys that mean "leave" in what is typed: `ctrl-p,ctrl-q`, as docker writes them.

/// A sequence, and how much of it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    sequence: Vec<u8>,
    matched: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no key; write letters and ctrl-LETTER with commas between, like ctrl-p,ctrl-q")]
pub struct KeysError(String);

impl Default for Keys {
    fn default() -> Self {
        Keys {
            sequence: vec![0x10, 0x11],
            matched: 0,
        }
    }
}

impl std::str::FromStr for Keys {
    type Err = KeysError;

    fn from_str(text: &str) -> Result<Self, KeysError> {
        let sequence = text.split(',').map(|key| {
            let wrong = || KeysError(key.to_owned());
            match (key.strip_prefix("ctrl-"), key.as_bytes()) {
                (Some(letter), _) => match letter.as_bytes() {
                    [letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Ok(letter & 0x1f),
                    _ => Err(wrong()),
                },
                (None, [byte]) => Ok(*byte),
                _ => Err(wrong()),
            }
        });
        Ok(Keys {
            sequence: sequence.collect::<Result<_, _>>()?,
            matched: 0,
        })
    }
}

impl Keys {
    /// Nothing means "leave".
    pub fn none() -> Self {
        Keys {
            sequence: Vec::new(),
            matched: 0,
        }
    }

    /// What of `typed` goes on, and whether the sequence is whole. Its beginning is held back until it is
    /// known to be none.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.sequence.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    self.matched = 0;
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.sequence[..self.matched]);
            self.matched = 0;
            if self.sequence.first() == Some(byte) {
                self.matched = 1;
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_pieces_and_pass_where_they_are_none() {
        let mut keys = Keys::default();
        for (typed, out, leave) in [
            (&b"ab"[..], &b"ab"[..], false),
            (b"\x10", b"", false),
            (b"c", b"\x10c", false),
            (b"\x10\x10", b"\x10", false),
            (b"x\x11", b"\x10x\x11", false),
            (b"\x10", b"", false),
            (b"\x11z", b"", true),
        ] {
            assert_eq!(keys.filter(typed), (out.to_vec(), leave), "{typed:?}");
        }
        assert_eq!(Keys::none().filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
        let mut one: Keys = "ctrl-],q".parse().unwrap();
        assert_eq!(one.filter(b"a\x1dq"), (b"a".to_vec(), true));
        for wrong in ["", "ctrl-", "ctrl-1", "ab", "ctrl-p,"] {
            assert!(wrong.parse::<Keys>().is_err(), "{wrong:?}");
        }
    }
}
