//! The augmentation of the PyTorch port for Tiny ImageNet. Except for the random numbers, it is byte for byte that of
//! its torchvision and Pillow.

use rand::prelude::*;
use rand::rngs::StdRng;
use rand_distr::Normal;

/// An image as planes of red, green and blue with `height` × `width` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Picture {
    height: usize,
    width: usize,
    planes: [Vec<u8>; 3],
}

/// Distorts an image `[3, size[0], size[1]]` randomly and crops it to `[3, crop[0], crop[1]]`. The result is a function
/// of the image and `seed`. The steps are:
///
/// 1. a rotation by a normally distributed angle with mean 0 and standard deviation 15 degrees, clipped at ±40 degrees
///    (bicubic interpolation, black outside of the image);
/// 2. a crop at a random position;
/// 3. a horizontal flip with probability 0.5;
/// 4. in random order, changes of color, contrast, brightness and sharpness by normally distributed factors with mean
///    1, clipped at two standard deviations. The standard deviation is 0.3 for color and sharpness and 0.15 for
///    contrast and brightness.
pub(crate) fn distort(image: &[u8], size: [usize; 2], crop: [usize; 2], seed: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(seed);
    let degrees = clipped_normal(&mut random, 0.0, 15.0, 40.0);
    let corner = [0, 1].map(|axis| random.random_range(0..=size[axis] - crop[axis]));
    let mut picture = Picture::new(image, size).rotated(degrees, corner, crop);
    if random.random() {
        picture.flip();
    }
    let mut enhancements = [
        (Picture::grey as fn(&Picture) -> Picture, 0.3),
        (Picture::mean_grey, 0.15),
        (Picture::black, 0.15),
        (Picture::smooth, 0.3),
    ];
    enhancements.shuffle(&mut random);
    for (degenerate, deviation) in enhancements {
        let factor = clipped_normal(&mut random, 1.0, deviation, 2.0 * deviation);
        picture = picture.blended(&degenerate(&picture), factor as f32);
    }
    picture.planes.concat()
}

/// Draws a normally distributed number and clips it to `mean` ± `limit`.
fn clipped_normal(random: &mut StdRng, mean: f64, deviation: f64, limit: f64) -> f64 {
    match Normal::new(mean, deviation) {
        Ok(normal) => random.sample(normal).clamp(mean - limit, mean + limit),
        Err(error) => unreachable!("the standard deviations are positive constants: {error}"),
    }
}

impl Picture {
    fn new(image: &[u8], [height, width]: [usize; 2]) -> Self {
        let plane = |channel: usize| image[channel * height * width..][..height * width].to_vec();
        Self { height, width, planes: [0, 1, 2].map(plane) }
    }

    /// Rotates the image counterclockwise around its center, as `rotate` of Pillow with bicubic interpolation, and
    /// returns the part of size `crop` at `corner` (row, column).
    fn rotated(&self, degrees: f64, corner: [usize; 2], crop: [usize; 2]) -> Self {
        let (sin, cos) = (-degrees.to_radians()).sin_cos();
        let [middle_y, middle_x] = [self.height as f64 / 2.0, self.width as f64 / 2.0];
        let mut planes = [0, 1, 2].map(|_| Vec::with_capacity(crop[0] * crop[1]));
        for row in 0..crop[0] {
            for column in 0..crop[1] {
                // Position of the pixel's center relative to the image's center, then its source.
                let y = (corner[0] + row) as f64 + 0.5 - middle_y;
                let x = (corner[1] + column) as f64 + 0.5 - middle_x;
                let source = [middle_y - sin * x + cos * y, middle_x + cos * x + sin * y];
                let value = self.bicubic(source);
                planes.iter_mut().zip(value).for_each(|(plane, value)| plane.push(value));
            }
        }
        Self { height: crop[0], width: crop[1], planes }
    }

