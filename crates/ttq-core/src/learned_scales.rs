//! The learned scales of a wrapper: a Burn module whose record has paths and the configuration.

use std::sync::Arc;

use burn::config::{Config, config_to_json};
use burn::module::{
    AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor, Param, ParamId,
};
use burn::prelude::*;
use burn::record::{PrecisionSettings, Record};
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::{
    Choice, InitialScales, LatentGradient, NegativeScaleGradient, QuantizerConfig, RecordError, TernaryQuantizer,
    Threshold,
};

/// The parameters of the learned scales, by [`QuantizerConfig::scale_parameter`], `[groups, 2]` each, one for each
/// selected weight or none at all.
///
/// Their paths are those of the weights.
#[derive(Debug, Clone)]
pub struct LearnedScales<B: Backend> {
    pub(crate) params: Vec<Param<Tensor<B, 2>>>,
    pub(crate) plan: Arc<Plan>,
    /// The current threshold, which is not part of a record.
    pub(crate) threshold: Threshold,
}

const CONTAINER: &str = "Struct:LearnedScales";

impl<B: Backend> LearnedScales<B> {
    /// Returns the scales of the selected layer at `index`, `[groups, 2]`: those of its parameter, or the values that
    /// the rule computes.
    pub(crate) fn of_layer<const D: usize>(
        &self,
        quantizer: &TernaryQuantizer<B>,
        index: usize,
        latent: &Tensor<B, D>,
        channel_axis: usize,
    ) -> Tensor<B, 2> {
        match self.params.get(index) {
            Some(param) => quantizer.config.scale_parameter.scales(param.val()),
            None => quantizer.measured_scales(latent.clone(), channel_axis),
        }
    }

    /// Replaces every parameter.
    pub(crate) fn map_params(self, map: impl FnMut(Param<Tensor<B, 2>>) -> Param<Tensor<B, 2>>) -> Self {
        Self { params: self.params.into_iter().map(map).collect(), ..self }
    }

    /// Checks that a record fits this configuration and selection.
    pub(crate) fn check(&self, record: &LearnedScalesRecord<B>) -> Result<(), RecordError> {
        let own = decisive(&self.plan.config.quantizer);
        let saved = QuantizerConfig::load_binary(record.quantizer.as_bytes())
            .map_or_else(|_| record.quantizer.clone(), |saved| decisive(&saved));
        if saved != own {
            let differing = |a: &str, b: &str| {
                let lines = a.lines().filter(|line| !b.lines().any(|other| other == *line));
                lines.map(|line| line.trim().trim_end_matches(',')).collect::<Vec<_>>().join(", ")
            };
            return Err(RecordError::Quantizer { record: differing(&saved, &own), wrapper: differing(&own, &saved) });
        }
        let saved: Vec<&str> = record.layers.iter().map(|layer| layer.path.as_str()).collect();
        let own: Vec<&str> = self.plan.layers.iter().map(|layer| layer.path.as_str()).collect();
        let only =
            |a: &[&str], b: &[&str]| a.iter().filter(|path| !b.contains(path)).map(|path| (*path).into()).collect();
        let (record_only, wrapper_only): (Vec<String>, Vec<String>) = (only(&saved, &own), only(&own, &saved));
        if record_only.is_empty() && wrapper_only.is_empty() {
            return self.params.iter().zip(&self.plan.layers).try_for_each(|(param, layer)| {
                let saved = record.scales(layer).map(|saved| saved.dims());
                let own = param.val().dims();
                if saved == Some(own) {
                    return Ok(());
                }
                Err(RecordError::Shape { path: layer.path.clone(), record: saved.unwrap_or_default(), wrapper: own })
            });
        }
        Err(RecordError::Selection { record: record_only, wrapper: wrapper_only })
    }
}

/// Returns the part of a configuration that determines the ternary weights, in JSON. The other part is the way of
/// training.
fn decisive(config: &QuantizerConfig) -> String {
    config_to_json(&QuantizerConfig {
        initial_scales: InitialScales::default(),
        latent_gradient: LatentGradient::default(),
        negative_scale_gradient: NegativeScaleGradient::default(),
        ..*config
    })
}

/// The record of [`LearnedScales`].
#[derive(Debug)]
pub struct LearnedScalesRecord<B: Backend> {
    /// The configuration in JSON.
    quantizer: String,
    layers: Vec<LayerRecord<B>>,
}

/// The scales of a selected weight; none if they are computed from the latent weight.
#[derive(Debug)]
struct LayerRecord<B: Backend> {
    path: String,
    scales: Option<Param<Tensor<B, 2>>>,
}

