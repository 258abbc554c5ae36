//! The records of a PAX extension header (POSIX pax, "pax Extended Header").

use std::collections::BTreeMap;

/// Of one extension header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    pub plain: BTreeMap<Vec<u8>, Vec<u8>>,
    /// `GNU.sparse.offset` and `GNU.sparse.numbytes`, the only ones that come again and again.
    pub parts: Vec<(u64, u64)>,
}

impl Records {
    pub fn get(&self, key: &[u8]) -> Option<&Vec<u8>> {
        self.plain.get(key)
    }
}

pub(super) fn number(records: &Records, key: &str) -> Result<Option<u64>, String> {
    let Some(text) = records.get(key.as_bytes()) else {
        return Ok(None);
    };
    match digits(text) {
        Some(number) => Ok(Some(number)),
        None => Err(format!("its PAX {key} is not a number")),
    }
}

/// Decimal digits and nothing else.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    let all = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| all)?.parse().ok()
}

/// `seconds[.fraction]`, perhaps negative.
pub(super) fn timestamp(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut whole: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    if text.starts_with('-') && nanos > 0 {
        whole = whole.checked_sub(1)?;
        nanos = 1_000_000_000 - nanos;
    }
    Some((whole, nanos))
}

/// `LENGTH KEY=VALUE\n`, LENGTH counting all of it.
pub(super) fn parse(mut data: &[u8]) -> Result<Records, String> {
    let mut records = Records::default();
    // The offset whose length must come next.
    let mut offset = None;
    while !data.is_empty() {
        let malformed = || "malformed PAX record".to_owned();
        let space = data
            .iter()
            .take(8)
            .position(|byte| *byte == b' ')
            .ok_or_else(malformed)?;
        let length =
            (digits(&data[..space]).and_then(|length| usize::try_from(length).ok())).ok_or_else(malformed)?;
        let record = data.get(space + 1..length).ok_or_else(malformed)?;
        let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(malformed)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        // Values may be bytes; keys are words.
        if key.is_empty() || std::str::from_utf8(key).is_err() {
            return Err(malformed());
        }
        if offset.is_some() || matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            let number = digits(value).ok_or_else(malformed)?;
            match (key, offset.take()) {
                (b"GNU.sparse.offset", None) => offset = Some(number),
                (b"GNU.sparse.numbytes", Some(offset)) => records.parts.push((offset, number)),
                _ => return Err(malformed()),
            }
        } else if records.plain.insert(key.to_vec(), value.to_vec()).is_some() {
            return Err(format!(
                "PAX record {} appears twice",
                String::from_utf8_lossy(key)
            ));
        }
        data = &data[length..];
    }
    if offset.is_some() {
        return Err("malformed PAX record".to_owned());
    }
    Ok(records)
}