    /// Returns the color at a point, with 0 at the upper or left edge: black outside of the image, else cubic
    /// convolution with a = -1 over the surrounding 4×4 pixels. Pixels at the edge are repeated, and the result is
    /// clamped and truncated to a byte.
    fn bicubic(&self, [y, x]: [f64; 2]) -> [u8; 3] {
        if !(0.0..self.height as f64).contains(&y) || !(0.0..self.width as f64).contains(&x) {
            return [0; 3];
        }
        let (rows, dy) = taps(y, self.height);
        let (columns, dx) = taps(x, self.width);
        [0, 1, 2].map(|channel| {
            let plane: &[u8] = &self.planes[channel];
            let across = rows.map(|row| cubic(columns.map(|column| f64::from(plane[row * self.width + column])), dx));
            // Truncated, not rounded, as in Pillow.
            cubic(across, dy).clamp(0.0, 255.0) as u8
        })
    }

    /// Flips the image horizontally.
    fn flip(&mut self) {
        for plane in &mut self.planes {
            plane.chunks_exact_mut(self.width).for_each(<[u8]>::reverse);
        }
    }

    /// Computes `degenerate + factor · (self - degenerate)`, clamped and truncated to bytes.
    fn blended(&self, degenerate: &Self, factor: f32) -> Self {
        let blend = |channel: usize| {
            let pairs = self.planes[channel].iter().zip(&degenerate.planes[channel]);
            pairs.map(|(own, degenerate)| {
                let (own, degenerate) = (f32::from(*own), f32::from(*degenerate));
                (degenerate + factor * (own - degenerate)).clamp(0.0, 255.0) as u8
            })
        };
        Self { planes: [0, 1, 2].map(|channel| blend(channel).collect()), ..*self }
    }

    /// Returns the luma of each pixel by ITU-R 601-2, with weights of 16 bits.
    fn luma(&self) -> impl Iterator<Item = u8> {
        let [red, green, blue] = &self.planes;
        let pixels = red.iter().zip(green).zip(blue);
        pixels.map(|((r, g), b)| {
            ((19_595 * u32::from(*r) + 38_470 * u32::from(*g) + 7_471 * u32::from(*b) + 0x8000) >> 16) as u8
        })
    }

    /// Returns the image without color.
    fn grey(&self) -> Self {
        let luma: Vec<u8> = self.luma().collect();
        Self { planes: [luma.clone(), luma.clone(), luma], ..*self }
    }

    /// Returns an image with the mean luma in all pixels.
    fn mean_grey(&self) -> Self {
        let sum: u64 = self.luma().map(u64::from).sum();
        let mean = sum as f64 / (self.height * self.width) as f64;
        self.filled((mean + 0.5) as u8)
    }

    /// Returns a black image.
    fn black(&self) -> Self {
        self.filled(0)
    }

    /// Returns an image with `value` in all pixels and planes.
    fn filled(&self, value: u8) -> Self {
        Self { planes: [0, 1, 2].map(|_| vec![value; self.height * self.width]), ..*self }
    }

    /// Returns the weighted mean of 3×3 pixels, with weight 5 for the center and 1 for the others. Pixels at the edge
    /// are unchanged.
    fn smooth(&self) -> Self {
        let mut smooth = self.clone();
        for (plane, from) in smooth.planes.iter_mut().zip(&self.planes) {
            for row in 1..self.height.saturating_sub(1) {
                for column in 1..self.width.saturating_sub(1) {
                    let at = row * self.width + column;
                    let sum: u32 = [at - self.width, at, at + self.width]
                        .iter()
                        .map(|at| from[at - 1..=at + 1].iter().map(|pixel| u32::from(*pixel)).sum::<u32>())
                        .sum();
                    let weighted = sum + 4 * u32::from(from[at]);
                    plane[at] = (f64::from(weighted) / 13.0 + 0.5) as u8;
                }
            }
        }
        smooth
    }
}

/// Returns the indices of the four pixels around a coordinate on an axis with `len` pixels, and its distance to the
/// second.
fn taps(coordinate: f64, len: usize) -> ([usize; 4], f64) {
    let floor = (coordinate - 0.5).floor();
    let pixels = [-1.0, 0.0, 1.0, 2.0].map(|offset| (floor + offset).clamp(0.0, len as f64 - 1.0) as usize);
    (pixels, coordinate - 0.5 - floor)
}

