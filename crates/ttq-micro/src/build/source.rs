//! Programs as Rust.

use crate::{Function, Layer, Program, Weights};

/// Returns Rust code that defines a program: `pub static NAME: ttq_micro::Program`.
///
/// Codes that are part of the file are not repeated: the program refers to `file_name`, which must be a `static` with the type
/// `&[u8]` and the bytes of the file. That is the case for files with [`Coding::Plain`](ttq_packed::Coding::Plain).
pub fn source(name: &str, program: &Program<'_>, file_name: &str, file: &[u8]) -> String {
    let file = File { name: file_name, bytes: file };
    let Program { input, output, arena, layers } = program;
    let layers: Vec<String> = layers.iter().map(|layer| file.layer(layer)).collect();
    format!(
        "/// A compiled network.\n\
         pub static {name}: ttq_micro::Program<'static> = ttq_micro::Program {{\n    \
         input: {input},\n    output: {output},\n    arena: {arena},\n    layers: &[\n{}    ],\n}};\n",
        layers.concat()
    )
}

struct File<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

impl File<'_> {
    fn layer(&self, layer: &Layer<'_>) -> String {
        let Layer { function, shapes, places, bytes } = layer;
        let function = match function {
            Function::Convolution { kernel, stride, padding, zero, weights, bias, limits } => format!(
                "Convolution {{ kernel: {kernel:?}, stride: {stride:?}, padding: {padding:?}, zero: {zero}, weights: {}, bias: {}, \
                 limits: {} }}",
                self.weights(weights),
                floats(bias),
                floats(limits).trim_start_matches('&')
            ),
            Function::Linear { weights, bias, limits } => format!(
                "Linear {{ weights: {}, bias: {}, limits: {} }}",
                self.weights(weights),
                floats(bias),
                floats(limits).trim_start_matches('&')
            ),
            other => format!("{other:?}"),
        };
        format!(
            "        ttq_micro::Layer {{ function: ttq_micro::Function::{function}, shapes: {shapes:?}, places: {places:?}, \
             bytes: {bytes:?} }},\n"
        )
    }

    fn weights(&self, weights: &Weights<'_>) -> String {
        let text = match weights {
            Weights::Float(weights) => format!("Float({})", floats(weights)),
            Weights::Ternary { codes, scales } => {
                let scales: Vec<String> = scales.iter().map(|pair| floats(pair).replace('&', "")).collect();
                format!("Ternary {{ codes: {}, scales: &[{}] }}", self.codes(codes), scales.join(", "))
            }
            Weights::TernaryBytes { codes, levels, scales } => format!(
                "TernaryBytes {{ codes: {}, levels: &{levels:?}, scales: {} }}",
                self.codes(codes),
                floats(scales)
            ),
        };
        format!("ttq_micro::Weights::{text}")
    }

    fn codes(&self, codes: &[u8]) -> String {
        match self.bytes.windows(codes.len().max(1)).position(|part| part == codes) {
            Some(start) => format!("ttq_micro::part({}, {start}, {})", self.name, codes.len()),
            None => format!("&{codes:?}"),
        }
    }
}

fn floats(values: &[f32]) -> String {
    let float = |value: &f32| match *value {
        f32::INFINITY => "f32::INFINITY".into(),
        f32::NEG_INFINITY => "f32::NEG_INFINITY".into(),
        value if value.is_nan() => "f32::NAN".into(),
        // The shortest digits that give the same float.
        value => format!("{value:?}"),
    };
    format!("&[{}]", values.iter().map(float).collect::<Vec<_>>().join(", "))
}
