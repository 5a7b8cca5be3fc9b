//! Tensors: their place in a storage, checked, and their values as contiguous bytes.

use std::borrow::Cow;

use safetensors::View;

use crate::dtype::Dtype;
use crate::objects::{Description, Problem};

/// A tensor: row-major, little-endian bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Element type.
    pub dtype: Dtype,
    /// Shape, `[]` for a scalar.
    pub shape: Vec<usize>,
    /// Elements.
    pub bytes: Vec<u8>,
}

/// Returns the size of a tensor in bytes, after a check that all of its elements are in its storage.
///
/// The product of the sizes other than 0 must not overflow, so that no partial product does.
pub(crate) fn check(tensor: &Description, storage: Option<usize>) -> Result<usize, Problem> {
    let Description { dtype, shape, strides, offset, .. } = tensor;
    let damaged = |reason: String| Problem::Damaged(reason);
    let product =
        shape.iter().filter(|&&size| size != 0).try_fold(dtype.size(), |product, &size| product.checked_mul(size));
    let product = product.ok_or_else(|| damaged(format!("has the shape {shape:?}, whose size overflows")))?;
    let available = storage.ok_or_else(|| damaged(format!("is in storage {}, which is missing", tensor.storage)))?;
    if let Some(expected) = tensor.storage_size.filter(|&expected| expected > available) {
        let key = &tensor.storage;
        return Err(damaged(format!("is in storage {key}, which has {available} bytes instead of {expected}")));
    }
    if shape.contains(&0) {
        return Ok(0);
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(*offset, |last, (size, stride)| last.checked_add((size - 1).checked_mul(*stride)?));
    let end = last.and_then(|last| last.checked_add(1)).and_then(|end| end.checked_mul(dtype.size()));
    if end.is_none_or(|end| end > available) {
        return Err(damaged(format!(
            "has the shape {shape:?}, the strides {strides:?} and the offset {offset}, which reach beyond the {available} \
             bytes of storage {}",
            tensor.storage
        )));
    }
    Ok(product)
}

/// A tensor in the bytes of its storage, against which its description was checked.
pub(crate) struct Stored<'a> {
    pub(crate) description: &'a Description,
    pub(crate) storage: &'a [u8],
    pub(crate) is_big_endian: bool,
}

impl View for Stored<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        self.description.dtype.safetensors()
    }

    fn shape(&self) -> &[usize] {
        &self.description.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(contiguous(self))
    }

    fn data_len(&self) -> usize {
        self.description.shape.iter().product::<usize>() * self.description.dtype.size()
    }
}

/// Copies the elements in row-major order.
pub(crate) fn contiguous(tensor: &Stored) -> Vec<u8> {
    let Description { dtype, shape, strides, offset, .. } = tensor.description;
    let storage = tensor.storage;
    let element = dtype.size();
    let count = shape.iter().product::<usize>();
    let mut bytes = Vec::with_capacity(count * element);
    if count == 0 {
        return bytes;
    }
    // The last dimensions that are contiguous are copied as one run.
    let mut run = 1;
    let mut outer = shape.len();
    while outer > 0 && (strides[outer - 1] == run || shape[outer - 1] == 1) {
        run *= shape[outer - 1];
        outer -= 1;
    }
    let mut index = vec![0; outer];
    let mut start = *offset;
    loop {
        bytes.extend_from_slice(&storage[start * element..(start + run) * element]);
        let Some(axis) = (0..outer).rev().find(|&axis| index[axis] + 1 < shape[axis]) else { break };
        index[axis] += 1;
        start += strides[axis];
        for inner in axis + 1..outer {
            start -= index[inner] * strides[inner];
            index[inner] = 0;
        }
    }
    if tensor.is_big_endian {
        bytes.chunks_exact_mut(element).for_each(<[u8]>::reverse);
    }
    bytes
}
