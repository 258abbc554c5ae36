//! Whether what is stored still is what it was, and how what is damaged is brought anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use reconciler::observed::ImageConfig;
use rustix::fs::RenameFlags;

use super::{
    Store,
    list::{Stored, Survey},
    measure::HELD,
};
use crate::{
    chain,
    image::{
        ImageError, Reference,
        config::Digest,
        hello,
        layer::{self, Layer, LayerError},
        load, pull, recipe,
        source::Section,
    },
    records,
};

/// Something that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Digest of the image, by its configuration.
    pub image: String,
    /// `None`: it is about a document of the image.
    pub layer: Option<String>,
    /// In the layer; `None`: the layer or the document as a whole.
    pub path: Option<PathBuf>,
    pub what: String,
}

/// What was found of layers, which images share.
#[derive(Debug, Default)]
pub struct Checked(BTreeMap<Digest, Vec<(Option<PathBuf>, String)>>);

/// What a repair has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Where it came from.
    pub source: String,
    pub layers: Vec<String>,
    /// Device and inode of damaged directories that something running stands on still.
    pub held: BTreeSet<(u64, u64)>,
}

/// Where the parts of an image can be had again.
enum Origin {
    Registry(Arc<pull::Offer>, model::types::ImageName),
    File(Box<load::Loaded>),
}

