//! The records of a PAX extension header (POSIX pax, "pax Extended Header").

use std::collections::BTreeMap;

pub(super) fn number(records: &BTreeMap<Vec<u8>, Vec<u8>>, key: &str) -> Result<Option<u64>, String> {
    let Some(text) = records.get(key.as_bytes()) else {
        return Ok(None);
    };
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    match std::str::from_utf8(text)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok())
    {
        Some(number) => Ok(Some(number)),
        None => Err(format!("its PAX {key} is not a number")),
    }
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
pub(super) fn parse(mut data: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
    let mut records = BTreeMap::new();
    while !data.is_empty() {
        let malformed = || "malformed PAX record".to_owned();
        let space = data
            .iter()
            .take(8)
            .position(|byte| *byte == b' ')
            .ok_or_else(malformed)?;
        let digits = &data[..space];
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(malformed());
        }
        let length: usize = std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(malformed)?;
        let record = data.get(space + 1..length).ok_or_else(malformed)?;
        let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(malformed)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() {
            return Err(malformed());
        }
        if records.insert(key.to_vec(), value.to_vec()).is_some() {
            return Err(format!(
                "PAX record {} appears twice",
                String::from_utf8_lossy(key)
            ));
        }
        data = &data[length..];
    }
    Ok(records)
}
