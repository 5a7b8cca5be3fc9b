//! Tiny ImageNet (Stanford CS231n): 200 classes of ImageNet with 500 training and 50 validation images of 64×64 pixels
//! each.
//!
//! ```text
//! wnids.txt                        ids of the classes; the number of a class is the position of its id in sorted order
//! train/<id>/images/*.JPEG
//! val/images/*.JPEG
//! val/val_annotations.txt          file, id and bounding box of each image, separated by tabs
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ttq_examples::data::cache::given;
use ttq_examples::data::{DataError, ImageSet, Images};

use crate::distort::distort;
use crate::jpeg::{JpegFile, decode_all};

const NAME: &str = "Tiny ImageNet";
const URL: &str = "http://cs231n.stanford.edu/tiny-imagenet-200.zip";
const FOLDER: &str = "tiny-imagenet-200";
const IDS: &str = "wnids.txt";
const ANNOTATIONS: &str = "val/val_annotations.txt";
const ARCHIVE: &str = "val.tar";
const CLASSES: usize = 200;
/// Height and width of an image.
const SIDE: usize = 64;
/// Height and width of the crop that is the input of networks: central for test images, random for training images.
const CROP: usize = 56;
/// If there are validation images only, one of so many is a test image and the others are training images.
const TEST_SHARE: usize = 10;
/// Mean and standard deviation of the channels of ImageNet.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Loads Tiny ImageNet: training images `[3, 64, 64]`, and the 56×56 pixels in the center of the validation images,
/// whose classes are known, as test images `[3, 56, 56]`. If there are no training images, the first nine tenths of the
/// validation images are the training images and the last tenth are the test images.
///
/// `data` is the folder of the unpacked data set, its parent, or a tar file `val.tar` with `wnids.txt` and the
/// validation images.
///
/// # Errors
/// Returns [`DataError`] if the data set is missing, since this program does not download it, or if files are damaged.
pub(crate) fn training(data: Option<&Path>) -> Result<Images, DataError> {
    let source = Source::find(data)?;
    let classes = source.classes()?;
    let valid = source.validation(&classes)?;
    let train = source.training(&classes)?;
    if !train.is_empty() {
        let train = decode_all(NAME, SIDE, &train)?;
        return Ok(images(source.to_string(), &classes, train, &decode_all(NAME, SIDE, &valid)?));
    }
    let held_out = valid.len() / TEST_SHARE;
    let (train, test) = valid.split_at(valid.len() - held_out);
    let (train, test) = (decode_all(NAME, SIDE, train)?, decode_all(NAME, SIDE, test)?);
    let split = format!("{source}, validation images only: {} for training, {} for testing", train.len(), test.len());
    Ok(images(split, &classes, train, &test))
}

/// Loads all validation images as test images, `[3, 56, 56]`, and no training images.
///
/// # Errors
/// Returns [`DataError`] as [`training`] does.
pub(crate) fn validation(data: Option<&Path>) -> Result<Images, DataError> {
    let source = Source::find(data)?;
    let classes = source.classes()?;
    let test = decode_all(NAME, SIDE, &source.validation(&classes)?)?;
    Ok(images(source.to_string(), &classes, ImageSet::empty([3, SIDE, SIDE]), &test))
}

fn images(source: String, classes: &Classes, train: ImageSet, test: &ImageSet) -> Images {
    let test = test.center_crop([CROP, CROP]);
    let class_names = classes.keys().cloned().collect();
    Images {
        name: NAME,
        source,
        classes: CLASSES,
        class_names,
        valid: ImageSet::empty(train.shape()),
        train,
        test,
        mean: MEAN.into(),
        std: STD.into(),
        distort: Some(distort),
    }
}

/// Number of each class by its id.
type Classes = BTreeMap<String, u8>;

/// Location of the files.
enum Source {
    /// Folder of the unpacked data set.
    Folder(PathBuf),
    /// A tar file, and the contents of its files.
    Archive { path: PathBuf, files: HashMap<String, Vec<u8>> },
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Folder(path) | Self::Archive { path, .. }) = self;
        write!(f, "{NAME} from {}", path.display())
    }
}

impl Source {
    /// Finds the data set in `data` or `$TTQ_DATA` if either is given, else in the cache of the user.
    fn find(data: Option<&Path>) -> Result<Self, DataError> {
        let given = given(data);
        let place = given.clone().map(|(directory, _)| directory).or_else(|| Some(dirs::cache_dir()?.join("ttq")));
        let found = place.and_then(|place| {
            let candidates = [place.join(FOLDER).join(ARCHIVE), place.join(ARCHIVE), place.clone()];
            let folder = [place.join(FOLDER), place].into_iter().find(|folder| folder.join(ANNOTATIONS).is_file());
            folder.or_else(|| candidates.into_iter().find(|file| file.is_file()))
        });
        match (found, given) {
            (Some(path), _) if path.is_dir() => Ok(Self::Folder(path)),
            (Some(path), _) => Self::open(path),
            (None, Some((directory, named_by))) => Err(DataError::Missing {
                name: NAME,
                directory,
                named_by,
                expected: "val/val_annotations.txt or val.tar",
                folder: FOLDER,
            }),
            (None, None) => Err(DataError::NotDownloaded { name: NAME, url: URL }),
        }
    }

