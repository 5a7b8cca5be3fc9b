//! Labelled images in memory.

use ttq_train::item_seed;

use super::Distort;

/// Labelled images of one shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageSet {
    shape: [usize; 3],
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

/// A data set: training images, test images and the statistics that normalize them.
#[derive(Debug, Clone)]
pub struct Images {
    /// Name of the data set.
    pub name: &'static str,
    /// Origin of the data, in one line.
    pub source: String,
    /// Number of classes.
    pub classes: usize,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// Training images.
    pub train: ImageSet,
    /// Validation images, held out of the training images when a run begins.
    pub valid: ImageSet,
    /// Test images, of the shape of the network's input. Training images may be larger; augmentation crops them.
    pub test: ImageSet,
    /// Mean of each channel, for pixels between 0 and 1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, for pixels between 0 and 1.
    pub std: Vec<f32>,
    /// The function behind [`Augmentation::Distort`](super::Augmentation::Distort).
    pub distort: Option<Distort>,
}

impl Images {
    /// Creates a data set of ten classes, with the statistics of its training images.
    pub(crate) fn new(
        name: &'static str,
        source: String,
        class_names: [&'static str; 10],
        train: ImageSet,
        test: ImageSet,
    ) -> Self {
        let (mean, std) = train.brightness();
        let class_names = class_names.map(String::from).to_vec();
        let (classes, valid) = (class_names.len(), ImageSet::empty(train.shape()));
        Self { name, source, classes, class_names, train, valid, test, mean, std, distort: None }
    }
}

impl ImageSet {
    /// Creates a set from pixels `[n, channels, height, width]` and `n` labels.
    ///
    /// # Panics
    /// If the numbers of pixels and labels do not match.
    pub fn new(shape: [usize; 3], pixels: Vec<u8>, labels: Vec<u8>) -> Self {
        let size: usize = shape.iter().product();
        assert_eq!(pixels.len(), labels.len() * size, "ImageSet: every label needs {size} pixels");
        Self { shape, pixels, labels }
    }

    /// Creates a set without images.
    pub fn empty(shape: [usize; 3]) -> Self {
        Self { shape, pixels: Vec::new(), labels: Vec::new() }
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Returns `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Returns the pixels of an image, channel by channel.
    pub fn image(&self, index: usize) -> &[u8] {
        let size: usize = self.shape.iter().product();
        &self.pixels[index * size..(index + 1) * size]
    }

    /// Returns the class of an image.
    pub fn label(&self, index: usize) -> u8 {
        self.labels[index]
    }

    /// Keeps the first `n` images.
    pub fn truncate(&mut self, n: usize) {
        let size: usize = self.shape.iter().product();
        self.labels.truncate(n);
        self.pixels.truncate(self.labels.len() * size);
    }

    /// Splits off `validation` images at random: returns the remaining training images, in their order, and the validation
    /// images. The draw is a function of `seed`.
    pub fn split(&self, validation: usize, seed: u64) -> (Self, Self) {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|index| item_seed(seed, 0, *index));
        let (held_out, rest) = order.split_at_mut(validation.min(self.len()));
        held_out.sort_unstable();
        rest.sort_unstable();
        (self.pick(rest), self.pick(held_out))
    }

    /// Returns the images at these indices.
    pub(crate) fn pick(&self, indices: &[usize]) -> Self {
        let pixels = indices.iter().flat_map(|index| self.image(*index).iter().copied()).collect();
        Self { shape: self.shape, pixels, labels: indices.iter().map(|index| self.labels[*index]).collect() }
    }

    /// Crops each image to its center, `[channels, rows, columns]`. If an odd number of pixels is cut off, the larger half is
    /// cut off at the bottom and on the right.
    ///
    /// # Panics
    /// If the images are smaller.
    pub fn center_crop(&self, [rows, columns]: [usize; 2]) -> Self {
        let [channels, height, width] = self.shape;
        assert!(rows <= height && columns <= width, "cannot crop {height}×{width} to {rows}×{columns}");
        let (top, left) = ((height - rows) / 2, (width - columns) / 2);
        let cropped = self
            .pixels
            .chunks_exact(width)
            .enumerate()
            .filter(|(row, _)| (top..top + rows).contains(&(row % height)))
            .flat_map(|(_, row)| row[left..left + columns].iter().copied());
        Self { shape: [channels, rows, columns], pixels: cropped.collect(), labels: self.labels.clone() }
    }

    /// Computes mean and standard deviation of each channel, for pixels between 0 and 1.
    fn brightness(&self) -> (Vec<f32>, Vec<f32>) {
        let [channels, height, width] = self.shape;
        let plane = height * width;
        (0..channels)
            .map(|channel| {
                // Sums of bytes and their squares are exact in u64.
                let planes = (0..self.len()).map(|i| &self.image(i)[channel * plane..(channel + 1) * plane]);
                let (sum, squares) = planes.flatten().fold((0u64, 0u64), |(sum, squares), pixel| {
                    let value = u64::from(*pixel);
                    (sum + value, squares + value * value)
                });
                let n = (self.len() * plane).max(1) as f64;
                let mean = sum as f64 / n / 255.0;
                let variance = squares as f64 / n / (255.0 * 255.0) - mean * mean;
                (mean as f32, variance.max(1e-12).sqrt() as f32)
            })
            .unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(n: usize) -> ImageSet {
        ImageSet::new([1, 1, 2], (0..2 * n).map(|i| (i / 2) as u8).collect(), (0..n).map(|i| i as u8).collect())
    }

    #[test]
    fn a_split_is_disjoint_complete_and_repeats_with_the_seed() {
        let set = numbered(100);
        let (train, valid) = set.split(30, 5);
        assert_eq!((train.len(), valid.len()), (70, 30));
        assert_eq!(set.split(30, 5), (train.clone(), valid.clone()));
        assert_ne!(set.split(30, 6).1, valid);
        let mut labels = [train.labels, valid.labels.clone()].concat();
        labels.sort_unstable();
        assert_eq!(labels, set.labels);
        assert!((0..30).all(|i| valid.image(i) == [valid.label(i); 2]));
    }

    #[test]
    fn brightness_is_measured_per_channel() {
        let set = ImageSet::new([2, 1, 2], vec![0, 255, 51, 51], vec![0]);
        let (mean, std) = set.brightness();
        assert_eq!(mean, [0.5, 0.2]);
        assert!((std[0] - 0.5).abs() < 1e-6 && std[1] < 1e-5);
    }

    #[test]
    fn a_center_crop_keeps_the_middle_of_every_plane() {
        // Pixels are plane, row and column in decimal.
        let pixels = (0..2).flat_map(|c| (0..4).flat_map(move |y| (0..5).map(move |x| 100 * c + 10 * y + x)));
        let set = ImageSet::new([1, 4, 5], pixels.collect(), vec![7, 8]);
        let cropped = set.center_crop([2, 3]);
        assert_eq!((cropped.shape(), cropped.label(1)), ([1, 2, 3], 8));
        assert_eq!(cropped.image(0), [11, 12, 13, 21, 22, 23]);
        assert_eq!(cropped.image(1), [111, 112, 113, 121, 122, 123]);
    }

    #[test]
    fn truncation_keeps_the_first_images() {
        let mut set = numbered(5);
        set.truncate(2);
        assert_eq!(set, numbered(2));
    }
}
