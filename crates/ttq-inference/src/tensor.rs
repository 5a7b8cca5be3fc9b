//! Float tensors of the backend: tensors of the inner backend, and ternary weights.

use std::any::Any;
use std::fmt::Debug;

use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, DType, Shape, TensorMetadata};

use ttq_packed::TernaryWeight;

use crate::device::{self, DeviceWeight};
use crate::weight::{Storage, TernaryTensor};

/// A float tensor of [`Packed`](crate::Packed): a tensor of the inner backend, or a ternary weight with 2 bits per
/// element.
///
/// It is the same type for every inner backend, so that code for any backend `B` recognizes it:
/// [`tensor`](crate::tensor()) creates a ternary weight if this is the float primitive of `B`.
#[derive(Debug, Clone)]
pub struct PackedTensor(pub(crate) Content);

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Inner(Box<dyn ErasedTensor>),
    Ternary(TernaryTensor),
}

impl PackedTensor {
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self.0, Content::Ternary(_))
    }

    /// Returns the ternary weight, with the dimensions of this tensor, if it is one and in memory.
    pub fn ternary(&self) -> Option<TernaryWeight> {
        match &self.0 {
            Content::Ternary(tensor) => tensor.to_weight(),
            Content::Inner(_) => None,
        }
    }
}

impl TensorMetadata for PackedTensor {
    fn dtype(&self) -> DType {
        match &self.0 {
            Content::Inner(tensor) => tensor.dtype(),
            Content::Ternary(tensor) => tensor.dtype(),
        }
    }

    fn shape(&self) -> Shape {
        match &self.0 {
            Content::Inner(tensor) => tensor.shape(),
            Content::Ternary(tensor) => Shape::from(tensor.dims()),
        }
    }
}

impl From<TernaryTensor> for PackedTensor {
    fn from(tensor: TernaryTensor) -> Self {
        Self(Content::Ternary(tensor))
    }
}

/// A tensor primitive whose type is erased.
pub(crate) trait ErasedTensor: Any + Debug + Send + Sync {
    fn dtype(&self) -> DType;
    fn shape(&self) -> Shape;
    fn boxed_clone(&self) -> Box<dyn ErasedTensor>;
}

impl<T: TensorMetadata + 'static> ErasedTensor for T {
    fn dtype(&self) -> DType {
        TensorMetadata::dtype(self)
    }

    fn shape(&self) -> Shape {
        TensorMetadata::shape(self)
    }

    fn boxed_clone(&self) -> Box<dyn ErasedTensor> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn ErasedTensor> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}

/// Makes a tensor of the inner backend one of [`Packed`](crate::Packed).
pub(crate) fn wrap<T: TensorMetadata + 'static>(tensor: T) -> PackedTensor {
    PackedTensor(Content::Inner(Box::new(tensor)))
}

/// Returns the tensor of the inner backend `B`. A ternary weight is unpacked.
pub(crate) fn unpacked<B: Backend>(tensor: PackedTensor) -> FloatTensor<B> {
    match tensor.0 {
        Content::Inner(tensor) => *(tensor as Box<dyn Any>).downcast().expect("a tensor of the inner backend"),
        Content::Ternary(tensor) => unpack::<B>(&tensor),
    }
}

/// Returns a reference to the tensor of the inner backend; the ternary weight if it is one.
pub(crate) fn inner<B: Backend>(tensor: &PackedTensor) -> Result<&FloatTensor<B>, &TernaryTensor> {
    match &tensor.0 {
        Content::Inner(tensor) => Ok((&**tensor as &dyn Any).downcast_ref().expect("a tensor of the inner backend")),
        Content::Ternary(tensor) => Err(tensor),
    }
}

/// Unpacks a ternary weight on its device.
fn unpack<B: Backend>(tensor: &TernaryTensor) -> FloatTensor<B> {
    let weight = tensor.weight();
    let floats = match &weight.storage {
        Storage::Host(host) => device::from_host::<B>(weight.dequantize(&host.values()), &weight.shape),
        Storage::Device(on_device) => DeviceWeight::<B>::of(&**on_device).unpack(&weight.shape, weight.output_axis),
    };
    tensor.view::<B>(floats)
}