impl<B: Backend> LearnedScalesRecord<B> {
    fn scales(&self, layer: &Choice) -> Option<&Param<Tensor<B, 2>>> {
        self.layers.iter().find(|saved| saved.path == layer.path)?.scales.as_ref()
    }
}

/// The form of [`LearnedScalesRecord`] in files. Scales are stored in their type, whatever the precision settings of the
/// recorder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LearnedScalesItem {
    quantizer: String,
    layers: Vec<LayerItem>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LayerItem {
    path: String,
    scales: Option<(String, TensorData)>,
}

impl<B: Backend> Record<B> for LearnedScalesRecord<B> {
    type Item<S: PrecisionSettings> = LearnedScalesItem;

    fn into_item<S: PrecisionSettings>(self) -> LearnedScalesItem {
        let layers = self.layers.into_iter().map(|layer| LayerItem {
            path: layer.path,
            scales: layer.scales.map(|param| (param.id.serialize(), param.val().into_data())),
        });
        LearnedScalesItem { quantizer: self.quantizer, layers: layers.collect() }
    }

    fn from_item<S: PrecisionSettings>(item: LearnedScalesItem, device: &B::Device) -> Self {
        let layers = item.layers.into_iter().map(|layer| LayerRecord {
            path: layer.path,
            scales: layer.scales.map(|(id, data)| {
                let scales = Tensor::from_data(data.convert::<B::FloatElem>(), device);
                Param::initialized(ParamId::deserialize(&id), scales)
            }),
        });
        Self { quantizer: item.quantizer, layers: layers.collect() }
    }
}

impl<B: Backend> Module<B> for LearnedScales<B> {
    type Record = LearnedScalesRecord<B>;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.params.iter().fold(devices, |devices, param| param.collect_devices(devices))
    }

    fn fork(self, device: &B::Device) -> Self {
        self.map_params(|param| param.fork(device))
    }

    fn to_device(self, device: &B::Device) -> Self {
        self.map_params(|param| param.to_device(device))
    }

    fn visit<V: ModuleVisitor<B>>(&self, visitor: &mut V) {
        for (param, layer) in self.params.iter().zip(&self.plan.layers) {
            visitor.enter_module(&layer.path, CONTAINER);
            param.visit(visitor);
            visitor.exit_module(&layer.path, CONTAINER);
        }
    }

    fn map<F: ModuleMapper<B>>(self, mapper: &mut F) -> Self {
        let plan = self.plan.clone();
        let mut layers = plan.layers.iter();
        self.map_params(|param| {
            let path = layers.next().map_or("", |layer| layer.path.as_str());
            mapper.enter_module(path, CONTAINER);
            let param = Module::map(param, mapper);
            mapper.exit_module(path, CONTAINER);
            param
        })
    }

    fn into_record(self) -> Self::Record {
        let mut params = self.params.into_iter();
        let layers = self
            .plan
            .layers
            .iter()
            .map(|layer| LayerRecord { path: layer.path.clone(), scales: params.next().map(Module::<B>::into_record) });
        LearnedScalesRecord { quantizer: config_to_json(&self.plan.config.quantizer), layers: layers.collect() }
    }

    fn load_record(mut self, record: Self::Record) -> Self {
        if let Err(error) = self.check(&record) {
            panic!("Ternary::load_record: {error}");
        }
        let mut saved = record.layers;
        let plan = self.plan.clone();
        let params = self.params.into_iter().zip(&plan.layers).map(|(param, layer)| {
            let record = saved.iter_mut().find(|saved| saved.path == layer.path).and_then(|saved| saved.scales.take());
            match record {
                Some(record) => param.load_record(record),
                None => param,
            }
        });
        self.params = params.collect();
        self
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for LearnedScales<B> {
    type InnerModule = LearnedScales<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        LearnedScales {
            params: self.params.iter().map(AutodiffModule::<B>::valid).collect(),
            plan: self.plan.clone(),
            threshold: self.threshold,
        }
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        let params = module.params.into_iter().map(<Param<Tensor<B, 2>> as AutodiffModule<B>>::from_inner).collect();
        Self { params, plan: module.plan, threshold: module.threshold }
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for LearnedScales<B::InnerBackend> {
    type TrainModule = LearnedScales<B>;
}

impl<B: Backend> ModuleDisplayDefault for LearnedScales<B> {
    fn content(&self, content: Content) -> Option<Content> {
        let scales = self.params.iter().zip(&self.plan.layers);
        let content = content.set_top_level_type("LearnedScales");
        scales.fold(content, |content, (param, layer)| content.add(&layer.path, param)).optional()
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl<B: Backend> ModuleDisplay for LearnedScales<B> {}
