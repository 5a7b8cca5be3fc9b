//! Small pictures as PNG data in the page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use png::{BitDepth, ColorType, Encoder};

use crate::record::{Layer, Picture};

/// Largest number of pixels along a side.
const LARGEST: usize = 1024;
/// Red, green, blue of +1 and -1: they stand out on white and on black.
const PLUS: [u8; 3] = [0x2f, 0x80, 0xc4];
const MINUS: [u8; 3] = [0xdf, 0x7f, 0x2a];
/// Entries of the palette: between kernels, -1, 0, +1.
const PALETTE: [[u8; 3]; 4] = [[0; 3], MINUS, [0x80; 3], PLUS];
/// Nothing between kernels, a hint of grey for zero.
const ALPHA: [u8; 4] = [0, 255, 36, 255];

/// The codes of a layer as a picture.
pub(crate) struct KernelPicture {
    pub(crate) uri: String,
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// What lies along the sides.
    pub(crate) caption: String,
}

/// The codes of a layer, one pixel each. A convolution's kernels stand in a grid, output channels from left to right and
/// input channels from top to bottom; a matrix has its outputs from top to bottom. Large layers are cut.
pub(crate) fn kernels(layer: &Layer) -> Option<KernelPicture> {
    let codes = layer.unpacked();
    let grid = Grid::of(layer)?;
    if codes.is_empty() {
        return None;
    }
    let [tile_height, tile_width] = grid.tile;
    let gap = usize::from(tile_height * tile_width > 1);
    let fit = |count: usize, side: usize| count.min(((LARGEST + gap) / (side + gap)).max(1));
    let (rows, columns) = (fit(grid.rows, tile_height), fit(grid.columns, tile_width));
    let width = columns * (tile_width + gap) - gap;
    let height = rows * (tile_height + gap) - gap;
    let mut pixels = vec![0u8; width * height];
    for row in 0..rows {
        for column in 0..columns {
            for y in 0..tile_height {
                for x in 0..tile_width {
                    let code = codes[grid.index(row, column, y * tile_width + x)];
                    let place = (row * (tile_height + gap) + y) * width + column * (tile_width + gap) + x;
                    pixels[place] = (code + 2) as u8;
                }
            }
        }
    }
    let cut = if (rows, columns) == (grid.rows, grid.columns) {
        String::new()
    } else {
        format!(" (the first {columns} × {rows} of {} × {})", grid.columns, grid.rows)
    };
    let caption = format!("{} {} → {} {} ↓{cut}", grid.columns, grid.names[0], grid.rows, grid.names[1]);
    Some(KernelPicture { uri: indexed(width, height, &pixels)?, width, height, caption })
}

/// How codes lie in a grid of tiles.
struct Grid {
    rows: usize,
    columns: usize,
    tile: [usize; 2],
    /// Steps in memory from one column, row, place in a tile to the next.
    steps: [usize; 3],
    /// What columns and rows are.
    names: [&'static str; 2],
}

impl Grid {
    fn of(layer: &Layer) -> Option<Self> {
        let names = ["output channels", "input channels"];
        match (layer.shape.as_slice(), layer.channel_axis) {
            // Burn's linear layer, `[in, out]`.
            (&[input, output], 1) => Some(Self {
                rows: output,
                columns: input,
                tile: [1, 1],
                steps: [output, 1, 0],
                names: ["inputs", "outputs"],
            }),
            (&[output, input], _) => Some(Self {
                rows: output,
                columns: input,
                tile: [1, 1],
                steps: [1, input, 0],
                names: ["inputs", "outputs"],
            }),
            (&[output, input, ref kernel @ ..], _) if !kernel.is_empty() => {
                let size: usize = kernel.iter().product();
                let width = kernel[kernel.len() - 1];
                let tile = [size / width.max(1), width];
                Some(Self { rows: input, columns: output, tile, steps: [input * size, size, 1], names })
            }
            _ => None,
        }
    }

    fn index(&self, row: usize, column: usize, within: usize) -> usize {
        column * self.steps[0] + row * self.steps[1] + within * self.steps[2]
    }
}

/// An image of bytes as it is.
pub(crate) fn photo(picture: &Picture) -> Option<String> {
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

/// Shares between 0 and 1, row by row, as the opacity of one colour.
pub(crate) fn heat(width: usize, shares: &[f64]) -> Option<String> {
    let level = |share: &f64| (255.0 * share.clamp(0.0, 1.0)).round() as u8;
    let pixels: Vec<u8> = shares.iter().flat_map(|share| [PLUS[0], PLUS[1], PLUS[2], level(share)]).collect();
    encode(width, shares.len() / width.max(1), ColorType::Rgba, BitDepth::Eight, &pixels, None)
}

/// A picture of palette entries, four pixels in a byte.
fn indexed(width: usize, height: usize, pixels: &[u8]) -> Option<String> {
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

    /// Red, green, blue, alpha of every pixel.
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
    fn kernels_stand_in_a_grid_of_outputs_and_inputs() {
        // Two output channels, one input channel, kernels of 1×2.
        let layer = Layer::new("a", &[2, 1, 1, 2], 0, &[1.0, 0.0, -1.0, 1.0], &[0.5], &[1, 0, -1, 1]);
        let picture = kernels(&layer).unwrap();
        let (width, pixels) = decode(&picture.uri);
        assert_eq!((width, picture.width, picture.height), (5, 5, 1));
        assert_eq!([pixels[0], pixels[3], pixels[4]], [opaque(PLUS), opaque(MINUS), opaque(PLUS)]);
        assert_eq!((pixels[1][3], pixels[2][3]), (36, 0));
    }

    #[test]
    fn a_linear_layer_has_its_outputs_from_top_to_bottom() {
        // Burn's [in, out] = [2, 1]: one row of two inputs.
        let layer = Layer::new("a", &[2, 1], 1, &[1.0, -1.0], &[0.5], &[1, -1]);
        let picture = kernels(&layer).unwrap();
        assert_eq!(decode(&picture.uri), (2, vec![opaque(PLUS), opaque(MINUS)]));
    }

    #[test]
    fn a_photo_keeps_its_colours() {
        let picture = Picture { shape: [3, 1, 2], pixels: vec![1, 2, 3, 4, 5, 6] };
        let (_, pixels) = decode(&photo(&picture).unwrap());
        assert_eq!(pixels, [[1, 3, 5, 255], [2, 4, 6, 255]]);
        assert_eq!(photo(&Picture { shape: [3, 1, 2], pixels: vec![1] }), None);
    }
}
