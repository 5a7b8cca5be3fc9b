//! Digits that are part of this program, for a first run without a network.

use super::mnist::NAMES;
use super::{ImageSet, Images};

/// Side of the images in the package.
const SMALL: usize = 8;
/// Side of a digit after enlargement.
const DIGIT: usize = 20;
/// Side of the images, that of MNIST.
const SIDE: usize = 28;
const TEST: usize = 297;

/// The 1,797 digits of the UCI "Optical Recognition of Handwritten Digits" set that the package smartcore ships (8×8,
/// values 0 to 16), enlarged to 20×20 in the middle of 28×28. The last images of each digit, 297 in all, are for testing.
pub(crate) fn digits(reason: &str) -> Images {
    let small = smartcore::dataset::digits::load_dataset();
    let pixels = small.data.chunks_exact(SMALL * SMALL).flat_map(enlarge).collect();
    let labels = small.target.iter().map(|label| *label as u8).collect();
    let all = ImageSet::new([1, SIDE, SIDE], pixels, labels);
    let (train, test) = split(&all);
    let source = format!(
        "1,797 small digits (UCI) that are part of this program, NOT MNIST, which could not be downloaded ({reason}); for MNIST \
         connect to the network or give --data DIR"
    );
    Images::new("UCI digits", source, NAMES, train, test)
}

/// Moves the same share of each digit, from the end, to the test set.
fn split(all: &ImageSet) -> (ImageSet, ImageSet) {
    let mut of_digit: Vec<Vec<usize>> = vec![Vec::new(); 10];
    (0..all.len()).for_each(|index| of_digit[usize::from(all.label(index))].push(index));
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for indices in &of_digit {
        let taken = test.len();
        let share = (TEST * (train.len() + taken + indices.len())).div_ceil(all.len()) - taken;
        let (first, last) = indices.split_at(indices.len() - share);
        train.extend_from_slice(first);
        test.extend_from_slice(last);
    }
    train.sort_unstable();
    test.sort_unstable();
    (all.pick(&train), all.pick(&test))
}

/// Enlarges to [`DIGIT`] bilinearly and centers in [`SIDE`].
fn enlarge(small: &[f32]) -> Vec<u8> {
    let mut image = vec![0; SIDE * SIDE];
    let border = (SIDE - DIGIT) / 2;
    let at = |index: usize| {
        let position = (index as f32 + 0.5) * SMALL as f32 / DIGIT as f32 - 0.5;
        let position = position.clamp(0.0, (SMALL - 1) as f32);
        let low = (position as usize).min(SMALL - 2);
        (low, position - low as f32)
    };
    for y in 0..DIGIT {
        let (top, down) = at(y);
        for x in 0..DIGIT {
            let (left, right) = at(x);
            let pixel = |dy: usize, dx: usize| small[(top + dy) * SMALL + left + dx];
            let upper = pixel(0, 0) * (1.0 - right) + pixel(0, 1) * right;
            let lower = pixel(1, 0) * (1.0 - right) + pixel(1, 1) * right;
            let value = upper * (1.0 - down) + lower * down;
            image[(y + border) * SIDE + x + border] = (value * 255.0 / 16.0).round() as u8;
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_digits_are_whole_stratified_and_announced() {
        let images = digits("no network");
        assert_eq!((images.train.len(), images.test.len()), (1500, 297));
        assert!(images.source.contains("NOT MNIST") && images.source.contains("no network"));
        for digit in 0..10 {
            let count = |set: &ImageSet| (0..set.len()).filter(|i| set.label(*i) == digit).count();
            assert!((25..=35).contains(&count(&images.test)), "digit {digit}");
            assert!(count(&images.train) > 140);
        }
        assert!((0.05..0.3).contains(&images.mean[0]));
    }

    #[test]
    fn enlargement_keeps_a_flat_image_flat_inside_and_black_outside() {
        let image = enlarge(&[16.0; 64]);
        assert_eq!(image.iter().filter(|pixel| **pixel == 255).count(), DIGIT * DIGIT);
        assert_eq!(image.iter().filter(|pixel| **pixel == 0).count(), SIDE * SIDE - DIGIT * DIGIT);
    }
}
