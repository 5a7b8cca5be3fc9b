//! Views: what is one without a copy, and the copy where there must be one.

use burn_backend::ops::FloatTensorOps;
use burn_backend::{DType, FloatDType, Shape};
use burn_flex::{Flex, FlexDevice, FlexTensor, Layout};

use crate::buffer::Buffer;
use crate::kernels::elementwise;
use crate::kernels::strides::Runs;

/// Smaller tensors of ones are written out.
const LAZY: usize = 1 << 12;

/// Is it one that the kernels take?
pub(super) fn is_ours(tensor: &FlexTensor) -> bool {
    tensor.dtype() == DType::F32 && tensor.layout().num_elements() > 0
}

/// A tensor whose elements lie side by side; itself where they do.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    if layout.contiguous_offsets().is_some() {
        return tensor;
    }
    let runs = Runs::new(layout.shape(), [layout.strides()], [layout.start_offset()]);
    if !is_ours(&tensor) || runs.is_transposed_matrix() {
        return tensor.to_contiguous();
    }
    // SAFETY: the runs cover the shape.
    unsafe { Buffer::filled(layout.shape().clone(), |out| elementwise::gather(&runs, tensor.storage(), out)) }
}

/// The elements, if they lie side by side.
pub(super) fn floats(tensor: &FlexTensor) -> &[f32] {
    let (start, end) = tensor.layout().contiguous_offsets().unwrap_or((0, 0));
    &tensor.storage()[start..end]
}

/// One element behind all places: most of what follows (a factor, a sum with another tensor) never writes it out.
pub(crate) fn float_ones(shape: Shape, device: &FlexDevice, dtype: FloatDType) -> FlexTensor {
    if dtype != FloatDType::F32 || shape.num_elements() < LAZY {
        return <Flex as FloatTensorOps<Flex>>::float_ones(shape, device, dtype);
    }
    let one = <Flex as FloatTensorOps<Flex>>::float_ones(Shape::from([1]), device, dtype);
    let strides = vec![0; shape.num_dims()];
    one.with_layout(Layout::new(shape, strides, 0))
}

/// A view wherever the strides allow one, expanded axes included.
pub(crate) fn float_reshape(tensor: FlexTensor, shape: Shape) -> FlexTensor {
    let layout = tensor.layout();
    if !is_ours(&tensor) || layout.contiguous_offsets().is_some() || layout.num_elements() != shape.num_elements() {
        return tensor.reshape(shape);
    }
    match reshaped(layout.shape(), layout.strides(), &shape) {
        Some(strides) => {
            let layout = Layout::new(shape, strides, layout.start_offset());
            tensor.with_layout(layout)
        }
        None => contiguous(tensor).reshape(shape),
    }
}

/// Strides of a view in another shape with as many elements, if there are any.
fn reshaped(shape: &[usize], strides: &[isize], target: &[usize]) -> Option<Vec<isize>> {
    let mut axes = shape.iter().zip(strides).filter(|(size, _)| **size != 1).map(|(size, stride)| (*size, *stride));
    let mut result = vec![0; target.len()];
    let mut next = 0;
    while next < target.len() {
        if target[next] == 1 {
            next += 1;
            continue;
        }
        // Axes that cover as many elements as axes of the target must be evenly strided.
        let (mut size, mut stride) = axes.next()?;
        let first = next;
        let mut covered = target[next];
        next += 1;
        while size != covered {
            if size < covered {
                let (more, inner) = axes.next()?;
                if stride != inner * more as isize {
                    return None;
                }
                (size, stride) = (size * more, inner);
            } else {
                covered *= *target.get(next)?;
                next += 1;
            }
        }
        for axis in (first..next).rev() {
            result[axis] = stride;
            stride *= target[axis] as isize;
        }
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reshape_is_a_view_where_strides_allow() {
        // An axis in two, two in one, expanded ones, and both at once.
        assert_eq!(reshaped(&[3, 8], &[1, 0], &[3, 2, 2, 2]), Some(vec![1, 0, 0, 0]));
        assert_eq!(reshaped(&[3, 8], &[100, 1], &[3, 4, 2]), Some(vec![100, 2, 1]));
        assert_eq!(reshaped(&[2, 3, 4], &[100, 4, 1], &[2, 12]), Some(vec![100, 1]));
        assert_eq!(reshaped(&[2, 6, 4], &[100, 4, 1], &[2, 3, 8]), Some(vec![100, 8, 1]));
        assert_eq!(reshaped(&[1, 6], &[7, 3], &[2, 1, 3, 1]), Some(vec![9, 9, 3, 0]));
        // Axes that another one lies between.
        assert_eq!(reshaped(&[3, 2, 4], &[4, 12, 1], &[3, 8]), None);
        assert_eq!(reshaped(&[2, 3], &[1, 2], &[6]), None);
    }

    #[test]
    fn many_ones_are_one() {
        let ones = float_ones(Shape::from([100, 100]), &FlexDevice, FloatDType::F32);
        assert_eq!(ones.storage::<f32>(), [1.0]);
        assert_eq!(ones.into_data().to_vec::<f32>().unwrap(), vec![1.0; 10_000]);
    }
}
