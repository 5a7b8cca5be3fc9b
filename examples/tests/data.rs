//! Files of data sets: sound ones, damaged ones, and the real ones.

use std::fs;

use ttq_examples::data::cache::real_data;
use ttq_examples::data::{Images, cifar10, mnist};

/// Two images, as a well-formed file.
fn images() -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28];
    bytes.resize(bytes.len() + 2 * 784, 7);
    bytes
}

fn labels() -> Vec<u8> {
    vec![0, 0, 8, 1, 0, 0, 0, 2, 3, 9]
}

/// Reads MNIST from a directory with these training files and sound test files.
fn read(images_file: &[u8], labels_file: &[u8]) -> Result<Images, String> {
    let directory = tempfile::tempdir().unwrap();
    let files = [
        ("train-images-idx3-ubyte", images_file.to_vec()),
        ("train-labels-idx1-ubyte", labels_file.to_vec()),
        ("t10k-images-idx3-ubyte", images()),
        ("t10k-labels-idx1-ubyte", labels()),
    ];
    files.iter().for_each(|(name, bytes)| fs::write(directory.path().join(name), bytes).unwrap());
    mnist(Some(directory.path())).map_err(|error| error.to_string())
}

#[test]
fn a_well_formed_pair_of_files_is_read() {
    let set = read(&images(), &labels()).unwrap().train;
    assert_eq!((set.len(), set.label(1), set.image(1)[783]), (2, 9, 7));
}

#[test]
fn a_truncated_file_and_trailing_bytes_are_named_with_both_sizes() {
    for bytes in [images()[..1000].to_vec(), [images(), vec![0]].concat()] {
        let error = read(&bytes, &labels()).unwrap_err();
        assert!(error.contains("train-images") && error.contains("1584 bytes"), "{error}");
        assert!(error.contains(&bytes.len().to_string()), "{error}");
    }
    assert!(read(&[0, 0], &labels()).unwrap_err().contains("16 bytes or more"));
}

#[test]
fn a_wrong_magic_number_a_wrong_shape_and_wrong_labels_are_named() {
    let mut wrong = images();
    wrong[3] = 1;
    assert!(read(&wrong, &labels()).unwrap_err().contains("magic number"));
    let mut wrong = images();
    wrong[15] = 27;
    assert!(read(&wrong, &labels()).unwrap_err().contains("size of an image should be [28, 28]"));
    let three = [0, 0, 8, 1, 0, 0, 0, 3, 3, 9, 1];
    assert!(read(&images(), &three).unwrap_err().contains("number of labels should be 2"));
    assert!(read(&images(), &[0, 0, 8, 1, 0, 0, 0, 2, 3, 10]).unwrap_err().contains("largest label"));
}

#[test]
fn a_broken_gzip_stream_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("train-images-idx3-ubyte.gz"), b"no gzip").unwrap();
    let error = mnist(Some(directory.path())).unwrap_err().to_string();
    assert!(error.contains("train-images-idx3-ubyte.gz is damaged") && error.contains("gzip"), "{error}");
}

#[test]
fn the_real_mnist_has_its_published_sizes_and_statistics() {
    let Some(data) = real_data() else { return };
    let images = mnist(Some(&data)).unwrap();
    assert_eq!((images.train.len(), images.test.len()), (60_000, 10_000));
    assert_eq!((images.train.label(0), images.test.label(0)), (5, 7));
    assert!((images.mean[0] - 0.1307).abs() < 1e-4 && (images.std[0] - 0.3081).abs() < 1e-4);
}

#[test]
fn the_real_cifar_10_has_its_published_sizes_and_statistics() {
    let Some(data) = real_data() else { return };
    let images = cifar10(Some(&data)).unwrap();
    assert_eq!((images.train.len(), images.test.len()), (50_000, 10_000));
    assert_eq!((images.train.label(0), images.test.label(0)), (6, 3));
    for (mean, known) in images.mean.iter().zip([0.4914, 0.4822, 0.4465]) {
        assert!((mean - known).abs() < 1e-3);
    }
}
