//! TEMPORARY stand-in.
use std::sync::Arc;
use klamm_metadata::delta::ImageDelta;
use klamm_metadata::image::ClusterImage;
use crate::config::BrokerConfig;
use crate::node::Node;
pub(crate) struct GroupCoordinators;
impl GroupCoordinators {
    pub(crate) fn new(_config: &BrokerConfig) -> Self { Self }
    pub(crate) fn attach(&self, _node: &Arc<Node>) {}
    pub(crate) fn on_published(&self, _delta: &ImageDelta, _image: &ClusterImage) {}
    pub(crate) fn shut_down(&self) {}
}
