//! Pictures in PNG and JPEG files as inputs of a network.

use std::io::Cursor;

use anyhow::{Result, bail};
use png::{ColorType, Transformations};
use serde_json::Value;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

/// First bytes of JPEG and PNG files.
const JPEG: &[u8] = b"\xff\xd8\xff";
const PNG: &[u8] = b"\x89PNG";

/// A picture as `[red, green, blue]` from 0 to 255, in rows from the top.
struct Picture {
    height: usize,
    width: usize,
    pixels: Vec<[u8; 3]>,
}

/// Numbers that are subtracted from the channels of pictures, and by which the differences are divided.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Normalization {
    /// Numbers that are subtracted from pixels, whose values are 0 to 1: one, or one per channel [default: `mean` in the
    /// configuration in the file, else 0].
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", allow_negative_numbers = true)]
    mean: Option<Vec<f32>>,
    /// Numbers by which pixels are divided after that: one, or one per channel [default: `std` in the configuration in the
    /// file, else 1].
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS")]
    std: Option<Vec<f32>>,
    /// Mean and standard deviation in the configuration in the file.
    #[arg(skip)]
    of_file: [Option<Vec<f32>>; 2],
}

impl Normalization {
    /// Adds mean and standard deviation of a configuration, such as `{"mean": [0.13], "std": [0.31]}`.
    pub(crate) fn with_configuration(&self, configuration: Option<&str>) -> Self {
        let configuration: Option<Value> = configuration.and_then(|text| serde_json::from_str(text).ok());
        let numbers = |name: &str| -> Option<Vec<f32>> {
            let numbers = configuration.as_ref()?.get(name)?.as_array()?.iter();
            numbers.map(|number| number.as_f64().map(|number| number as f32)).collect()
        };
        Self { of_file: ["mean", "std"].map(numbers), ..self.clone() }
    }

    /// Returns mean and standard deviation of each channel.
    fn of_channels(&self, channels: usize) -> Result<Vec<[f32; 2]>> {
        let [mean, std] = &self.of_file;
        // The numbers, and where they are from.
        let choose = |name: &str, option: &Option<Vec<f32>>, of_file: &Option<Vec<f32>>, default: f32| {
            let numbers = option.as_ref().or(of_file.as_ref()).cloned().unwrap_or_else(|| vec![default]);
            let is_option = option.is_some();
            (
                numbers,
                if is_option { format!("--{name}") } else { format!("`{name}` in the configuration in the file") },
            )
        };
        let chosen = [choose("mean", &self.mean, mean, 0.0), choose("std", &self.std, std, 1.0)];
        for (numbers, source) in &chosen {
            if ![1, channels].contains(&numbers.len()) {
                bail!("{source} has {} numbers instead of 1 or {channels}, the channels of the input", numbers.len());
            }
            if let Some(number) = numbers.iter().find(|number| !number.is_finite()) {
                bail!("{source} is {number}: it must be finite");
            }
        }
        let [(mean, _), (std, source)] = &chosen;
        if let Some(std) = std.iter().find(|std| **std <= 0.0) {
            bail!("{source} is {std}: it must be positive");
        }
        let at = |numbers: &[f32], channel: usize| numbers[channel.min(numbers.len() - 1)];
        Ok((0..channels).map(|channel| [at(mean, channel), at(std, channel)]).collect())
    }

    /// Fails if the options are set although the input is an array, or if it is one of pixels that are not normalized.
    pub(crate) fn check_array(&self, is_float: bool) -> Result<()> {
        if self.mean.is_some() || self.std.is_some() {
            bail!("--mean and --std apply to pictures: normalize the array before it is saved");
        }
        if let ([Some(mean), Some(std)], false) = (&self.of_file, is_float) {
            bail!(
                "is an array of integers, but the inputs of this network are normalized: save (pixels / 255 - mean) / std \
                 as float32, with mean {mean:?} and std {std:?}"
            );
        }
        Ok(())
    }

