//! An image of a registry: what its name stands for, and its layers as files, each begun anew where it broke off.

pub(super) mod part;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use model::types::ImageName;
use reconciler::observed::ImageConfig;
use tokio::{task::JoinSet, time::sleep};

use part::Part;

use super::{
    ImageError, Limits,
    config::{Configuration, Descriptor, Digest, Document},
    load,
    progress::Pull,
};
use crate::{
    records,
    registry::{Client, ClientError, SettingsError, transport::TransportError},
};

/// Layers that are fetched at once.
const AT_ONCE: usize = 3;
/// A transfer that breaks is begun again at once as long as it brings something, and so often when it does not.
const ATTEMPTS: u32 = 4;
/// How long is waited before the first of these; each further one waits twice as long.
const DELAY: Duration = Duration::from_secs(1);
/// Who wants to be waited for longer is asked again by the next look.
const LONGEST: Duration = Duration::from_secs(60);

/// An image as its registry offers it now, without its layers.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    /// What the name stood for: an index or a manifest.
    pub reference: Digest,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    /// Digest of `config`: what the image is known by.
    pub digest: Digest,
    /// The lowest first.
    pub layers: Vec<Layer>,
}

/// A layer as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    /// Of its compressed bytes.
    pub digest: Digest,
    /// How many those are.
    pub size: u64,
    /// Digest of its tar stream.
    pub diff_id: Digest,
}

