//! The shapes of results.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::graph::MAX_ELEMENTS;
use super::operation::{Operation, Shape, Unary, Window, elements};
use crate::kernels::ConvolutionOptions;

impl Operation {
    /// Returns the shape of the result, or a sentence that says why there is none.
    pub(super) fn shape(&self, operands: &[&Shape]) -> Result<Shape, String> {
        let batched = operands.iter().any(|shape| shape.batched);
        let dims = self.dims(operands)?;
        Ok(Shape { batched, dims })
    }

    fn dims(&self, operands: &[&Shape]) -> Result<Vec<usize>, String> {
        let (least, most) = match self {
            Self::Convolution(_) | Self::TransposedConvolution { .. } | Self::Linear => (2, 3),
            Self::MatrixProduct | Self::Binary(_) | Self::Gather => (2, 2),
            Self::Where => (3, 3),
            Self::Concatenate(_) => (1, usize::MAX),
            _ => (1, 1),
        };
        if !(least..=most).contains(&operands.len()) {
            return Err(format!("it has {} operands instead of {least} to {most}", operands.len()));
        }
        let x = operands[0].dims.as_slice();
        let second = operands.get(1).map_or(&[][..], |shape| &shape.dims);
        let has_weight = matches!(self, Self::Convolution(_) | Self::TransposedConvolution { .. } | Self::Linear);
        if has_weight && operands[1..].iter().any(|shape| shape.batched) {
            return Err("weight and bias must be constants".into());
        }
        let check_bias = |outputs: usize| match operands.get(2) {
            Some(bias) if bias.dims != [outputs] => {
                Err(format!("the bias has shape {:?} instead of [{outputs}]", bias.dims))
            }
            _ => Ok(()),
        };
        match self {
            Self::Convolution(options) => {
                let dims = convolution(x, second, options)?;
                check_bias(dims[0])?;
                Ok(dims)
            }
            Self::TransposedConvolution { options, output_padding } => {
                let dims = transposed_convolution(x, second, options, *output_padding)?;
                check_bias(dims[0])?;
                Ok(dims)
            }
            Self::Linear => {
                let (Some((inputs, rest)), &[rows, outputs]) = (x.split_last(), second) else {
                    return Err(format!("operands {x:?} and {second:?} must be [.., in] and [in, out]"));
                };
                if *inputs != rows {
                    return Err(format!("operands {x:?} and {second:?} must be [.., in] and [in, out]"));
                }
                check_bias(outputs)?;
                Ok([rest, &[outputs]].concat())
            }
            Self::MatrixProduct => {
                let ([a @ .., m, k], [b @ .., l, n]) = (x, second) else {
                    return Err(format!("operands {x:?} and {second:?} must be [.., m, k] and [.., k, n]"));
                };
                if k != l {
                    return Err(format!("operands {x:?} and {second:?} must be [.., m, k] and [.., k, n]"));
                }
                Ok([broadcast(a, b)?.as_slice(), &[*m, *n]].concat())
            }
            Self::Unary(Unary::Clamp([low, high])) if low > high || low.is_nan() || high.is_nan() => {
                Err(format!("the limits {low} and {high} must ascend"))
            }
            Self::Unary(_) => Ok(x.into()),
            Self::Binary(_) => broadcast(x, second),
            Self::Where => broadcast(x, &broadcast(second, &operands[2].dims)?),
            Self::MaxPool(window) | Self::AveragePool { window, .. } => pool(x, window),
            Self::AdaptiveAveragePool(size) => match *x {
                [channels, height, width] if height > 0 && width > 0 && !size.contains(&0) => {
                    Ok([channels, size[0], size[1]].into())
                }
                _ => Err(format!(
                    "the operand {x:?} must be [channels, height, width], and the output {size:?} not empty"
                )),
            },
            Self::Softmax(axis) => check_axis(x, *axis).map(|()| x.into()),
            Self::Reduce { axes, .. } => {
                if axes.is_empty() || !axes.is_sorted_by(|a, b| a < b) {
                    return Err(format!("the axes {axes:?} must ascend"));
                }
                axes.iter().try_for_each(|axis| check_axis(x, *axis))?;
                Ok(x.iter().enumerate().map(|(i, dim)| if axes.contains(&i) { 1 } else { *dim }).collect())
            }
            Self::Reshape(dims) => {
                let [from, to] = [x, dims].map(elements);
                match from.is_some() && from == to {
                    true => Ok(dims.clone()),
                    false => Err(format!("the shapes {x:?} and {dims:?} have different numbers of elements")),
                }
            }
            Self::Permute(axes) => {
                let mut sorted = axes.clone();
                sorted.sort_unstable();
                match sorted.iter().copied().eq(0..x.len()) {
                    true => Ok(axes.iter().map(|axis| x[*axis]).collect()),
                    false => Err(format!("{axes:?} is no permutation of the axes of {x:?}")),
                }
            }
            Self::Concatenate(axis) => {
                check_axis(x, *axis)?;
                let mut dims = x.to_vec();
                dims[*axis] = 0;
                for operand in operands {
                    let other = &operand.dims;
                    if other.len() != x.len() || (0..x.len()).any(|i| i != *axis && other[i] != x[i]) {
                        return Err(format!("operands {x:?} and {other:?} must differ only in axis {axis}"));
                    }
                    dims[*axis] = dims[*axis].checked_add(other[*axis]).ok_or("the sum of the sizes overflows")?;
                }
                Ok(dims)
            }
            Self::Slice { axis, start, end, step } => {
                check_axis(x, *axis)?;
                if start >= end || *end > x[*axis] || *step == 0 {
                    return Err(format!("{start}..{end} in steps of {step} is no part of axis {axis} of {x:?}"));
                }
                let mut dims = x.to_vec();
                dims[*axis] = (end - start).div_ceil(*step);
                Ok(dims)
            }
            Self::Pad { padding, .. } => {
                if padding.len() != x.len() {
                    return Err(format!("the padding has {} pairs for the {} axes of {x:?}", padding.len(), x.len()));
                }
                let size =
                    |(dim, [before, after]): (&usize, &[usize; 2])| dim.checked_add(*before)?.checked_add(*after);
                let dims = x.iter().zip(padding).map(size).collect::<Option<_>>();
                dims.ok_or_else(|| "the padded size overflows".into())
            }
            Self::Gather => match x {
                [rows, rest @ ..] if *rows > 0 => Ok([second, rest].concat()),
                _ => Err(format!("the table {x:?} must be [rows, ..]")),
            },
        }
    }
}

