//! Conversion of images from bytes to normalized floats, with or without random changes.

use serde::{Deserialize, Serialize};
use ttq_train::item_seed;

/// A random change of a training image in bytes: from `[channels, size[0], size[1]]` to `[channels, crop[0], crop[1]]`, a
/// function of the seed. Arguments: image, size, crop, seed.
pub type Distort = fn(&[u8], [usize; 2], [usize; 2], u64) -> Vec<u8>;

/// Random changes of training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augmentation {
    /// Padding with zeros, a crop to the image's own size, and a horizontal flip.
    Shift {
        /// Number of pixels added on each side before the crop.
        padding: usize,
        /// Whether half of the images are flipped.
        flip: bool,
        /// Side of a square of zeros after normalization, at a random centre and clipped at the border; 0 for none (DeVries
        /// and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017).
        cutout: usize,
    },
    /// The function [`Images::distort`](super::Images::distort) of the data.
    Distort,
}

impl Augmentation {
    /// Sets the side of the square that is cut out. A distortion stays as it is.
    #[must_use]
    pub fn with_cutout(self, cutout: usize) -> Self {
        match self {
            Self::Shift { padding, flip, .. } => Self::Shift { padding, flip, cutout },
            Self::Distort => Self::Distort,
        }
    }

    /// Writes a randomly changed image of the shape `shape`, `[channels, height, width]`, to `out`, `[channels, size[0],
    /// size[1]]`, normalized by channel: `(pixel / 255 - mean) / std`. The change is a function of `seed`.
    ///
    /// # Panics
    /// If a shift has another size than the image, or if there is no `distort` function for a distortion.
    #[allow(clippy::too_many_arguments, reason = "an image, its statistics and its target")]
    pub fn apply(
        &self,
        image: &[u8],
        shape: [usize; 3],
        [mean, std]: [&[f32]; 2],
        seed: u64,
        size: [usize; 2],
        distort: Option<Distort>,
        out: &mut [f32],
    ) {
        let [channels, height, width] = shape;
        match (*self, distort) {
            (Self::Shift { padding, flip, cutout }, _) => {
                assert_eq!(size, [height, width], "a shifted image keeps its size");
                shift(image, shape, [mean, std], (padding, flip, seed), out);
                cut_out(cutout, size, seed, out);
            }
            (Self::Distort, Some(distort)) => {
                let pixels = distort(image, [height, width], size, seed);
                normalize(&pixels, [channels, size[0], size[1]], mean, std, out);
            }
            (Self::Distort, None) => panic!("this example has no distortion"),
        }
    }
}

/// Pads with 0 after normalization.
fn shift(
    image: &[u8],
    [channels, height, width]: [usize; 3],
    [mean, std]: [&[f32]; 2],
    (padding, flip, seed): (usize, bool, u64),
    out: &mut [f32],
) {
    let positions = 2 * padding as u64 + 1;
    let shift = |random: u64| (random % positions) as isize - padding as isize;
    let (down, right) = (shift(seed >> 8), shift(seed >> 32));
    let flip = flip && seed & 1 == 1;
    for channel in 0..channels {
        let plane = &image[channel * height * width..][..height * width];
        let out = &mut out[channel * height * width..][..height * width];
        for (y, row) in out.chunks_exact_mut(width).enumerate() {
            let from_y = y as isize + down;
            for (x, value) in row.iter_mut().enumerate() {
                let x = if flip { width - 1 - x } else { x };
                let from_x = x as isize + right;
                let inside = (0..height as isize).contains(&from_y) && (0..width as isize).contains(&from_x);
                *value = if inside {
                    let pixel = plane[from_y as usize * width + from_x as usize];
                    scale(pixel, mean[channel], std[channel])
                } else {
                    0.0
                };
            }
        }
    }
}

/// Sets a square of the side `side` to 0 in every channel, at a random centre.
fn cut_out(side: usize, [height, width]: [usize; 2], seed: u64, out: &mut [f32]) {
    // Other bits than those of the shift.
    let random = item_seed(seed, 0, 0);
    let range = |random: u64, size: usize| {
        let first = (random % size as u64) as isize - side as isize / 2;
        (first.max(0) as usize).min(size)..((first + side as isize).max(0) as usize).min(size)
    };
    let (rows, columns) = (range(random >> 8, height), range(random >> 32, width));
    for plane in out.chunks_exact_mut(height * width) {
        for row in rows.clone() {
            plane[row * width..][columns.clone()].fill(0.0);
        }
    }
}

