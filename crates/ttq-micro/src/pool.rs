//! Pooling.

/// Computes the maximum of each window, NaN if an element is NaN; `lowest` is not larger than any element.
pub(crate) fn max<T: Copy + PartialOrd>(
    [channels, height, width]: [usize; 3],
    [_, rows, columns]: [usize; 3],
    [size, stride, padding]: [[usize; 2]; 3],
    x: &[T],
    y: &mut [T],
    lowest: T,
) {
    let range = |i: usize, axis: usize, len: usize| {
        let start = i * stride[axis];
        start.saturating_sub(padding[axis])..(start + size[axis]).saturating_sub(padding[axis]).min(len)
    };
    for channel in 0..channels {
        for row in 0..rows {
            let to = &mut y[(channel * rows + row) * columns..][..columns];
            for (column, to) in to.iter_mut().enumerate() {
                let columns = range(column, 1, width);
                *to = lowest;
                for line in range(row, 0, height) {
                    for value in &x[(channel * height + line) * width..][..width][columns.clone()] {
                        // A comparison with NaN is false, also that of NaN with itself.
                        #[allow(clippy::eq_op, reason = "only NaN differs from itself")]
                        let keep = *to > *value || *to != *to;
                        *to = if keep { *to } else { *value };
                    }
                }
            }
        }
    }
}

/// Computes the mean of each window.
pub(crate) fn mean(
    [channels, height, width]: [usize; 3],
    [_, rows, columns]: [usize; 3],
    [size, stride]: [[usize; 2]; 2],
    x: &[f32],
    y: &mut [f32],
) {
    let factor = 1.0 / (size[0] * size[1]) as f32;
    for channel in 0..channels {
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let mut sum = 0.0;
            for line in row * stride[0]..row * stride[0] + size[0] {
                let line = &x[(channel * height + line) * width..][..width];
                sum += line[column * stride[1]..][..size[1]].iter().sum::<f32>();
            }
            y[(channel * rows + row) * columns + column] = sum * factor;
        }
    }
}
