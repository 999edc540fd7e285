//! The newest published image of the cluster.

use std::ops::Deref;
use std::sync::Arc;

use klamm_metadata::image::ClusterImage;
use klamm_protocol::ids::Offset;
use tokio::sync::watch;

#[cfg(test)]
pub(crate) mod testing;

/// An image with its place in the metadata log.
#[derive(Debug, Clone, Default)]
pub(crate) struct PublishedImage {
    pub(crate) image: ClusterImage,
    /// Everything below this offset is in the image.
    pub(crate) end_offset: Offset,
    /// The level of the feature kraft.version.
    pub(crate) kraft_version: i16,
}

impl Deref for PublishedImage {
    type Target = ClusterImage;

    fn deref(&self) -> &ClusterImage {
        &self.image
    }
}

/// The publisher stores images here; all others read them.
#[derive(Debug, Default)]
pub(crate) struct MetadataCache {
    published: watch::Sender<Arc<PublishedImage>>,
}

impl MetadataCache {
    /// The newest image. It never changes under its holder.
    pub(crate) fn image(&self) -> Arc<PublishedImage> {
        Arc::clone(&self.published.borrow())
    }

    /// A receiver that watches for new images.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<PublishedImage>> {
        self.published.subscribe()
    }

    pub(crate) fn publish(&self, published: Arc<PublishedImage>) {
        self.published.send_replace(published);
    }

    /// Waits until an image satisfies `condition`, and returns it.
    pub(crate) async fn wait_for(
        &self,
        condition: impl FnMut(&Arc<PublishedImage>) -> bool,
    ) -> Arc<PublishedImage> {
        let mut published = self.published.subscribe();
        let image = published.wait_for(condition).await;
        Arc::clone(&image.expect("the sender is this value's own"))
    }
}