fn check_axis(dims: &[usize], axis: usize) -> Result<(), String> {
    if axis < dims.len() { Ok(()) } else { Err(format!("the operand {dims:?} has no axis {axis}")) }
}

fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    let dim = |i| match (at(a, i), at(b, i)) {
        (a, b) if a == b => Ok(a),
        (1, b) => Ok(b),
        (a, 1) => Ok(a),
        _ => Err(format!("operands {a:?} and {b:?} do not broadcast")),
    };
    (0..rank).map(dim).collect()
}

/// Returns the number of positions of a window, or `None` if there is none.
fn positions(input: usize, [before, after]: [usize; 2], window: usize, stride: usize) -> Option<usize> {
    let free = input.checked_add(before)?.checked_add(after)?.checked_sub(window)?;
    free.checked_div(stride)?.checked_add(1)
}

fn pool(x: &[usize], window: &Window) -> Result<Vec<usize>, String> {
    let &[channels, height, width] = x else {
        return Err(format!("the operand {x:?} must be [channels, height, width]"));
    };
    let mut dims = [channels, height, width];
    for i in 0..2 {
        let (size, padding) = (window.size[i], window.padding[i]);
        // Every window then has an element inside of the image.
        let inside = padding.iter().all(|padding| *padding < size);
        let count = positions(dims[i + 1], padding, size, window.stride[i]).filter(|_| inside && dims[i + 1] > 0);
        dims[i + 1] = count.ok_or_else(|| format!("no window {window:?} fits on the operand {x:?}"))?;
    }
    Ok(dims.into())
}

fn convolution(x: &[usize], weight: &[usize], options: &ConvolutionOptions) -> Result<Vec<usize>, String> {
    let (&[channels, height, width], &[outputs, inputs, kh, kw]) = (x, weight) else {
        return Err(format!("operands {x:?} and {weight:?} must be [C, H, W] and [O, C / groups, kh, kw]"));
    };
    let ConvolutionOptions { stride, padding, dilation, groups } = options;
    check_positive([kh, kw], options)?;
    if inputs.checked_mul(*groups) != Some(channels) || outputs % groups != 0 {
        return Err(format!(
            "operands {x:?} and {weight:?} do not fit {groups} groups: the weight is [O, C / groups, kh, kw]"
        ));
    }
    let mut dims = [outputs, height, width];
    for (i, kernel) in [kh, kw].into_iter().enumerate() {
        let dilated = dilation[i].checked_mul(kernel - 1).and_then(|size| size.checked_add(1));
        let count = dilated.and_then(|size| positions(dims[i + 1], padding[i], size, stride[i]));
        dims[i + 1] = count.ok_or_else(|| format!("the kernel of {weight:?} exceeds the padded operand {x:?}"))?;
    }
    Ok(dims.into())
}

fn transposed_convolution(
    x: &[usize],
    weight: &[usize],
    options: &ConvolutionOptions,
    output_padding: [usize; 2],
) -> Result<Vec<usize>, String> {
    let (&[channels, height, width], &[inputs, outputs, kh, kw]) = (x, weight) else {
        return Err(format!("operands {x:?} and {weight:?} must be [C, H, W] and [C, O / groups, kh, kw]"));
    };
    let ConvolutionOptions { stride, padding, dilation, groups } = options;
    check_positive([kh, kw], options)?;
    let Some(outputs) = outputs.checked_mul(*groups).filter(|_| inputs == channels && inputs % groups == 0) else {
        return Err(format!(
            "operands {x:?} and {weight:?} do not fit {groups} groups: the weight is [C, O / groups, kh, kw]"
        ));
    };
    let mut dims = [outputs, height, width];
    for (i, kernel) in [kh, kw].into_iter().enumerate() {
        let steps = dims[i + 1].checked_sub(1).and_then(|steps| steps.checked_mul(stride[i]));
        let reach = dilation[i].checked_mul(kernel - 1).and_then(|reach| reach.checked_add(output_padding[i]));
        let whole = steps.zip(reach).and_then(|(steps, reach)| steps.checked_add(reach)?.checked_add(1));
        let [before, after] = padding[i];
        let size =
            whole.filter(|size| *size <= MAX_ELEMENTS).and_then(|size| size.checked_sub(before)?.checked_sub(after));
        dims[i + 1] = size.ok_or_else(|| {
            format!("the result of {weight:?} on the operand {x:?} is smaller than what is removed, or too large")
        })?;
    }
    Ok(dims.into())
}

fn check_positive(kernel: [usize; 2], options: &ConvolutionOptions) -> Result<(), String> {
    let ConvolutionOptions { stride, dilation, groups, .. } = options;
    if [kernel, *stride, *dilation].as_flattened().contains(&0) || *groups == 0 {
        return Err("kernel, stride, dilation and groups must be at least 1".into());
    }
    Ok(())
}