    /// Returns the values `[channels, height, width]` of a picture, where `dims` is the shape of the network's input:
    /// `(pixel / 255 - mean) / std`. With one channel, pixels are `0.299 red + 0.587 green + 0.114 blue`, rounded.
    pub(crate) fn values(&self, file: &[u8], dims: &[usize]) -> Result<Vec<f32>> {
        let &[channels @ (1 | 3), height, width] = dims else {
            bail!(
                "is a picture, but the input of the network is {dims:?}, not [1 or 3, height, width]: pass a .npy file"
            );
        };
        let picture = decode(file, [height, width])?;
        let gray = |[red, green, blue]: [u8; 3]| {
            let sum = 19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue);
            ((sum + 0x8000) >> 16) as u8
        };
        let mut values = Vec::with_capacity(channels * height * width);
        for (channel, [mean, std]) in self.of_channels(channels)?.into_iter().enumerate() {
            let value = |pixel: &[u8; 3]| if channels == 1 { gray(*pixel) } else { pixel[channel] };
            values.extend(picture.pixels.iter().map(|pixel| (f32::from(value(pixel)) / 255.0 - mean) / std));
        }
        Ok(values)
    }
}

/// Returns `true` if a file starts as a PNG or JPEG file.
pub(crate) fn is_picture(file: &[u8]) -> bool {
    file.starts_with(PNG) || file.starts_with(JPEG)
}

/// Decodes a picture of some height and width. Transparency is ignored.
fn decode(file: &[u8], size: [usize; 2]) -> Result<Picture> {
    let picture = if file.starts_with(JPEG) { decode_jpeg(file, size)? } else { decode_png(file, size)? };
    if [picture.height * picture.width] != [picture.pixels.len()] {
        bail!("is damaged: it has {} pixels", picture.pixels.len());
    }
    Ok(picture)
}

/// Checks the size of a picture before it is decoded.
fn check(found: [usize; 2], expected: [usize; 2]) -> Result<()> {
    if found != expected {
        let [[height, width], [rows, columns]] = [expected, found];
        bail!("has {rows}×{columns} pixels (height × width) instead of {height}×{width}: resize the picture");
    }
    Ok(())
}

fn decode_png(file: &[u8], size: [usize; 2]) -> Result<Picture> {
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let [height, width] = [reader.info().height as usize, reader.info().width as usize];
    check([height, width], size)?;
    let mut bytes = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let frame = reader.next_frame(&mut bytes)?;
    bytes.truncate(frame.buffer_size());
    let pixels = match frame.color_type {
        ColorType::Grayscale => bytes.iter().map(|gray| [*gray; 3]).collect(),
        ColorType::GrayscaleAlpha => bytes.as_chunks().0.iter().map(|[gray, _alpha]| [*gray; 3]).collect(),
        ColorType::Rgb => bytes.as_chunks().0.to_vec(),
        ColorType::Rgba => bytes.as_chunks().0.iter().map(|&[red, green, blue, _alpha]| [red, green, blue]).collect(),
        ColorType::Indexed => bail!("has a palette that cannot be decoded: save it without a palette"),
    };
    Ok(Picture { height, width, pixels })
}

