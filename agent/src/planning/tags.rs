//! Tags that stand for another image in their registry than on this host, as `plan` tells of them.

use std::collections::{BTreeMap, BTreeSet};

use reconciler::{observed::Fact, pull};
use serde::Serialize;

use super::Images;
use model::types::Service;

/// One name, and who runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tag {
    pub image: String,
    /// `PROJECT/SERVICE`, of those that keep what they have.
    pub services: BTreeSet<String>,
    pub digest: String,
    /// What the tag stands for now; `None`: that is not known.
    pub latest: Option<String>,
    /// Why it is not.
    pub unknown: Option<String>,
}

/// Of those who do not follow their tag, what they pass by; of all, what could not be asked.
pub fn tags<'s>(services: impl Iterator<Item = (String, &'s Service)>, images: &Images) -> Vec<Tag> {
    let mut tags: BTreeMap<&str, Tag> = BTreeMap::new();
    for (name, service) in services {
        let Some(Fact::Known(image)) = images.get(&service.image) else {
            continue;
        };
        let unknown = image.asked.as_ref().and_then(|asked| asked.failed.clone());
        let latest = image.latest.as_ref().filter(|_| !pull::follows(service));
        if unknown.is_none() && latest.is_none() {
            continue;
        }
        let tag = tags.entry(&service.image).or_insert_with(|| Tag {
            image: service.image.clone(),
            services: BTreeSet::new(),
            digest: image.digest.clone(),
            latest: latest.map(|latest| latest.digest.clone()),
            unknown,
        });
        tag.services.insert(name);
    }
    tags.into_values().collect()
}

/// For people, a line each.
pub fn render(tags: &[Tag]) -> String {
    let lines = tags.iter().map(|tag| {
        let services: Vec<&str> = tag.services.iter().map(String::as_str).collect();
        let (image, services) = (&tag.image, services.join(", "));
        match (&tag.unknown, &tag.latest) {
            (Some(why), _) => format!("tag       {image} ({services}): whether it has moved is not known: {why}\n"),
            (None, Some(latest)) => format!(
                "tag       {image} ({services}) stands for {} in its registry now, and for {} here; `stead image pull \
                 {image}` takes the new one\n",
                short(latest),
                short(&tag.digest)
            ),
            (None, None) => String::new(),
        }
    });
    lines.collect()
}

fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use reconciler::observed::{Asked, Image};

    use super::*;

    fn service(policy: &str) -> Service {
        let value = serde_json::json!({"image": "app:1", "networks": {}, "pull_policy": policy});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_tag_that_has_moved_is_told_to_those_who_do_not_follow_it() {
        let image = |digest: &str| Image::new(format!("sha256:{digest:a<64}"), true, Default::default());
        let stands = image("1");
        let moved = Image {
            latest: Some(Box::new(image("2"))),
            ..stands.clone()
        };
        let unknown = Image {
            asked: Some(Asked {
                at: 0,
                failed: Some("nobody is at home".to_owned()),
            }),
            ..stands.clone()
        };
        let told = "tag       app:1 (shop/web) stands for sha256:2aaaaaaaaaaa in its registry now, and for \
                    sha256:1aaaaaaaaaaa here; `stead image pull app:1` takes the new one\n";
        let asked = "tag       app:1 (shop/web): whether it has moved is not known: nobody is at home\n";
        for (image, policy, text) in [
            (&stands, "missing", ""),
            (&moved, "missing", told),
            (&moved, "never", told),
            (&moved, "daily", ""),
            (&unknown, "missing", asked),
            (&unknown, "daily", asked),
        ] {
            let images = Images::from([("app:1".to_owned(), Fact::Known(image.clone()))]);
            let service = service(policy);
            let tags = tags([("shop/web".to_owned(), &service)].into_iter(), &images);
            assert_eq!(render(&tags), text, "{policy}");
        }
    }
}
