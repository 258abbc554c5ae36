//! Single values of a canonical tree: scalars, lists, mappings.

use std::{collections::BTreeMap, fmt::Display, ops::RangeInclusive, str::FromStr};

use super::Reader;
use crate::{
    syntax::cut,
    tree::{At, Node, Value},
    types::{Duration, ParseDurationError},
};

/// A value and its path, as messages show it: `services.web.ports[0]`.
#[derive(Debug, Clone)]
pub(super) struct Place<'n> {
    pub node: &'n Node,
    pub path: String,
}

impl<'n> Place<'n> {
    pub fn new(node: &'n Node, path: String) -> Self {
        Place { node, path }
    }

    /// A value of a mapping that is there and not null.
    pub fn get(&self, key: &str) -> Option<Place<'n>> {
        let node = self.node.get(key).filter(|node| !node.is_null())?;
        Some(Place::new(node, self.below(key)))
    }

    /// The values of a mapping, also those that are null.
    pub fn entries(&self) -> impl Iterator<Item = (&'n str, At, Place<'n>)> {
        self.node.entries().iter().map(|entry| {
            let place = Place::new(&entry.value, self.below(&entry.key));
            (entry.key.as_str(), entry.at, place)
        })
    }

    pub fn items(&self) -> impl Iterator<Item = Place<'n>> {
        let items = self.node.items().iter().enumerate();
        items.map(|(index, item)| Place::new(item, format!("{}[{index}]", self.path)))
    }

    /// The items of a list below.
    pub fn list(&self, key: &str) -> Vec<Place<'n>> {
        self.get(key).map_or_else(Vec::new, |list| list.items().collect())
    }

    pub fn scalar(&self) -> Option<String> {
        self.node.value.scalar()
    }

    /// Text that is there and not empty.
    pub fn word(&self, key: &str) -> Option<String> {
        self.get(key)?.scalar().filter(|text| !text.is_empty())
    }

    pub fn words(&self, key: &str) -> Vec<String> {
        let items = self.list(key).into_iter();
        items.filter_map(|item| item.scalar()).collect()
    }

    pub fn flag(&self, key: &str) -> bool {
        self.get(key)
            .is_some_and(|flag| flag.node.value == Value::Bool(true))
    }

    /// A mapping of texts; null is empty text.
    pub fn texts_by_name(&self, key: &str) -> BTreeMap<String, String> {
        let texts = self.optional_texts(key).into_iter();
        texts
            .map(|(name, text)| (name, text.unwrap_or_default()))
            .collect()
    }

    /// A mapping of texts and nulls.
    pub fn optional_texts(&self, key: &str) -> BTreeMap<String, Option<String>> {
        let Some(map) = self.get(key) else {
            return BTreeMap::new();
        };
        let entries = map.entries();
        entries
            .map(|(name, _, value)| (name.to_owned(), value.scalar()))
            .collect()
    }

    fn below(&self, key: &str) -> String {
        if self.path.is_empty() {
            cut(key)
        } else {
            format!("{}.{}", self.path, cut(key))
        }
    }
}

impl Reader<'_> {
    pub(super) fn refuse(&mut self, place: &Place, what: impl Display, hint: &str) {
        let message = format!("`{}`: {what}", place.path);
        self.report.refuse(place.node.at, message, hint);
        if !self.report.full() {
            self.refused.insert(place.path.clone());
        }
    }

    /// What the types hold under `key` of `place` was written under `own` of `other`.
    pub(super) fn stands_in(&mut self, other: &Place, own: &str, place: &Place, key: &str) {
        let at = self.report.origins.get(&format!("{}.{own}", other.path));
        if let Some(at) = at.copied() {
            self.report.origin(format!("{}.{key}", place.path), at);
        }
    }

    /// A scalar of a type that says itself what is wrong. Empty text is nothing.
    pub(super) fn parsed<T>(&mut self, place: &Place, key: &str, hint: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        let place = place.get(key)?;
        self.parse(&place, hint)
    }

    pub(super) fn parse<T>(&mut self, place: &Place, hint: &str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        let text = place.scalar().filter(|text| !text.is_empty())?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                // The text is in the error, and may be long.
                let error = if text.chars().count() > 60 {
                    cut(&text).parse::<T>().err().unwrap_or(error)
                } else {
                    error
                };
                self.refuse(place, error, hint);
                None
            }
        }
    }

    /// The items of a list, those left out that are refused.
    pub(super) fn all_parsed<T>(&mut self, place: &Place, key: &str, hint: &str) -> Vec<T>
    where
        T: FromStr<Err: Display>,
    {
        let items = place.list(key).into_iter();
        items.filter_map(|item| self.parse(&item, hint)).collect()
    }

    /// A whole number within a range.
    pub(super) fn number<T: TryFrom<i128>>(
        &mut self,
        place: &Place,
        key: &str,
        range: RangeInclusive<i128>,
    ) -> Option<T> {
        let place = place.get(key)?;
        let text = place.scalar().filter(|text| !text.is_empty())?;
        let number = text.parse().ok().filter(|number: &i128| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            let hint = if *most >= i128::from(i64::MAX) {
                format!("write a whole number from {least}")
            } else {
                format!("write a whole number from {least} to {most}")
            };
            self.refuse(&place, format!("`{}` is out of range", cut(&text)), &hint);
        }
        number
    }

    /// Bytes; 0 is nothing.
    pub(super) fn bytes(&mut self, place: &Place, key: &str) -> Option<u64> {
        self.number(place, key, 0..=i128::from(i64::MAX))
            .filter(|bytes| *bytes > 0)
    }

    /// Zero is "not said" in the Engine API.
    pub(super) fn duration(&mut self, place: &Place, key: &str) -> Option<Duration> {
        self.exact_duration(place, key).filter(|duration| duration.0 > 0)
    }

    pub(super) fn exact_duration(&mut self, place: &Place, key: &str) -> Option<Duration> {
        let place = place.get(key)?;
        let text = place.scalar().filter(|text| !text.is_empty())?;
        match text.parse() {
            Ok(duration) => Some(duration),
            Err(error) => {
                let what = match &error {
                    ParseDurationError::Negative(text) => format!("`{}` is negative", cut(text)),
                    _ => format!("`{}` is no time that can be waited for", cut(&text)),
                };
                self.refuse(&place, what, "write numbers with units, like `1m30s` or `500ms`");
                None
            }
        }
    }
}
