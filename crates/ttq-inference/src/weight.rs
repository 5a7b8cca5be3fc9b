//! Ternary weights as tensors.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use burn::prelude::*;
use burn_backend::tensor::{Device, FloatTensor, IntTensor};
use burn_backend::{DType, FloatDType, Shape, TensorMetadata};
use ttq_packed::{Codes, TernaryWeight};

use crate::device::DeviceWeight;
use crate::host::{Host, Layout};

/// A tensor whose elements are those of a ternary weight, with its dimensions in another order, and with more or fewer
/// dimensions of size 1.
#[derive(Debug, Clone)]
pub(crate) struct TernaryTensor {
    weight: Arc<Weight>,
    /// For each dimension of the tensor, the dimension of the weight; `None` if its size is 1.
    axes: Vec<Option<usize>>,
    dtype: DType,
}

/// A ternary weight: codes in 2 bits each, scales, shape. It never changes.
#[derive(Debug)]
pub(crate) struct Weight {
    pub(crate) shape: Vec<usize>,
    pub(crate) output_axis: usize,
    /// `[w_pos, w_neg]`, one pair or one for each output channel.
    pub(crate) scales: Vec<[f32; 2]>,
    pub(crate) storage: Storage,
}

/// Where the codes are.
pub(crate) enum Storage {
    /// In memory, for the CPU kernels.
    Host(Host),
    /// On a device: a [`DeviceWeight`] of the inner backend.
    Device(Box<dyn Any + Send + Sync>),
}

impl fmt::Debug for Storage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Host(_) => "Host",
            Self::Device(_) => "Device",
        })
    }
}

impl Weight {
    /// Returns the number of output channels.
    pub(crate) fn outputs(&self) -> usize {
        self.shape.get(self.output_axis).copied().unwrap_or(1)
    }

    /// Returns the number of elements for one index of the output axis and the axes before it.
    pub(crate) fn run(&self) -> usize {
        self.shape.iter().skip(self.output_axis + 1).product()
    }

    /// Multiplies codes, in the order of the weight, by their scales.
    pub(crate) fn dequantize(&self, codes: &[i8]) -> Vec<f32> {
        let values: Vec<[f32; 3]> = self.scales.iter().map(|[w_pos, w_neg]| [-w_neg, 0.0, *w_pos]).collect();
        let run = if values.len() == 1 { codes.len() } else { self.run() };
        let runs = codes.chunks(run.max(1)).zip(values.iter().cycle());
        runs.flat_map(|(codes, values)| codes.iter().map(|code| values[(code + 1) as usize])).collect()
    }
}

impl TernaryTensor {
    /// Creates a tensor in memory.
    pub(crate) fn new(weight: &TernaryWeight, dtype: DType) -> Self {
        let weight = Weight {
            shape: weight.shape().to_vec(),
            output_axis: weight.output_axis(),
            scales: weight.scales().to_vec(),
            storage: Storage::Host(Host::new(weight.codes().clone())),
        };
        Self::of(weight, dtype)
    }

    /// Creates a tensor with the dimensions of the weight.
    fn of(weight: Weight, dtype: DType) -> Self {
        let axes = weight.shape.iter().enumerate().map(|(axis, size)| (*size != 1).then_some(axis)).collect();
        Self { weight: Arc::new(weight), axes, dtype }
    }

    pub(crate) fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Returns the weight in the order of this tensor, if it is in memory.
    pub(crate) fn to_weight(&self) -> Option<TernaryWeight> {
        let Weight { shape, output_axis, scales, storage } = &*self.weight;
        let Storage::Host(host) = storage else { return None };
        let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
        // Offsets of the elements, one dimension after the other.
        let offsets = self.axes.iter().fold(vec![0], |offsets, axis| match axis {
            None => offsets,
            Some(axis) => {
                let along = |offset: usize| (0..shape[*axis]).map(move |index| offset + index * stride(*axis));
                offsets.into_iter().flat_map(along).collect()
            }
        });
        let values = host.values();
        let codes: Vec<i8> = offsets.into_iter().map(|offset| values[offset]).collect();
        let output_axis = self.axes.iter().position(|axis| *axis == Some(*output_axis));
        TernaryWeight::new(Codes::pack(&codes).ok()?, scales.clone(), self.dims(), output_axis.unwrap_or(0)).ok()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn dims(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| self.size(*axis)).collect()
    }

    fn size(&self, axis: Option<usize>) -> usize {
        axis.map_or(1, |axis| self.weight.shape[axis])
    }

    pub(crate) fn cast(self, dtype: FloatDType) -> Self {
        Self { dtype: dtype.into(), ..self }
    }

    pub(crate) fn permuted(self, order: &[usize]) -> Self {
        let axes = order.iter().map(|dim| self.axes[*dim]).collect();
        Self { axes, ..self }
    }

    pub(crate) fn swapped(mut self, dim1: usize, dim2: usize) -> Self {
        self.axes.swap(dim1, dim2);
        self
    }