/// Interpolates between `b` and `c` at `t` in [0, 1] by cubic convolution with a = -1.
fn cubic([a, b, c, d]: [f64; 4], t: f64) -> f64 {
    b + t * ((c - a) + t * ((2.0 * (a - b) + c - d) + t * (b - a - c + d)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    const SIZE: [usize; 2] = [6, 7];

    /// Returns the input of Pillow 13.0.
    fn picture() -> Picture {
        let value =
            |c: usize, y: usize, x: usize| ((37 * c + 53 * y + 29 * x + 11 * x * y + 7 * c * x * x) % 256) as u8;
        let pixels = (0..3).flat_map(|c| (0..6).flat_map(move |y| (0..7).map(move |x| value(c, y, x))));
        Picture::new(&pixels.collect::<Vec<_>>(), SIZE)
    }

    /// Results of Pillow: pairs of the argument and the bytes of the result.
    #[derive(Deserialize)]
    struct Pillow {
        rotate: Vec<(f64, Vec<u8>)>,
        color: Vec<(f32, Vec<u8>)>,
        contrast: Vec<(f32, Vec<u8>)>,
        brightness: Vec<(f32, Vec<u8>)>,
        sharpness: Vec<(f32, Vec<u8>)>,
    }

    fn pillow() -> Pillow {
        serde_json::from_str(include_str!("pillow.json")).unwrap()
    }

    #[test]
    fn rotations_equal_those_of_pillow_and_a_crop_is_a_part_of_them() {
        for (degrees, expected) in pillow().rotate {
            let whole = picture().rotated(degrees, [0, 0], SIZE);
            assert_eq!(whole.planes.concat(), expected, "{degrees} degrees");
            let part = picture().rotated(degrees, [1, 2], [4, 3]);
            for (row, column) in (0..4).flat_map(|row| (0..3).map(move |column| (row, column))) {
                assert_eq!(part.planes[1][row * 3 + column], whole.planes[1][(row + 1) * 7 + column + 2]);
            }
        }
        assert_eq!(picture().rotated(0.0, [0, 0], SIZE), picture());
    }

    #[test]
    fn color_contrast_brightness_and_sharpness_equal_those_of_pillow() {
        let Pillow { color, contrast, brightness, sharpness, .. } = pillow();
        let check = |name: &str, degenerate: fn(&Picture) -> Picture, cases: Vec<(f32, Vec<u8>)>| {
            assert_eq!(cases.len(), 2);
            for (factor, expected) in cases {
                let picture = picture();
                assert_eq!(picture.blended(&degenerate(&picture), factor).planes.concat(), expected, "{name} {factor}");
            }
        };
        check("color", Picture::grey, color);
        check("contrast", Picture::mean_grey, contrast);
        check("brightness", Picture::black, brightness);
        check("sharpness", Picture::smooth, sharpness);
    }

    #[test]
    fn the_result_is_a_function_of_the_seed() {
        let image: Vec<u8> = (0..3 * 64 * 64).map(|i| (i * 7 % 251) as u8).collect();
        let distort = |seed| distort(&image, [64, 64], [56, 56], seed);
        assert_eq!(distort(5).len(), 3 * 56 * 56);
        assert_eq!(distort(5), distort(5));
        assert_ne!(distort(5), distort(6));
    }

    #[test]
    fn clipped_numbers_have_the_given_deviation_and_reach_their_limits() {
        let mut random = StdRng::seed_from_u64(1);
        let drawn: Vec<f64> = (0..20_000).map(|_| clipped_normal(&mut random, 1.0, 0.3, 0.6)).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let within = drawn.iter().filter(|x| (**x - 1.0).abs() < 0.3).count() as f64 / drawn.len() as f64;
        assert!((mean - 1.0).abs() < 0.01 && (within - 0.6827).abs() < 0.015, "{mean} {within}");
        let extremes = drawn.iter().fold((1.0, 1.0), |(low, high), x| (f64::min(low, *x), f64::max(high, *x)));
        assert_eq!(extremes, (0.4, 1.6));
    }
}