fn decode_jpeg(file: &[u8], size: [usize; 2]) -> Result<Picture> {
    let mut decoder = JpegDecoder::new(ZCursor::new(file));
    decoder.decode_headers()?;
    let (width, height) = decoder.dimensions().unwrap_or((0, 0));
    check([height, width], size)?;
    Ok(Picture { height, width, pixels: decoder.decode()?.as_chunks().0.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(color: ColorType, width: u32, bytes: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, 1);
        encoder.set_color(color);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(bytes).unwrap();
        writer.finish().unwrap();
        file
    }

    fn normalization(mean: &[f32], std: &[f32]) -> Normalization {
        Normalization { mean: Some(mean.into()), std: Some(std.into()), ..Normalization::default() }
    }

    #[test]
    fn channels_are_planes_and_values_are_normalized() {
        let plain = Normalization::default();
        let color = png(ColorType::Rgb, 2, &[255, 0, 51, 0, 102, 255]);
        assert_eq!(plain.values(&color, &[3, 1, 2]).unwrap(), [1.0, 0.0, 0.0, 0.4, 0.2, 1.0]);
        let each = normalization(&[0.5, 0.0, 0.2], &[0.5, 0.4, 0.1]);
        let close = |found: Vec<f32>, expected: [f32; 6]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(each.values(&color, &[3, 1, 2]).unwrap(), [1.0, -1.0, 0.0, 1.0, 0.0, 8.0]));
        let transparent = png(ColorType::Rgba, 1, &[255, 0, 51, 7]);
        assert_eq!(plain.values(&transparent, &[3, 1, 1]).unwrap(), [1.0, 0.0, 0.2]);
    }

    #[test]
    fn gray_and_colour_are_converted_to_the_channels_of_the_network() {
        let plain = Normalization::default();
        let gray = png(ColorType::Grayscale, 2, &[51, 255]);
        assert_eq!(plain.values(&gray, &[1, 1, 2]).unwrap(), [0.2, 1.0]);
        assert_eq!(plain.values(&gray, &[3, 1, 2]).unwrap(), [0.2, 1.0, 0.2, 1.0, 0.2, 1.0]);
        let color = png(ColorType::Rgb, 1, &[10, 20, 200]);
        assert_eq!(
            plain.values(&color, &[1, 1, 1]).unwrap(),
            [(0.299 * 10.0 + 0.587 * 20.0 + 0.114 * 200.0_f32).round() / 255.0]
        );
    }

    #[test]
    fn pictures_that_do_not_fit_are_refused() {
        let plain = Normalization::default();
        let file = png(ColorType::Grayscale, 2, &[51, 255]);
        let error = |normalization: &Normalization, file: &[u8], dims: &[usize]| {
            normalization.values(file, dims).unwrap_err().to_string()
        };
        assert!(error(&plain, &file, &[1, 2, 2]).contains("has 1×2 pixels (height × width) instead of 2×2"));
        assert!(error(&plain, &file, &[784]).contains("the input of the network is [784]"));
        assert!(error(&plain, &file, &[2, 1, 2]).contains("not [1 or 3, height, width]"));
        assert!(
            error(&normalization(&[0.0, 1.0], &[1.0]), &file, &[3, 1, 2])
                .contains("--mean has 2 numbers instead of 1 or 3")
        );
        assert!(error(&normalization(&[0.0], &[0.0]), &file, &[3, 1, 2]).contains("--std is 0"));
        assert!(error(&normalization(&[f32::NAN], &[1.0]), &file, &[3, 1, 2]).contains("--mean is NaN"));
        let of_file = plain.with_configuration(Some(r#"{"mean": [0.5, 0.5], "std": [0]}"#));
        assert!(error(&of_file, &file, &[3, 1, 2]).contains("`mean` in the configuration in the file has 2 numbers"));
        assert!(error(&of_file, &file, &[2, 1, 2]).contains("not [1 or 3, height, width]"));
        let of_file = plain.with_configuration(Some(r#"{"std": [0]}"#));
        assert!(error(&of_file, &file, &[3, 1, 2]).contains("`std` in the configuration in the file is 0"));
        assert!(normalization(&[0.0], &[2.0]).check_array(true).is_err());
        for cut in [5, 20, file.len() - 20] {
            assert!(plain.values(&file[..cut], &[1, 1, 2]).is_err());
        }
        assert!(plain.values(JPEG, &[1, 1, 2]).is_err());
    }

    #[test]
    fn options_precede_the_configuration_in_a_file() {
        let configuration = Some(r#"{"mean": [0.5, 0.25, 0.125], "std": [0.5], "classes": 10}"#);
        let of_file = Normalization::default().with_configuration(configuration);
        assert_eq!(of_file.of_channels(3).unwrap(), [[0.5, 0.5], [0.25, 0.5], [0.125, 0.5]]);
        let std = Normalization { std: Some(vec![2.0]), ..Normalization::default() };
        assert_eq!(std.with_configuration(configuration).of_channels(3).unwrap()[0], [0.5, 2.0]);
        assert_eq!(std.with_configuration(None).of_channels(1).unwrap(), [[0.0, 2.0]]);
        for other in ["no JSON", "[1]", r#"{"mean": "0.5", "std": [null]}"#] {
            assert_eq!(Normalization::default().with_configuration(Some(other)).of_channels(1).unwrap(), [[0.0, 1.0]]);
        }
    }

    #[test]
    fn integers_are_no_input_of_a_network_of_normalized_pictures() {
        let of_file = Normalization::default().with_configuration(Some(r#"{"mean": [0.5], "std": [0.25]}"#));
        assert!(of_file.check_array(false).unwrap_err().to_string().contains("with mean [0.5] and std [0.25]"));
        assert!(of_file.check_array(true).is_ok() && Normalization::default().check_array(false).is_ok());
    }
}