impl Store {
    /// Reads all of an image: documents against their digests, layers against their recipes and diff ids. What is made
    /// of no documents (`builtin:hello`, `rootfs:`) has nothing to be compared with.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn verify(&self, image: &Stored, checked: &mut Checked) -> Result<Vec<Fault>, ImageError> {
        let _lease = self.lease()?;
        let fault = |what: String| Fault {
            image: image.digest.clone(),
            layer: None,
            path: None,
            what,
        };
        let digest = Digest::parse(&image.digest);
        let Some(digest) =
            digest.filter(|digest| image.digest != hello::DIGEST && !self.rootfs_file(digest).is_file())
        else {
            return Ok(Vec::new());
        };
        let Some((_, diff_ids)): Option<(ImageConfig, Vec<Digest>)> = self.stored_config(&digest) else {
            let there = self.blob(&digest).exists();
            return Ok(vec![fault(match there {
                true => "its configuration is damaged, so its layers are not known".to_owned(),
                false => "its configuration is missing, so its layers are not known".to_owned(),
            })]);
        };
        let mut faults = Vec::new();
        for diff_id in diff_ids.iter().collect::<BTreeSet<_>>() {
            if !checked.0.contains_key(diff_id) {
                let found = self.check_layer(diff_id);
                checked.0.insert(diff_id.clone(), found);
            }
            let of_layer = checked.0.get(diff_id).into_iter().flatten();
            faults.extend(of_layer.map(|(path, what)| Fault {
                layer: Some(diff_id.to_string()),
                path: path.clone(),
                ..fault(what.clone())
            }));
        }
        Ok(faults)
    }

    /// Documents that are not what their names say: of which image, they do not tell any more.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn damaged_documents(&self, survey: &Survey) -> Result<Vec<PathBuf>, ImageError> {
        let mut damaged = Vec::new();
        let documents = survey
            .parts
            .iter()
            .filter(|(_, part)| part.kind == super::Kind::Document);
        for (path, _) in documents {
            let full = self.directory.join(path);
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy())
                .unwrap_or_default();
            let sound = fs::read(&full).is_ok_and(|bytes| Digest::of(&bytes).hex() == name);
            if !sound && full.exists() {
                damaged.push(full);
            }
        }
        Ok(damaged)
    }

    fn check_layer(&self, diff_id: &Digest) -> Vec<(Option<PathBuf>, String)> {
        let layer = self.layer(diff_id);
        if !layer.is_dir() {
            return vec![(None, "it is missing".to_owned())];
        }
        match recipe::check(&self.recipe(diff_id), &layer, diff_id) {
            Ok(damages) => damages
                .into_iter()
                .map(|damage| {
                    let path = Some(damage.path).filter(|path| !path.as_os_str().is_empty());
                    (path, damage.what)
                })
                .collect(),
            Err(error) => vec![(None, chain(&error))],
        }
    }

    /// Brings the named layers of an image and its documents anew, from the registry by the digest that its name stood
    /// for, from the archive that its name says, or from `archive`, where it was loaded from one. A layer is swapped in one step. What containers have of the old one they keep: files
    /// under an overlay must not change, so its directory is set aside until nothing stands on it.
    ///
    /// # Errors
    /// It can be had nowhere any more: the last reason. What is damaged stays as it is then.
    pub fn repair(
        &self,
        image: &Stored,
        layers: &BTreeSet<String>,
        grounds: &BTreeSet<(u64, u64)>,
        archive: Option<&Path>,
    ) -> Result<Repaired, ImageError> {
        let _lease = self.lease()?;
        let mut last = ImageError::Missing {
            digest: image.digest.clone(),
        };
        if let Some(archive) = archive {
            let found = self.contents(archive)?.into_iter().map(|one| one.loaded);
            if let Some(loaded) = found
                .into_iter()
                .find(|one| one.digest.to_string() == image.digest)
            {
                let source = archive.display().to_string();
                return self.repair_from(&source, Origin::File(Box::new(loaded)), layers, grounds);
            }
        }
        for name in image.all_names() {
            match self.origin(name, &image.digest) {
                Ok(origin) => {
                    return self.repair_from(name, origin, layers, grounds);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn origin(&self, name: &str, digest: &str) -> Result<Origin, ImageError> {
        let reference: Reference = name.parse()?;
        let changed = |found: String| ImageError::Changed {
            reference: name.to_owned(),
            expected: digest.to_owned(),
            found,
        };
        match &reference {
            Reference::Registry(image) => {
                let mut pinned = image.clone();
                if let Some(manifest) = self.pinned_manifest(name, digest)? {
                    pinned.digest = Some(manifest);
                }
                let offer = self.offer(&pinned)?;
                super::lock(&self.offers).remove(&pinned);
                match offer.digest.to_string() {
                    found if found == digest => Ok(Origin::Registry(offer, pinned)),
                    found => Err(changed(found)),
                }
            }
            _ => {
                let loaded = load::load(&reference, &self.limits)?;
                match loaded.digest.to_string() {
                    found if found == digest => Ok(Origin::File(Box::new(loaded))),
                    found => Err(changed(found)),
                }
            }
        }
    }

    fn repair_from(
        &self,
        name: &str,
        origin: Origin,
        layers: &BTreeSet<String>,
        grounds: &BTreeSet<(u64, u64)>,
    ) -> Result<Repaired, ImageError> {
        let mut repaired = Repaired {
            source: name.to_owned(),
            ..Repaired::default()
        };
        let (damaged, config, manifest) = match origin {
            Origin::File(loaded) => (loaded.layers, (loaded.digest, loaded.config), loaded.manifest),
            Origin::Registry(offer, pinned) => {
                let fetched = self.fetch_again(&pinned, &offer, layers)?;
                let config = (offer.digest.clone(), offer.config.clone());
                (fetched, config, Some(offer.manifest.clone()))
            }
        };
        let mut seen = BTreeSet::new();
        for one in damaged {
            let diff_id = one.diff_id.clone();
            // Where the configuration was damaged, it is not known which; those that are missing are brought as well.
            let wanted = layers.contains(&diff_id.to_string()) || !self.layer(&diff_id).is_dir();
            if !wanted || !seen.insert(diff_id.clone()) {
                continue;
            }
            let held = self.swap(one, grounds).map_err(|source| ImageError::Layer {
                reference: name.to_owned(),
                layer: diff_id.to_string(),
                source,
            })?;
            repaired.held.extend(held);
            repaired.layers.push(diff_id.to_string());
        }
        if let Some(manifest) = manifest {
            self.write(&self.blob(&Digest::of(&manifest)), &manifest)?;
        }
        self.write(&self.blob(&config.0), &config.1)?;
        Ok(repaired)
    }

    fn fetch_again(
        &self,
        name: &model::types::ImageName,
        offer: &pull::Offer,
        layers: &BTreeSet<String>,
    ) -> Result<Vec<Layer>, ImageError> {
        let wanted = offer
            .layers
            .iter()
            .filter(|one| layers.contains(&one.diff_id.to_string()) || !self.layer(&one.diff_id).is_dir());
        let mut seen = BTreeSet::new();
        let wanted: Vec<pull::Layer> = wanted.filter(|one| seen.insert(&one.diff_id)).cloned().collect();
        let directory = self.directory.join("pull");
        let size = wanted.iter().fold(0u64, |sum, one| sum.saturating_add(one.size));
        let progress = self.pulls.begin(name.to_string(), size, wanted.len());
        let client = Arc::new(self.client(name)?);
        pull::run(
            pull::layers(client, name, &wanted, &directory, None, &progress),
            name,
        )?;
        let sections = wanted.into_iter().map(|one| {
            let path = directory.join(one.digest.hex());
            let section = Section::whole(&path);
            let layer = section.map(|section| Layer {
                section,
                blob: Some((one.digest, one.size)),
                diff_id: one.diff_id,
            });
            // Read on from the open file.
            let _ = fs::remove_file(&path);
            layer.map_err(|source| ImageError::Store { path, source })
        });
        sections.collect()
    }

    /// Unpacks beside what is there and exchanges the two. What was there goes, unless something stands on it.
    fn swap(&self, layer: Layer, grounds: &BTreeSet<(u64, u64)>) -> Result<Option<(u64, u64)>, LayerError> {
        use std::os::unix::fs::MetadataExt;
        let target = self.layer(&layer.diff_id);
        let failed = |source: std::io::Error| LayerError::Store {
            path: target.clone(),
            source,
        };
        let work = layer::prepare(layer, &target, &self.limits, &AtomicBool::new(false))?;
        work.sync()?;
        let old = match fs::symlink_metadata(&target) {
            Ok(metadata) => (metadata.dev(), metadata.ino()),
            Err(_) => return work.publish().map(|()| None),
        };
        let (recipe, written) = (layer::recipe_of(&target), recipe::written(&work.path));
        let cwd = rustix::fs::CWD;
        records::make_private(recipe.parent().unwrap_or(&self.directory))
            .and_then(|()| fs::rename(written, &recipe))
            .and_then(|()| {
                Ok(rustix::fs::renameat_with(
                    cwd,
                    work.tree(),
                    cwd,
                    &target,
                    RenameFlags::EXCHANGE,
                )?)
            })
            .map_err(failed)?;
        let held = grounds.contains(&old);
        if held {
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            let aside = target.with_file_name(format!("{HELD}{name}.{}-{}", old.0, old.1));
            fs::rename(work.tree(), aside).map_err(failed)?;
        }
        records::sync_directory(target.parent().unwrap_or(&self.directory)).map_err(failed)?;
        // With `work` goes what is in it.
        Ok(held.then_some(old))
    }
}
