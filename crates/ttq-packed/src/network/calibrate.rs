//! Ranges of values for quantization, measured on typical inputs.

use alloc::vec::Vec;

use super::graph::Graph;
use super::operation::elements;
use super::run::{Arena, Network};
use super::{CompileOptions, NetworkError};

/// How the range of a value follows from its elements on typical inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RangeRule {
    /// From the smallest to the largest element.
    MinMax,
    /// The mean over the items of the range that leaves out a fraction of the elements at each end, such as 0.0001.
    /// Elements outside are limited to the range.
    Percentile(f64),
}

impl Graph {
    /// Measures the range of each value on typical inputs, for [`Int8`](super::Int8).
    ///
    /// The compiled network computes the values, and values that it does not store have no range. A few hundred items
    /// from the training set suffice.
    ///
    /// # Errors
    /// The errors of [`Network::compile`], and [`NetworkError::Length`] if the input is not a whole number of items, or
    /// none.
    pub fn calibrate(&mut self, input: &[f32], rule: RangeRule) -> Result<(), NetworkError> {
        let len = elements(&self.shape(self.input()).dims).unwrap_or(usize::MAX);
        if input.is_empty() || len == 0 || !input.len().is_multiple_of(len) {
            return Err(NetworkError::Length { what: "input", batch: 1, expected: len, found: input.len() });
        }
        let options = CompileOptions { reuse_memory: false, items: Some(1), ..CompileOptions::default() };
        let network = Network::compile(self, &options)?;
        let values = network.values();
        let mut arena = Arena::new();
        let mut output = alloc::vec![0.0; network.output_dims().iter().product()];
        let mut ranges = alloc::vec![[f64::INFINITY, f64::NEG_INFINITY]; values.len()];
        let mut sums = alloc::vec![[0.0; 2]; values.len()];
        for item in input.chunks(len) {
            network.run(&mut arena, item, &mut output)?;
            for (i, (_, image)) in values.iter().enumerate() {
                let pixels = (0..image.height).flat_map(|y| (0..image.width).map(move |x| (y, x)));
                let channels = pixels.map(|(y, x)| &arena.values()[image.pixel(0, y, x)..][..image.channels]);
                let mut elements: Vec<f32> = channels.flatten().copied().filter(|x| x.is_finite()).collect();
                if elements.is_empty() {
                    continue;
                }
                let left_out = match rule {
                    RangeRule::MinMax => 0,
                    RangeRule::Percentile(fraction) => {
                        (fraction.clamp(0.0, 0.5) * (elements.len() - 1) as f64) as usize
                    }
                };
                let last = elements.len() - 1;
                let low = *elements.select_nth_unstable_by(left_out, f32::total_cmp).1;
                let high = *elements.select_nth_unstable_by(last - left_out, f32::total_cmp).1;
                ranges[i] = [ranges[i][0].min(low.into()), ranges[i][1].max(high.into())];
                sums[i] = [sums[i][0] + f64::from(low), sums[i][1] + f64::from(high)];
            }
        }
        let items = (input.len() / len) as f64;
        for (i, (value, _)) in values.iter().enumerate() {
            let range = match rule {
                RangeRule::MinMax => ranges[i],
                RangeRule::Percentile(_) => sums[i].map(|sum| sum / items),
            };
            let range = range.map(|x| x as f32);
            self.entries[value.0].range = (range[0] <= range[1]).then_some(range);
        }
        Ok(())
    }

    /// Returns `true` if a value has a [range](Self::range).
    pub fn is_calibrated(&self) -> bool {
        self.entries.iter().any(|entry| entry.range.is_some())
    }

    /// Returns the range of a value that [`calibrate`](Self::calibrate) has measured.
    pub fn range(&self, value: super::Value) -> Option<[f32; 2]> {
        self.entries.get(value.0)?.range
    }
}
