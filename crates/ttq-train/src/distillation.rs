//! Distillation: a model learns the soft targets of a teacher beside those of its own loss.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use burn::config::Config;
use burn::module::{AutodiffModule, Module};
use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{TrainOutput, TrainStep};
use serde::{Deserialize, Serialize};

/// A model whose predictions are logits: the two halves of its [`TrainStep::step`], so that a loss on the logits can be
/// added between them.
///
/// A row is one prediction: `rows` is the batch size of a classifier, batch size · tokens of a language model.
pub trait Logits<B: AutodiffBackend>: TrainStep {
    /// Computes the logits `[rows, classes]`, which must be finite.
    fn logits(&self, input: &Self::Input) -> Tensor<B, 2>;

    /// Computes the model's own loss, `[1]` and differentiable, and the output of its training step.
    fn output(&self, logits: Tensor<B, 2>, input: Self::Input) -> (Tensor<B, 1>, Self::Output);
}

/// Distillation of a teacher's logits (Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015,
/// arXiv 1503.02531).
///
/// With the weight α, the temperature T, and the rows of logits z of the student and v of the teacher:
///
/// ```text
/// loss = (1 - α) · own + α · T² · mean over rows of KL(p ‖ q),    p = softmax(v / T), q = softmax(z / T)
/// ∂loss/∂z = (1 - α) · ∂own/∂z + α · T / rows · (q - p)
/// ```
///
/// `Display` and `FromStr` use the form `WEIGHT:TEMPERATURE`; a text without a temperature takes the default.
///
/// ```ignore
/// // The teacher is a module on the inner backend; the closure gives its logits.
/// let teacher = model.valid();
/// let distill = Distillation::new(0.9).init(teacher, |teacher, batch: &Batch<B>| teacher.forward(batch.images.clone().inner()))?;
/// let step = TernaryStep::new(Ternary::new(model, &config)?).with_model_step(distill);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// Weight α of the teacher, from 0 to 1.
    pub weight: f64,
    /// Temperature T, above 0. Defaults to 4 (Zagoruyko, Komodakis 2017, arXiv 1612.03928, with α = 0.9).
    #[serde(default = "default_temperature")]
    pub temperature: f64,
}

fn default_temperature() -> f64 {
    4.0
}

impl Config for Distillation {}

/// An error of [`Distillation`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DistillationError {
    /// A number is out of range.
    #[error("the {name} of the distillation is {value}: choose a number {range}")]
    Number {
        /// Name of the field.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The allowed range in words.
        range: &'static str,
    },
    /// A text is no distillation.
    #[error("`{text}` is no distillation: write WEIGHT or WEIGHT:TEMPERATURE, such as 0.9:4")]
    Text {
        /// The text.
        text: String,
    },
}

impl Distillation {
    /// Creates the configuration with the weight of the teacher and the default temperature.
    pub fn new(weight: f64) -> Self {
        Self { weight, temperature: default_temperature() }
    }

    /// Sets the temperature.
    #[must_use]
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Returns the configuration unchanged if its numbers are in range.
    ///
    /// # Errors
    /// [`DistillationError::Number`].
    pub fn check(self) -> Result<Self, DistillationError> {
        if !(0.0..=1.0).contains(&self.weight) {
            return Err(DistillationError::Number { name: "weight", value: self.weight, range: "from 0 to 1" });
        }
        if self.temperature <= 0.0 || !self.temperature.is_finite() {
            return Err(DistillationError::Number { name: "temperature", value: self.temperature, range: "above 0" });
        }
        Ok(self)
    }

    /// Computes the loss from the model's own one, for a training loop of your own. No gradient flows to the teacher.
    ///
    /// # Shapes
    /// - own and output: `[1]`
    /// - student, teacher: `[rows, classes]`, finite
    ///
    /// # Panics
    /// Panics if the logits of the two have different shapes.
    pub fn loss<B: Backend>(self, own: Tensor<B, 1>, student: Tensor<B, 2>, teacher: Tensor<B, 2>) -> Tensor<B, 1> {
        let [ours, theirs] = [student.dims(), teacher.dims()];
        assert_eq!(
            ours, theirs,
            "Distillation: the student has logits of the shape {ours:?}, the teacher of {theirs:?}: rows and classes must \
             be the same"
        );
        if self.weight == 0.0 {
            return own;
        }
        let log_p = log_softmax(teacher.detach().div_scalar(self.temperature), 1);
        let log_q = log_softmax(student.div_scalar(self.temperature), 1);
        let divergence = (log_p.clone().exp() * (log_p - log_q)).sum();
        let factor = self.weight * self.temperature.powi(2) / ours[0] as f64;
        own.mul_scalar(1.0 - self.weight) + divergence.mul_scalar(factor)
    }

