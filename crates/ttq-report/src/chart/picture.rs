//! Images as PNG data URIs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use png::{BitDepth, ColorType, Encoder};

use crate::record::{Layer, Picture};

/// Maximum width and height of a picture of codes, in pixels.
const MAX_SIDE: usize = 1024;
/// Colours of +1 and -1 (red, green, blue). They contrast with a white and with a black background.
const PLUS: [u8; 3] = [0x2f, 0x80, 0xc4];
const MINUS: [u8; 3] = [0xdf, 0x7f, 0x2a];
/// Palette: gap between kernels, -1, 0, +1.
const PALETTE: [[u8; 3]; 4] = [[0; 3], MINUS, [0x80; 3], PLUS];
/// Opacity of the palette's entries: gaps are transparent, zeros are a faint grey.
const ALPHA: [u8; 4] = [0, 255, 36, 255];

/// Picture of the codes of a layer.
pub(crate) struct KernelPicture {
    pub(crate) uri: String,
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Numbers of rows and columns and their meaning.
    pub(crate) caption: String,
}

/// Draws the codes of a layer, one pixel per code.
///
/// The kernels of a convolution form a grid, with output channels from left to right and input channels from top to
/// bottom. The picture of a linear layer has inputs from left to right and outputs from top to bottom. Pictures larger
/// than [`MAX_SIDE`] are cropped. Returns `None` if the codes are damaged or the weight has fewer than two dimensions.
pub(crate) fn kernel_picture(layer: &Layer) -> Option<KernelPicture> {
    let codes = layer.unpack_codes();
    let grid = Grid::of(layer)?;
    if codes.is_empty() {
        return None;
    }
    let [tile_height, tile_width] = grid.tile;
    let gap = usize::from(tile_height * tile_width > 1);
    let visible = |count: usize, side: usize| count.min(((MAX_SIDE + gap) / (side + gap)).max(1));
    let (rows, columns) = (visible(grid.rows, tile_height), visible(grid.columns, tile_width));
    let width = columns * (tile_width + gap) - gap;
    let height = rows * (tile_height + gap) - gap;
    let mut pixels = vec![0u8; width * height];
    for row in 0..rows {
        for column in 0..columns {
            for y in 0..tile_height {
                for x in 0..tile_width {
                    let code = codes[grid.index(row, column, y * tile_width + x)];
                    let pixel = (row * (tile_height + gap) + y) * width + column * (tile_width + gap) + x;
                    pixels[pixel] = (code + 2) as u8;
                }
            }
        }
    }
    let cropped = if (rows, columns) == (grid.rows, grid.columns) {
        String::new()
    } else {
        format!(" (the first {columns} × {rows} of {} × {})", grid.columns, grid.rows)
    };
    let caption = format!("{} {} → {} {} ↓{cropped}", grid.columns, grid.names[0], grid.rows, grid.names[1]);
    Some(KernelPicture { uri: encode_indexed(width, height, &pixels)?, width, height, caption })
}

/// Layout of codes as a grid of tiles.
struct Grid {
    rows: usize,
    columns: usize,
    tile: [usize; 2],
    /// Strides in the code array of columns, rows and elements of a tile.
    strides: [usize; 3],
    /// Names of the columns and of the rows.
    names: [&'static str; 2],
}

impl Grid {
    fn of(layer: &Layer) -> Option<Self> {
        let names = ["output channels", "input channels"];
        match (layer.shape.as_slice(), layer.channel_axis) {
            // A linear layer of Burn, `[in, out]`.
            (&[input, output], 1) => Some(Self {
                rows: output,
                columns: input,
                tile: [1, 1],
                strides: [output, 1, 0],
                names: ["inputs", "outputs"],
            }),
            (&[output, input], _) => Some(Self {
                rows: output,
                columns: input,
                tile: [1, 1],
                strides: [1, input, 0],
                names: ["inputs", "outputs"],
            }),
            (&[output, input, ref kernel @ ..], _) if !kernel.is_empty() => {
                let size: usize = kernel.iter().product();
                let width = kernel[kernel.len() - 1];
                let tile = [size / width.max(1), width];
                Some(Self { rows: input, columns: output, tile, strides: [input * size, size, 1], names })
            }
            _ => None,
        }
    }