impl Offer {
    /// What a container of it is by default.
    pub fn runtime(&self) -> ImageConfig {
        let configuration = serde_json::from_slice::<Configuration>(&self.config);
        configuration.map(Configuration::runtime).unwrap_or_default()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Registry(#[from] ClientError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("layer {digest} has {found} bytes, not {expected}; ask whoever runs the registry")]
    Size {
        digest: String,
        expected: u64,
        found: u64,
    },
    #[error("layer {expected} came as {found}, twice; ask whoever runs the registry")]
    Digest { expected: String, found: String },
    #[error("cannot write {path}; check free space and permissions", path = path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the registry says nothing for {0:?}; it is asked again")]
    Slow(Duration),
    #[error("a thread for the transfer cannot be had; check the limits of the agent")]
    Runtime(#[source] io::Error),
}

impl PullError {
    pub fn may_pass(&self) -> bool {
        match self {
            PullError::Registry(error) => error.may_pass(),
            PullError::Size { .. } | PullError::Digest { .. } => false,
            PullError::Settings(_) | PullError::Write { .. } | PullError::Slow(_) | PullError::Runtime(_) => {
                true
            }
        }
    }
}

/// Runs a transfer to its end, on this thread.
pub(super) fn run<T>(
    transfer: impl Future<Output = Result<T, ImageError>>,
    name: &ImageName,
) -> Result<T, ImageError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(name)(PullError::Runtime(error)))?;
    runtime.block_on(transfer)
}

pub(super) fn failed<E: Into<PullError>>(name: &ImageName) -> impl Fn(E) -> ImageError {
    move |source| ImageError::Pull {
        reference: name.to_string(),
        source: Box::new(source.into()),
    }
}

/// From the name to manifest and configuration for this host; of the layers only what they are.
///
/// # Errors
/// Nobody has it; it is malformed, beyond a limit, for another platform, or not of its digest.
pub(super) async fn offer(client: &Client, name: &ImageName, limits: &Limits) -> Result<Offer, ImageError> {
    let format = |why: String| ImageError::Format {
        reference: name.to_string(),
        why,
    };
    let reference = name.digest.as_deref().or(name.tag.as_deref()).unwrap_or("latest");
    let mut manifest = client
        .manifest(name, reference, limits.manifest)
        .await
        .map_err(failed(name))?;
    let reference = manifest.digest.clone();
    // What the index calls it.
    let mut described: Option<String> = None;
    for _ in 0..4 {
        let document: Document = serde_json::from_slice(&manifest.bytes)
            .map_err(|error| format(format!("its manifest is malformed: {error}")))?;
        let told = manifest.media_type.as_deref();
        let told = told.map(|told| told.split(';').next().unwrap_or(told).trim());
        if let (Some(own), Some(told)) = (document.media_type.as_deref(), told)
            && own != told
        {
            return Err(format(format!(
                "its manifest is called {told} but calls itself {own}"
            )));
        }
        let kinds = [told, described.as_deref(), document.media_type.as_deref()];
        for kind in kinds.into_iter().flatten() {
            if is_index(kind).is_some_and(|index| index != document.manifests.is_some()) {
                return Err(format(format!("its manifest is called {kind}, but is not one")));
            }
        }
        match (document.manifests, document.config, document.layers) {
            (Some(manifests), None, None) => {
                let chosen = load::choose(manifests, None).map_err(format)?;
                let digest = parsed(&chosen.digest).map_err(format)?.to_string();
                manifest = client
                    .manifest(name, &digest, limits.manifest)
                    .await
                    .map_err(failed(name))?;
                described = Some(chosen.media_type);
                if manifest.bytes.len() as u64 != chosen.size {
                    let (wanted, found) = (chosen.size, manifest.bytes.len());
                    return Err(format(format!(
                        "its manifest should have {wanted} bytes but has {found}"
                    )));
                }
            }
            (None, Some(config), Some(layers)) => {
                return complete(
                    client,
                    name,
                    limits,
                    (reference, manifest.bytes),
                    &config,
                    &layers,
                )
                .await;
            }
            _ => {
                return Err(format(
                    "its manifest is neither an index nor an image manifest".to_owned(),
                ));
            }
        }
    }
    Err(format("its indexes are nested too deeply".to_owned()))
}

/// What a manifest is by its name; `None`: nobody knows.
fn is_index(media_type: &str) -> Option<bool> {
    match media_type {
        "application/vnd.oci.image.index.v1+json"
        | "application/vnd.docker.distribution.manifest.list.v2+json" => Some(true),
        "application/vnd.oci.image.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v2+json" => Some(false),
        _ => None,
    }
}

async fn complete(
    client: &Client,
    name: &ImageName,
    limits: &Limits,
    (reference, manifest): (Digest, Vec<u8>),
    config: &Descriptor,
    layers: &[Descriptor],
) -> Result<Offer, ImageError> {
    let format = |why: String| ImageError::Format {
        reference: name.to_string(),
        why,
    };
    let foreign = |layer: &&Descriptor| {
        ["foreign", "nondistributable"]
            .iter()
            .any(|word| layer.media_type.contains(word))
    };
    if let Some(layer) = layers.iter().find(foreign) {
        return Err(format(format!(
            "its layer {} is to be had elsewhere only, and is not fetched",
            layer.digest
        )));
    }
    let digest = parsed(&config.digest).map_err(format)?;
    if config.size > limits.config {
        return Err(format(format!(
            "its configuration has {} bytes, more than {}",
            config.size, limits.config
        )));
    }
    let blob = client.blob(name, &digest, 0).await.map_err(failed(name))?;
    let bytes = blob.answer.read(limits.config).await;
    let bytes = bytes.map_err(|error| failed(name)(ClientError::from(error)))?;
    if Digest::of(&bytes) != digest {
        return Err(ImageError::Digest {
            reference: name.to_string(),
            what: "its configuration".to_owned(),
            expected: digest.to_string(),
            found: Digest::of(&bytes).to_string(),
        });
    }
    let configuration: Configuration = serde_json::from_slice(&bytes)
        .map_err(|error| format(format!("its configuration is malformed: {error}")))?;
    let diff_ids = load::fits(&configuration, layers.len(), limits).map_err(format)?;
    let mut read: Vec<Layer> = Vec::new();
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let layer = Layer {
            digest: parsed(&layer.digest).map_err(format)?,
            size: layer.size,
            diff_id,
        };
        // One file would have to be two.
        if read
            .iter()
            .any(|other| other.digest == layer.digest && *other != layer)
        {
            return Err(format(format!("its layer {} is said to be two", layer.digest)));
        }
        read.push(layer);
    }
    Ok(Offer {
        reference,
        manifest,
        config: bytes,
        digest,
        layers: read,
    })
}

fn parsed(digest: &str) -> Result<Digest, String> {
    Digest::parse(digest).ok_or_else(|| format!("{digest} is no sha256 digest"))
}

/// Bytes that these layers will take for certain while they are fetched to `directory` and unpacked one after the
/// other: what is to be fetched, and then the largest a second time. To how much they unpack nobody knows before, but
/// to more than there is of them compressed.
pub(super) fn needed(layers: &[Layer], directory: &Path) -> u64 {
    let of_layer = |layer: &Layer| {
        let there = fs::metadata(directory.join(layer.digest.hex())).map_or(0, |metadata| metadata.len());
        layer.size.saturating_sub(there)
    };
    let largest = layers.iter().map(|layer| layer.size).max().unwrap_or(0);
    layers.iter().map(of_layer).fold(largest, u64::saturating_add)
}