/// Writes an image to `out`, normalized by channel: `(pixel / 255 - mean) / std`.
pub fn normalize(image: &[u8], [_, height, width]: [usize; 3], mean: &[f32], std: &[f32], out: &mut [f32]) {
    let planes = image.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width));
    for ((plane, out), (mean, std)) in planes.zip(mean.iter().zip(std)) {
        for (pixel, value) in plane.iter().zip(out) {
            *value = scale(*pixel, *mean, *std);
        }
    }
}

fn scale(pixel: u8, mean: f32, std: f32) -> f32 {
    (f32::from(pixel) / 255.0 - mean) / std
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [2, 3, 4];

    fn image() -> Vec<u8> {
        (1..=24).map(|i| i * 10).collect()
    }

    fn apply(augmentation: Augmentation, seed: u64) -> Vec<f32> {
        let mut out = vec![f32::NAN; 24];
        augmentation.apply(&image(), SHAPE, [&[0.0, 0.5], &[1.0, 0.25]], seed, [3, 4], None, &mut out);
        out
    }

    fn normalized() -> Vec<f32> {
        let mut out = vec![f32::NAN; 24];
        normalize(&image(), SHAPE, &[0.0, 0.5], &[1.0, 0.25], &mut out);
        out
    }

    #[test]
    fn pixels_are_normalized_by_the_statistics_of_their_channel() {
        let out = normalized();
        assert_eq!(out[0], 10.0 / 255.0);
        assert_eq!(out[23], (240.0 / 255.0 - 0.5) / 0.25);
    }

    #[test]
    fn without_padding_and_flip_an_image_stays_as_it_is() {
        for seed in 0..20 {
            assert_eq!(
                apply(Augmentation::Shift { padding: 0, flip: false, cutout: 0 }, item_seed(seed, 1, 2)),
                normalized()
            );
        }
    }

    #[test]
    fn crops_and_flips_are_all_reached_and_move_whole_images() {
        let (padding, flip) = (1, true);
        let plain = normalized();
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..500 {
            let out = apply(Augmentation::Shift { padding, flip, cutout: 0 }, item_seed(3, 1, index));
            let matches: Vec<(isize, isize, bool)> = (-1..=1)
                .flat_map(|down| (-1..=1).flat_map(move |right| [false, true].map(|flip| (down, right, flip))))
                .filter(|(down, right, flip)| {
                    (0..24).all(|at| {
                        let (c, y, x) = (at / 12, at / 4 % 3, at % 4);
                        let x = if *flip { 3 - x } else { x };
                        let (y, x) = (y as isize + down, x as isize + right);
                        let inside = (0..3).contains(&y) && (0..4).contains(&x);
                        let expected = if inside { plain[c * 12 + y as usize * 4 + x as usize] } else { 0.0 };
                        out[at] == expected
                    })
                })
                .collect();
            assert_eq!(matches.len(), 1);
            seen.insert(matches[0]);
        }
        assert_eq!(seen.len(), 18);
    }
    #[test]
    fn a_square_around_every_position_is_cut_out_of_all_channels_and_nothing_else_changes() {
        let (plain, [_, height, width]) = (normalized(), SHAPE);
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..500 {
            let out = apply(Augmentation::Shift { padding: 0, flip: false, cutout: 2 }, item_seed(5, 1, index));
            // The square of 2 covers the centre and the pixels above and to the left of it.
            let centres: Vec<(usize, usize)> = (0..height)
                .flat_map(|y| (0..width).map(move |x| (y, x)))
                .filter(|(y, x)| {
                    (0..24).all(|at| {
                        let (row, column) = (at / width % height, at % width);
                        let is_cut = (row == *y || row + 1 == *y) && (column == *x || column + 1 == *x);
                        out[at] == if is_cut { 0.0 } else { plain[at] }
                    })
                })
                .collect();
            assert_eq!(centres.len(), 1);
            seen.insert(centres[0]);
        }
        assert_eq!(seen.len(), height * width);
    }
}