    /// Returns the tensor in another shape if that only adds and removes dimensions of size 1.
    pub(crate) fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        let mut axes = self.axes.iter().flatten();
        let reshaped: Option<Vec<_>> = shape
            .iter()
            .map(|size| if *size == 1 { Some(None) } else { axes.next().map(|axis| Some(*axis)) })
            .collect();
        let reshaped = Self { axes: reshaped?, ..self.clone() };
        (axes.next().is_none() && reshaped.dims() == shape).then_some(reshaped)
    }

    /// Returns the tensor on a device of the backend `B`.
    pub(crate) fn to_device<B: Backend>(&self, device: &Device<B>) -> Self {
        let Weight { shape, output_axis, scales, storage } = &*self.weight;
        let storage = match storage {
            Storage::Host(_) if crate::has_host_kernels::<B>() => return self.clone(),
            Storage::Host(host) => DeviceWeight::<B>::upload(&host.values(), &self.weight, device),
            Storage::Device(on_device) => DeviceWeight::of(&**on_device).to_device(device),
        };
        let storage = Storage::Device(Box::new(storage));
        let weight = Weight { shape: shape.clone(), output_axis: *output_axis, scales: scales.clone(), storage };
        Self { weight: Arc::new(weight), ..self.clone() }
    }

    pub(crate) fn device<B: Backend>(&self) -> Device<B> {
        match &self.weight.storage {
            Storage::Host(_) => Device::<B>::default(),
            Storage::Device(on_device) => DeviceWeight::<B>::of(&**on_device).device(),
        }
    }

    /// Returns whether this dimension is that of the output channels.
    pub(crate) fn has_outputs_along(&self, dim: usize) -> bool {
        self.axes.get(dim).copied().flatten() == Some(self.weight.output_axis)
    }

    /// Selects output channels. Reads the indices, if the weight is in memory.
    ///
    /// # Panics
    /// Panics if the weight is in memory and has no such channel.
    pub(crate) fn with_outputs<B: Backend>(&self, indices: IntTensor<B>) -> Self {
        let Weight { output_axis, scales, storage, .. } = &*self.weight;
        let (outputs, run) = (self.weight.outputs(), self.weight.run());
        let mut shape = self.weight.shape.clone();
        shape[*output_axis] = indices.shape().num_elements();
        let indices = Tensor::<B, 1, Int>::from_primitive(indices);
        let (scales, storage) = match storage {
            Storage::Device(on_device) => {
                let selected = DeviceWeight::<B>::of(&**on_device).with_outputs(indices);
                (Vec::new(), Storage::Device(Box::new(selected)))
            }
            Storage::Host(host) => {
                let selected: Vec<usize> = indices.into_data().iter::<i64>().map(|index| index as usize).collect();
                let missing = selected.iter().find(|index| **index >= outputs);
                assert!(
                    missing.is_none(),
                    "select: index {missing:?} is out of range for a dimension of size {outputs}"
                );
                let before = 0..self.weight.shape[..*output_axis].iter().product();
                let first =
                    before.flat_map(|before| selected.iter().map(move |output| (before * outputs + output) * run));
                let codes = host.gather(first.flat_map(|first| first..first + run));
                let scales = match scales.len() {
                    1 => scales.clone(),
                    _ => selected.iter().map(|output| scales[*output]).collect(),
                };
                (scales, Storage::Host(Host::new(Codes::pack(&codes).expect("they are codes"))))
            }
        };
        let weight = Weight { shape, output_axis: *output_axis, scales, storage };
        Self { weight: Arc::new(weight), ..self.clone() }
    }

    /// Arranges the elements of the weight, a tensor of its shape, in the order and type of this tensor.
    pub(crate) fn view<B: Backend>(&self, weight: FloatTensor<B>) -> FloatTensor<B> {
        let used: Vec<usize> = self.axes.iter().flatten().copied().collect();
        let unit = (0..self.weight.shape.len()).filter(|axis| !used.contains(axis));
        let order: Vec<usize> = used.iter().copied().chain(unit).collect();
        let ordered = if order.is_sorted() { weight } else { B::float_permute(weight, &order) };
        let dims = self.dims();
        let shaped = if dims == self.weight.shape && order.is_sorted() {
            ordered
        } else {
            B::float_reshape(ordered, Shape::from(dims))
        };
        match self.dtype {
            DType::F32 => shaped,
            dtype => B::float_cast(shaped, dtype.into()),
        }
    }

    /// Returns the role of the factor `[in, out]` of a product, if all other dimensions have size 1 and each output has
    /// one pair of scales.
    pub(crate) fn matrix(&self) -> Option<Layout> {
        let [leading @ .., inner, output] = &*self.axes else { return None };
        leading.iter().all(Option::is_none).then_some(())?;
        self.layout([*output, *inner, None, None], None)
    }

    /// Returns the role of the weight `[out, in / groups, kh, kw]` of a convolution, if each output channel has one pair
    /// of scales.
    pub(crate) fn convolution(&self, groups: usize) -> Option<Layout> {
        self.layout(self.axes.as_slice().try_into().ok()?, Some(groups))
    }

    fn layout(&self, axes: [Option<usize>; 4], groups: Option<usize>) -> Option<Layout> {
        let Weight { shape, output_axis, scales, .. } = &*self.weight;
        let stride = |axis: Option<usize>| axis.map_or(0, |axis| shape[axis + 1..].iter().product());
        let layout = Layout { shape: axes.map(|axis| self.size(axis)), strides: axes.map(stride), groups };
        (scales.len() == 1 || axes[0] == Some(*output_axis)).then_some(layout)
    }

    /// Returns whether outputs along this dimension, and the elements of an output, are in the order of a
    /// [`DeviceWeight`].
    #[cfg(feature = "cubecl")]
    pub(crate) fn is_in_device_order(&self, dim: usize) -> bool {
        let has_outputs = self.has_outputs_along(dim) || self.weight.outputs() == 1;
        let others = self.axes.iter().enumerate().filter(|(other, _)| *other != dim);
        has_outputs && others.filter_map(|(_, axis)| *axis).is_sorted()
    }
}