/// Every layer as a file of its digest in `directory`: what is there whole is not fetched again, what is there in
/// part is gone on with. `unpacked`: what another pull makes a directory there of meanwhile is not fetched.
///
/// # Errors
/// One of them cannot be had; what is there of it stays for the next time.
pub(super) async fn layers(
    client: Arc<Client>,
    name: &ImageName,
    layers: &[Layer],
    directory: &Path,
    unpacked: Option<&Path>,
    progress: &Arc<Pull>,
) -> Result<(), ImageError> {
    records::make_private(directory).map_err(|source| {
        failed(name)(PullError::Write {
            path: directory.to_owned(),
            source,
        })
    })?;
    let mut under_way: JoinSet<Result<(), PullError>> = JoinSet::new();
    for one in layers {
        while under_way.len() >= AT_ONCE
            && let Some(ended) = under_way.join_next().await
        {
            finished(ended).map_err(failed(name))?;
        }
        let (client, name, one) = (Arc::clone(&client), name.clone(), one.clone());
        let (path, progress) = (directory.join(one.digest.hex()), Arc::clone(progress));
        let unpacked = unpacked.map(|layers| layers.join(one.diff_id.hex()));
        under_way
            .spawn(async move { layer(&client, &name, &one, &path, unpacked.as_deref(), progress).await });
    }
    while let Some(ended) = under_way.join_next().await {
        finished(ended).map_err(failed(name))?;
    }
    Ok(())
}

fn finished(ended: Result<Result<(), PullError>, tokio::task::JoinError>) -> Result<(), PullError> {
    ended.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Err(PullError::Runtime(io::Error::other(error))),
    })
}

fn missized(expected: u64, found: u64, digest: &Digest) -> PullError {
    PullError::Size {
        digest: digest.to_string(),
        expected,
        found,
    }
}

async fn layer(
    client: &Client,
    name: &ImageName,
    &Layer { ref digest, size, .. }: &Layer,
    path: &Path,
    unpacked: Option<&Path>,
    progress: Arc<Pull>,
) -> Result<(), PullError> {
    let write = |source| PullError::Write {
        path: path.to_owned(),
        source,
    };
    let mut part = Part::open(path, progress).await?;
    // Who has unpacked it has removed the file after that.
    if unpacked.is_some_and(Path::is_dir) {
        part.is_unpacked(size);
        return Ok(());
    }
    let (mut vain, mut wrong) = (0u32, false);
    let mut most = part.length;
    loop {
        if part.length >= size {
            let found = part.digest();
            if part.length == size && found == *digest {
                return Ok(());
            }
            // What was there may have been damaged by the host; what came now, twice, is the registry's.
            if wrong {
                part.restart().map_err(write)?;
                return Err(PullError::Digest {
                    expected: digest.to_string(),
                    found: found.to_string(),
                });
            }
            wrong = true;
            part.restart().map_err(write)?;
            most = 0;
        }
        let error = match transfer(client, name, digest, size, &mut part).await {
            Ok(()) if part.length >= size => continue,
            Ok(()) => None,
            Err(PullError::Registry(error @ (ClientError::Transport(_) | ClientError::Later { .. })))
                if error.may_pass() =>
            {
                Some(error)
            }
            Err(error) => return Err(error),
        };
        // Who drips brings something each time, and would never be given up.
        let dripped = matches!(
            error,
            Some(ClientError::Transport(TransportError::Stalled { .. }))
        );
        // Nor would who begins anew each time, and comes no further.
        vain = if part.length > most && !dripped {
            0
        } else {
            vain + 1
        };
        most = most.max(part.length);
        let delay = error.as_ref().and_then(ClientError::after);
        let delay = delay.unwrap_or(DELAY * 2u32.pow(vain.saturating_sub(1)));
        if vain >= ATTEMPTS || delay > LONGEST {
            return Err(error.map_or_else(|| missized(size, part.length, digest), PullError::from));
        }
        if vain > 0 {
            sleep(delay).await;
        }
    }
}

/// From where the part ends to the end of the layer, or to where the connection breaks.
async fn transfer(
    client: &Client,
    name: &ImageName,
    digest: &Digest,
    size: u64,
    part: &mut Part,
) -> Result<(), PullError> {
    let path = part.path.clone();
    let write = |source| PullError::Write {
        path: path.clone(),
        source,
    };
    let mut blob = client.blob(name, digest, part.length).await?;
    if blob.from != part.length {
        part.restart().map_err(write)?;
    }
    while let Some(data) = blob.answer.next().await.map_err(ClientError::from)? {
        let found = part.length + data.len() as u64;
        if found > size {
            part.restart().map_err(write)?;
            return Err(missized(size, found, digest));
        }
        part.push(&data).map_err(write)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
