//! Operations that return a view where strides allow one, and copy otherwise.

use burn_backend::ops::FloatTensorOps;
use burn_backend::{DType, FloatDType, Shape};
use burn_flex::{Flex, FlexDevice, FlexTensor, Layout};

use crate::buffer::Buffer;
use crate::kernels::elementwise;
use crate::kernels::strides::Runs;
use crate::lazy::ready;

/// Smallest number of elements for which a tensor of ones is an expanded view.
const MIN_EXPANDED_ONES: usize = 1 << 12;

/// Returns whether the kernels support the tensor: f32 and not empty.
pub(super) fn is_supported(tensor: &FlexTensor) -> bool {
    tensor.dtype() == DType::F32 && tensor.layout().num_elements() > 0
}

/// Returns the tensor itself if its elements are contiguous, else a contiguous copy.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    let tensor = ready(tensor);
    let layout = tensor.layout();
    if layout.contiguous_offsets().is_some() {
        return tensor;
    }
    let runs = Runs::new(layout.shape(), [layout.strides()], [layout.start_offset()]);
    if !is_supported(&tensor) || runs.is_transposed_matrix() {
        return tensor.to_contiguous();
    }
    // SAFETY: the runs cover the shape.
    unsafe { Buffer::filled(layout.shape().clone(), |out| elementwise::gather(&runs, tensor.storage(), out)) }
}

/// Returns the elements of a contiguous tensor.
pub(super) fn floats(tensor: &FlexTensor) -> &[f32] {
    let (start, end) = tensor.layout().contiguous_offsets().unwrap_or((0, 0));
    &tensor.storage()[start..end]
}

/// Returns one element expanded to `shape`. Most operations on a tensor of ones (products, sums with another tensor)
/// never materialize it.
pub(crate) fn float_ones(shape: Shape, device: &FlexDevice, dtype: FloatDType) -> FlexTensor {
    if dtype != FloatDType::F32 || shape.num_elements() < MIN_EXPANDED_ONES {
        return <Flex as FloatTensorOps<Flex>>::float_ones(shape, device, dtype);
    }
    let one = <Flex as FloatTensorOps<Flex>>::float_ones(Shape::from([1]), device, dtype);
    let strides = vec![0; shape.num_dims()];
    one.with_layout(Layout::new(shape, strides, 0))
}

/// Reshapes a tensor, as a view where the strides allow one; expanded axes included.
pub(crate) fn float_reshape(tensor: FlexTensor, shape: Shape) -> FlexTensor {
    let layout = tensor.layout();
    if !is_supported(&tensor) || layout.contiguous_offsets().is_some() || layout.num_elements() != shape.num_elements()
    {
        return tensor.reshape(shape);
    }
    match reshaped_strides(layout.shape(), layout.strides(), &shape) {
        Some(strides) => {
            let layout = Layout::new(shape, strides, layout.start_offset());
            tensor.with_layout(layout)
        }
        None => contiguous(tensor).reshape(shape),
    }
}

/// Returns the strides of a view in the shape `target`, which has the same number of elements; `None` if no view
/// exists.
fn reshaped_strides(shape: &[usize], strides: &[isize], target: &[usize]) -> Option<Vec<isize>> {
    let mut axes = shape.iter().zip(strides).filter(|(size, _)| **size != 1).map(|(size, stride)| (*size, *stride));
    let mut result = vec![0; target.len()];
    let mut next = 0;
    while next < target.len() {
        if target[next] == 1 {
            next += 1;
            continue;
        }
        // Group the fewest source axes and target axes that have the same number of elements. The source axes of a
        // group must merge into one evenly strided axis.
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
        // Expanded axes, one axis split in two, two axes merged, and both at once.
        assert_eq!(reshaped_strides(&[3, 8], &[1, 0], &[3, 2, 2, 2]), Some(vec![1, 0, 0, 0]));
        assert_eq!(reshaped_strides(&[3, 8], &[100, 1], &[3, 4, 2]), Some(vec![100, 2, 1]));
        assert_eq!(reshaped_strides(&[2, 3, 4], &[100, 4, 1], &[2, 12]), Some(vec![100, 1]));
        assert_eq!(reshaped_strides(&[2, 6, 4], &[100, 4, 1], &[2, 3, 8]), Some(vec![100, 8, 1]));
        assert_eq!(reshaped_strides(&[1, 6], &[7, 3], &[2, 1, 3, 1]), Some(vec![9, 9, 3, 0]));
        // Axes that do not merge.
        assert_eq!(reshaped_strides(&[3, 2, 4], &[4, 12, 1], &[3, 8]), None);
        assert_eq!(reshaped_strides(&[2, 3], &[1, 2], &[6]), None);
    }

    #[test]
    fn a_large_tensor_of_ones_stores_one_element() {
        let ones = float_ones(Shape::from([100, 100]), &FlexDevice, FloatDType::F32);
        assert_eq!(ones.storage::<f32>(), [1.0]);
        assert_eq!(ones.into_data().to_vec::<f32>().unwrap(), vec![1.0; 10_000]);
    }
}