    fn index(&self, row: usize, column: usize, within: usize) -> usize {
        column * self.strides[0] + row * self.strides[1] + within * self.strides[2]
    }
}

/// Encodes an image. Returns `None` if its shape does not match its pixels or it has neither 1 nor 3 channels.
pub(crate) fn image_uri(picture: &Picture) -> Option<String> {
    let [channels, height, width] = picture.shape;
    let plane = height * width;
    if picture.pixels.len() != channels * plane || plane == 0 {
        return None;
    }
    let color = match channels {
        1 => ColorType::Grayscale,
        3 => ColorType::Rgb,
        _ => return None,
    };
    let interleaved: Vec<u8> = (0..plane)
        .flat_map(|pixel| (0..channels).map(move |channel| picture.pixels[channel * plane + pixel]))
        .collect();
    encode(width, height, color, BitDepth::Eight, &interleaved, None)
}

/// Draws values between 0 and 1, in row-major order, as the opacity of one colour.
pub(crate) fn heat_map(width: usize, shares: &[f64]) -> Option<String> {
    let level = |share: &f64| (255.0 * share.clamp(0.0, 1.0)).round() as u8;
    let pixels: Vec<u8> = shares.iter().flat_map(|share| [PLUS[0], PLUS[1], PLUS[2], level(share)]).collect();
    encode(width, shares.len() / width.max(1), ColorType::Rgba, BitDepth::Eight, &pixels, None)
}

/// Encodes an image of palette entries with four pixels per byte.
fn encode_indexed(width: usize, height: usize, pixels: &[u8]) -> Option<String> {
    let mut packed = Vec::with_capacity(height * width.div_ceil(4));
    for row in pixels.chunks(width) {
        let bytes = row.chunks(4).map(|four| (0..4).fold(0, |byte, i| byte << 2 | four.get(i).copied().unwrap_or(0)));
        packed.extend(bytes);
    }
    let palette = PALETTE.concat();
    encode(width, height, ColorType::Indexed, BitDepth::Two, &packed, Some(palette))
}

fn encode(
    width: usize,
    height: usize,
    color: ColorType,
    depth: BitDepth,
    data: &[u8],
    palette: Option<Vec<u8>>,
) -> Option<String> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.set_compression(png::Compression::High);
    if let Some(palette) = palette {
        encoder.set_palette(palette);
        encoder.set_trns(&ALPHA[..]);
    }
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(data).ok()?;
    writer.finish().ok()?;
    Some(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the width and the red, green, blue and alpha values of every pixel.
    fn decode(uri: &str) -> (usize, Vec<[u8; 4]>) {
        let bytes = STANDARD.decode(uri.trim_start_matches("data:image/png;base64,")).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::ALPHA);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width as usize, pixels.chunks(4).map(|pixel| pixel.try_into().unwrap()).collect())
    }

    fn opaque([r, g, b]: [u8; 3]) -> [u8; 4] {
        [r, g, b, 255]
    }

    #[test]
    fn kernels_form_a_grid_of_output_and_input_channels() {
        // Two output channels, one input channel, 1×2 kernels.
        let layer = Layer::new("a", &[2, 1, 1, 2], 0, &[1.0, 0.0, -1.0, 1.0], &[0.5], &[1, 0, -1, 1]);
        let picture = kernel_picture(&layer).unwrap();
        let (width, pixels) = decode(&picture.uri);
        assert_eq!((width, picture.width, picture.height), (5, 5, 1));
        assert_eq!([pixels[0], pixels[3], pixels[4]], [opaque(PLUS), opaque(MINUS), opaque(PLUS)]);
        assert_eq!((pixels[1][3], pixels[2][3]), (36, 0));
    }

    #[test]
    fn the_rows_of_a_linear_layer_are_its_outputs() {
        // Burn's layout [in, out] = [2, 1] gives one row of two inputs.
        let layer = Layer::new("a", &[2, 1], 1, &[1.0, -1.0], &[0.5], &[1, -1]);
        let picture = kernel_picture(&layer).unwrap();
        assert_eq!(decode(&picture.uri), (2, vec![opaque(PLUS), opaque(MINUS)]));
    }

    #[test]
    fn an_image_keeps_its_colours() {
        let picture = Picture { shape: [3, 1, 2], pixels: vec![1, 2, 3, 4, 5, 6] };
        let (_, pixels) = decode(&image_uri(&picture).unwrap());
        assert_eq!(pixels, [[1, 3, 5, 255], [2, 4, 6, 255]]);
        assert_eq!(image_uri(&Picture { shape: [3, 1, 2], pixels: vec![1] }), None);
    }
}
