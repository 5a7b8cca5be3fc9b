//! Outputs of the kernels of packed weights: `cargo xtask web --kernels` compares those of both modules in a browser.

#![cfg_attr(target_arch = "wasm32", no_std)]
#![allow(missing_docs, reason = "a program")]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use ttq_packed::Codes;
use ttq_packed::kernels::{
    Activations, CodesView, ConvolutionOptions, ConvolutionPath, PackedConvolution, PackedMatrix, Scales, Scratch,
};
// The allocator of the module.
use ttq_wasm as _;

/// Rows of activations, rows of weights, columns.
const MATRICES: [[usize; 3]; 10] = [
    [1, 1, 1],
    [1, 64, 16],
    [2, 65, 17],
    [3, 200, 1500],
    [4, 31, 300],
    [7, 33, 40],
    [20, 130, 131],
    [1, 1090, 289],
    [2, 1041, 16],
    [64, 48, 96],
];
/// Height and width, output channels, channels of a group, kernel, stride, groups.
const CONVOLUTIONS: [[usize; 7]; 8] = [
    [9, 7, 20, 3, 3, 1, 1],
    [16, 16, 16, 16, 3, 1, 1],
    [13, 11, 33, 5, 5, 2, 1],
    [8, 8, 70, 9, 1, 1, 1],
    [20, 18, 6, 4, 3, 1, 2],
    [10, 10, 64, 8, 3, 2, 1],
    [7, 9, 12, 1, 3, 1, 3],
    [12, 12, 5, 2, 7, 3, 1],
];

/// Numbers of a linear congruential generator.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    fn floats(&mut self, n: usize, offset: f32) -> Vec<f32> {
        (0..n).map(|_| self.next() as f32 / (1 << 24) as f32 + offset).collect()
    }

    fn codes(&mut self, n: usize) -> Codes {
        let codes: Vec<i8> = (0..n).map(|_| [-1, 0, 1, 0, 1, -1, 1][self.next() as usize % 7]).collect();
        Codes::pack(&codes).expect("the codes are ternary")
    }

    /// Scales of rows: pairs, or one for both signs.
    fn scales(&mut self, rows: usize, case: usize) -> [Vec<f32>; 2] {
        let w_pos = self.floats(rows, 0.1);
        let w_neg = if case.is_multiple_of(3) { w_pos.clone() } else { self.floats(rows, 0.1) };
        [w_pos, w_neg]
    }
}

/// Where the outputs are.
#[derive(Debug)]
#[repr(C)]
pub struct Outputs {
    address: *const f32,
    len: usize,
}

/// Computes matrix products and convolutions with activations of floats or bytes.
#[unsafe(no_mangle)]
pub extern "C" fn outputs(int8: bool) -> Box<Outputs> {
    let activations = if int8 { Activations::Int8 } else { Activations::Float32 };
    let (mut random, mut all, mut scratch) = (Random(7), Vec::new(), Scratch::new());
    for (case, [m, rows, columns]) in MATRICES.into_iter().enumerate() {
        let (codes, [w_pos, w_neg]) = (random.codes(rows * columns), random.scales(rows, case));
        let view = CodesView::new(&codes, [rows, columns]).expect("the codes have the shape");
        let matrix =
            PackedMatrix::new(view, Scales::PerRow { w_pos: &w_pos, w_neg: &w_neg }).expect("the scales are valid");
        let matrix = matrix.with_bias(&random.floats(rows, -0.5)).expect("one number per row");
        let matrix = if case % 2 == 0 { matrix.with_relu() } else { matrix };
        let mut y = vec![0.0; m * rows];
        let result =
            matrix.with_activations(activations).forward(&random.floats(m * columns, -0.5), &mut y, &mut scratch);
        result.expect("the sizes fit");
        all.extend(y);
    }
    for (case, [height, width, outputs, inner, kernel, stride, groups]) in CONVOLUTIONS.into_iter().enumerate() {
        let outputs = outputs.next_multiple_of(groups);
        let shape = [outputs, inner, kernel, kernel];
        let (codes, [w_pos, w_neg]) = (random.codes(shape.iter().product()), random.scales(outputs, case));
        let view = CodesView::new(&codes, shape).expect("the codes have the shape");
        let padding = [[kernel / 2; 2]; 2];
        let options = ConvolutionOptions { stride: [stride; 2], padding, dilation: [1; 2], groups };
        let scales = Scales::PerRow { w_pos: &w_pos, w_neg: &w_neg };
        let convolution = PackedConvolution::new(view, options, scales).expect("the scales are valid");
        let input = [2, inner * groups, height, width];
        let x = random.floats(input.iter().product(), -0.5);
        for path in [ConvolutionPath::Dense, ConvolutionPath::Sparse] {
            let convolution = convolution.clone().with_activations(activations).with_path(path);
            let mut y = vec![0.0; convolution.output_shape(input).expect("there is an output").iter().product()];
            convolution.forward(&x, input, &mut y, &mut scratch).expect("the sizes fit");
            all.extend(y);
        }
    }
    let all = all.leak();
    Box::new(Outputs { address: all.as_ptr(), len: all.len() })
}