    /// Creates the training step of a model with this loss, for [`TernaryStep::with_model_step`
    /// ](crate::TernaryStep::with_model_step).
    ///
    /// `logits` computes the logits of the teacher for the model's own input, on the inner backend: it builds no graph,
    /// batch normalization uses its running statistics, and dropout is off. The teacher can be any module, also one of
    /// another architecture or several in a tuple. It is copied to every device where the model trains. It is no part
    /// of the model: optimizers, records and checkpoints do not contain it.
    ///
    /// The output of the step, from which metrics are computed, is the model's own: so is its loss.
    ///
    /// # Errors
    /// [`DistillationError::Number`] if a number is out of range.
    pub fn init<B, M, T>(
        self,
        teacher: T,
        logits: impl Fn(&T, &M::Input) -> Tensor<B::InnerBackend, 2> + Send + Sync + 'static,
    ) -> Result<impl Fn(&M, M::Input) -> TrainOutput<M::Output> + Send + Sync + 'static, DistillationError>
    where
        B: AutodiffBackend,
        M: Logits<B> + AutodiffModule<B> + 'static,
        T: Module<B::InnerBackend> + 'static,
    {
        let config = self.check()?;
        let copies = Mutex::new(Copies::<B::InnerBackend, T>::new(teacher));
        Ok(move |model: &M, input: M::Input| {
            let student = model.logits(&input);
            let device = student.clone().inner().device();
            let teacher = copies.lock().unwrap_or_else(PoisonError::into_inner).on(&device);
            let teacher = logits(&teacher, &input);
            let (own, output) = model.output(student.clone(), input);
            let loss = config.loss(own, student, Tensor::from_inner(teacher));
            TrainOutput::new(model, loss.backward(), output)
        })
    }
}

/// A teacher, and its copies on the devices that have asked for one.
struct Copies<B: Backend, T> {
    teacher: T,
    of_devices: Vec<(B::Device, T)>,
}

impl<B: Backend, T: Module<B>> Copies<B, T> {
    fn new(teacher: T) -> Self {
        // Lazy parameters are initialized here: each copy of one would draw other values.
        teacher.num_params();
        Self { teacher, of_devices: Vec::new() }
    }

    fn on(&mut self, device: &B::Device) -> T {
        if let Some((_, copy)) = self.of_devices.iter().find(|(known, _)| known == device) {
            return copy.clone();
        }
        let copy = self.teacher.clone().to_device(device);
        self.of_devices.push((device.clone(), copy.clone()));
        copy
    }
}

impl fmt::Display for Distillation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.weight, self.temperature)
    }
}

impl FromStr for Distillation {
    type Err = DistillationError;

    fn from_str(text: &str) -> Result<Self, DistillationError> {
        let number = |part: &str| part.trim().parse::<f64>().map_err(|_| DistillationError::Text { text: text.into() });
        let (weight, temperature) = match text.split_once(':') {
            Some((weight, temperature)) => (number(weight)?, number(temperature)?),
            None => (number(text)?, default_temperature()),
        };
        Self { weight, temperature }.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distillation_parses_its_own_text_form() {
        for (text, weight, temperature) in [("0.9:4", 0.9, 4.0), ("1:0.5", 1.0, 0.5), ("0:1", 0.0, 1.0)] {
            let parsed: Distillation = text.parse().unwrap();
            assert_eq!(parsed, Distillation { weight, temperature });
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!("0.5".parse(), Ok(Distillation::new(0.5)));
        assert_eq!(serde_json::from_str::<Distillation>(r#"{"weight": 0.5}"#).unwrap(), Distillation::new(0.5));
    }

    #[test]
    fn a_distillation_out_of_range_is_refused_by_the_name_of_its_number() {
        for (text, name) in [("1.5", "weight"), ("-0.1", "weight"), ("nan", "weight"), ("1:0", "temperature")] {
            assert!(text.parse::<Distillation>().unwrap_err().to_string().contains(name), "{text}");
        }
        for temperature in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(Distillation::new(0.5).with_temperature(temperature).check().is_err(), "{temperature}");
        }
        for text in ["", "0.5:", "a", "0.5:4:1"] {
            assert!(text.parse::<Distillation>().unwrap_err().to_string().contains("WEIGHT:TEMPERATURE"), "{text}");
        }
    }
}