    /// Reads an archive into memory.
    fn open(path: PathBuf) -> Result<Self, DataError> {
        let file = fs::File::open(&path).map_err(DataError::file("open", &path))?;
        let unpack = || -> io::Result<HashMap<String, Vec<u8>>> {
            let mut files = HashMap::new();
            for entry in tar::Archive::new(io::BufReader::new(file)).entries()? {
                let mut entry = entry?;
                if !entry.header().entry_type().is_file() {
                    continue;
                }
                let name = entry.path()?.to_string_lossy().into_owned();
                // The archive contains the folder or its content.
                let name = name.trim_start_matches("./").trim_start_matches(&format!("{FOLDER}/")).to_owned();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                files.insert(name, bytes);
            }
            Ok(files)
        };
        let files = unpack().map_err(DataError::file("unpack", &path))?;
        Ok(Self::Archive { path, files })
    }

    fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(name),
            Self::Archive { path, .. } => path.join(name),
        }
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match self {
            Self::Folder(folder) => fs::read(folder.join(name)),
            Self::Archive { files, .. } => files.get(name).cloned().ok_or(io::ErrorKind::NotFound.into()),
        }
    }

    fn text(&self, name: &str) -> Result<String, DataError> {
        let bytes = self.read(name).map_err(DataError::file("read", self.path(name)))?;
        String::from_utf8(bytes).map_err(|error| DataError::damaged(self.path(name), "text", "UTF-8", error))
    }

    fn image(&self, name: String, label: u8) -> JpegFile<'_> {
        JpegFile { path: self.path(&name), label, read: Box::new(move || self.read(&name)) }
    }

    /// Reads the ids and returns the number of each class.
    fn classes(&self) -> Result<Classes, DataError> {
        let text = self.text(IDS)?;
        let ids: std::collections::BTreeSet<&str> = text.split_whitespace().collect();
        if ids.len() != CLASSES {
            return Err(DataError::damaged(self.path(IDS), "number of classes", CLASSES, ids.len()));
        }
        Ok(ids.into_iter().map(str::to_owned).zip(0..).collect())
    }

    /// Returns the validation images in the order of their annotations.
    fn validation(&self, classes: &Classes) -> Result<Vec<JpegFile<'_>>, DataError> {
        let text = self.text(ANNOTATIONS)?;
        let images = text.lines().filter(|line| !line.trim().is_empty()).map(|line| {
            let mut fields = line.split('\t');
            let (file, id) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            let class = classes.get(id).ok_or_else(|| {
                DataError::damaged(
                    self.path(ANNOTATIONS),
                    "class",
                    format!("an id of {IDS}"),
                    format!("`{id}` in `{line}`"),
                )
            })?;
            Ok(self.image(format!("val/images/{file}"), *class))
        });
        let images = images.collect::<Result<Vec<_>, DataError>>()?;
        if images.is_empty() {
            return Err(DataError::damaged(self.path(ANNOTATIONS), "number of images", "above 0", 0));
        }
        Ok(images)
    }

    /// Returns the training images: the first image of every class, then the second one of every class and so on, so
    /// that a part of them contains all classes. Empty for an archive.
    fn training(&self, classes: &Classes) -> Result<Vec<JpegFile<'_>>, DataError> {
        let Self::Folder(folder) = self else { return Ok(Vec::new()) };
        if !folder.join("train").is_dir() {
            return Ok(Vec::new());
        }
        let mut images = Vec::new();
        for (id, class) in classes {
            let directory = format!("train/{id}/images");
            let path = folder.join(&directory);
            let entries = fs::read_dir(&path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
            let mut names: Vec<String> = entries
                .map_err(DataError::file("list", &path))?
                .iter()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name.ends_with(".JPEG"))
                .collect();
            // By number: names of a class differ only in it, and 10 comes after 9.
            names.sort_unstable_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
            images.extend(names.into_iter().enumerate().map(|(n, name)| (n, *class, format!("{directory}/{name}"))));
        }
        images.sort_unstable();
        Ok(images.into_iter().map(|(_, class, name)| self.image(name, class)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;
    use ttq_examples::data::cache::real_data;

    /// JPEG file with 64×64 pixels of the grey value 98, written by Pillow.
    const GREY: &str = "ffd8ffe000104a46494600010100000100010000ffdb00430050373c463c32504641465a55505f78c882786e6e78f5afb991c8ff\
                        ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffc0000b0800\
                        40004001011100ffc4001500010100000000000000000000000000000002ffc40014100100000000000000000000000000000000\
                        ffda0008010100003f00800000000000000000000000000000001fffd9";

    fn grey() -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&GREY[at..at + 2], 16).unwrap();
        (0..GREY.len()).step_by(2).map(digit).collect()
    }

    /// Creates a folder with `train` images of each class and 30 validation images of the classes 0, 7, 14 and so on.
    fn folder(train: usize) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join(FOLDER);
        let id = |class: usize| format!("n{class:08}");
        // Not in sorted order.
        let ids = (0..200).map(|class| id(199 - class)).collect::<Vec<_>>().join("\n");
        fs::create_dir_all(root.join("val/images")).unwrap();
        fs::write(root.join(IDS), ids).unwrap();
        let mut annotations = String::new();
        for n in 0..30 {
            fs::write(root.join(format!("val/images/val_{n}.JPEG")), grey()).unwrap();
            writeln!(annotations, "val_{n}.JPEG\t{}\t0\t32\t44\t62", id(n * 7 % 200)).unwrap();
        }
        fs::write(root.join(ANNOTATIONS), annotations).unwrap();
        for class in (0..200).take_while(|_| train > 0) {
            let images = root.join(format!("train/{}/images", id(class)));
            fs::create_dir_all(&images).unwrap();
            (0..train).for_each(|n| fs::write(images.join(format!("{}_{n}.JPEG", id(class))), grey()).unwrap());
        }
        directory
    }

    #[test]
    fn training_images_alternate_between_classes_and_test_images_are_cropped() {
        let directory = folder(2);
        let images = training(Some(directory.path())).unwrap();
        assert_eq!((images.train.len(), images.train.shape()), (400, [3, 64, 64]));
        assert_eq!((images.test.len(), images.test.shape()), (30, [3, 56, 56]));
        assert_eq!([0, 1, 199, 200, 399].map(|n| images.train.label(n)), [0, 1, 199, 0, 199]);
        assert_eq!([0, 1, 29].map(|n| images.test.label(n)), [0, 7, 3]);
        assert!(images.train.image(0).iter().all(|pixel| *pixel == 98));
    }

    #[test]
    fn validation_images_without_training_images_are_split_for_training_and_complete_for_evaluation() {
        let directory = folder(0);
        let images = training(Some(&directory.path().join(FOLDER))).unwrap();
        assert_eq!((images.train.len(), images.test.len()), (27, 3));
        assert_eq!(images.test.label(0), 189);
        assert!(images.source.contains("27 for training"), "{}", images.source);
        assert_eq!(validation(Some(directory.path())).unwrap().test.len(), 30);
    }

    #[test]
    fn an_archive_has_the_same_images_as_its_folder() {
        let directory = folder(0);
        let archive = directory.path().join("other.tar");
        let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
        builder.append_dir_all(".", directory.path().join(FOLDER)).unwrap();
        builder.finish().unwrap();
        let from = |path: &Path| validation(Some(path)).unwrap().test;
        assert_eq!(from(&archive), from(directory.path()));
    }

    #[test]
    fn errors_name_unknown_classes_missing_images_and_missing_data() {
        let directory = folder(1);
        let root = directory.path().join(FOLDER);
        fs::remove_file(root.join("val/images/val_3.JPEG")).unwrap();
        fs::write(root.join("train/n00000000/images/n00000000_0.JPEG"), "no image").unwrap();
        let message = |data: &Path| training(Some(data)).unwrap_err().to_string();
        assert!(
            message(&root).contains("1 of 200 images") && message(&root).contains("n00000000_0.JPEG ("),
            "{}",
            message(&root)
        );
        let validation = validation(Some(&root)).unwrap_err().to_string();
        assert!(validation.contains("val_3.JPEG ("), "{validation}");
        fs::write(root.join(ANNOTATIONS), "val_0.JPEG\tn99\t1\t2\t3\t4\n").unwrap();
        assert!(message(&root).contains("`n99` in"), "{}", message(&root));
        fs::write(root.join(IDS), "n1\nn2\n").unwrap();
        assert!(message(&root).contains("number of classes should be 200 and is 2"), "{}", message(&root));
        assert!(message(&root.join("train")).contains("val.tar"), "{}", message(&root.join("train")));
    }

    #[test]
    fn the_real_files_have_50_images_per_class_and_187_grey_ones() {
        let Some(data) = real_data() else { return };
        let images = validation(Some(&data)).unwrap();
        assert_eq!((images.test.len(), images.test.shape()), (10_000, [3, 56, 56]));
        let mut of_class = [0; CLASSES];
        (0..10_000).for_each(|n| of_class[usize::from(images.test.label(n))] += 1);
        assert!(of_class.iter().all(|count| *count == 50));
        let grey = (0..10_000).filter(|n| {
            let (red, rest) = images.test.image(*n).split_at(CROP * CROP);
            rest.chunks_exact(CROP * CROP).all(|plane| plane == red)
        });
        // 168 greyscale files and 19 others. Pillow decodes the same number.
        assert_eq!(grey.count(), 187);
    }
}
