//! ResNet-20 for 32×32 images (He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", section 4.2) with
//! random weights, as a capture of Burn's module would build it.

use fastrand::Rng;
use ttq_packed::kernels::ConvolutionOptions;
use ttq_packed::network::{Binary, Constant, Graph, Operation, Unary, Value};
use ttq_packed::{Codes, TernaryWeight};

/// Returns numbers from -1 to 1.
pub fn floats(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| 2.0 * rng.f32() - 1.0).collect()
}

/// A graph that is built layer by layer.
pub struct Builder<'a> {
    pub graph: Graph,
    pub rng: &'a mut Rng,
    /// Fraction of zeros of ternary weights.
    pub zeros: f32,
}

impl Builder<'_> {
    pub fn constant(&mut self, name: String, dims: &[usize], values: Vec<f32>) -> Value {
        self.graph.constant(name, Constant::float(dims, values)).unwrap()
    }

    pub fn apply(&mut self, name: String, operation: Operation, operands: &[Value]) -> Value {
        self.graph.apply(name, operation, operands).unwrap()
    }

    pub fn ternary(&mut self, name: String, dims: &[usize], fan_in: usize, output_axis: usize) -> Value {
        let n = dims.iter().product();
        let codes: Vec<i8> =
            (0..n).map(|_| if self.rng.f32() < self.zeros { 0 } else { 2 * self.rng.i8(0..2) - 1 }).collect();
        let scale = (2.0 / (fan_in as f32 * (1.0 - self.zeros))).sqrt();
        let scales = [[scale * (0.8 + 0.4 * self.rng.f32()), scale * (0.8 + 0.4 * self.rng.f32())]];
        let weight = TernaryWeight::new(Codes::pack(&codes).unwrap(), scales, dims, output_axis).unwrap();
        self.graph.constant(name, Constant::Ternary(weight)).unwrap()
    }

    /// Convolution with padding for the same size at stride 1, and no bias.
    pub fn convolution(
        &mut self,
        name: &str,
        x: Value,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
    ) -> Value {
        let dims = [outputs, inputs, kernel, kernel];
        let fan_in = inputs * kernel * kernel;
        let weight = self.ternary(format!("{name}.weight"), &dims, fan_in, 0);
        let pad = kernel / 2;
        let options = ConvolutionOptions { stride: [stride; 2], padding: [[pad; 2]; 2], ..Default::default() };
        self.apply(name.into(), Operation::Convolution(options), &[x, weight])
    }

    /// Batch normalization as the operations that it consists of.
    pub fn norm(&mut self, name: &str, x: Value, channels: usize) -> Value {
        let dims = [channels, 1, 1];
        let around_zero = |rng: &mut Rng| floats(rng, channels).iter().map(|x| 0.2 * x).collect::<Vec<_>>();
        let around_one = |rng: &mut Rng| floats(rng, channels).iter().map(|x| 1.0 + 0.3 * x).collect::<Vec<_>>();
        let values = [around_zero(self.rng), around_one(self.rng), around_one(self.rng), around_zero(self.rng)];
        let names = ["mean", "var", "gamma", "beta"];
        let mut constants = [x; 4];
        for ((constant, values), part) in constants.iter_mut().zip(values).zip(names) {
            *constant = self.constant(format!("{name}.{part}"), &dims, values);
        }
        let [mean, var, gamma, beta] = constants;
        let std = self.apply(format!("{name}.std"), Operation::Unary(Unary::Sqrt), &[var]);
        let y = self.apply(name.into(), Operation::Binary(Binary::Subtract), &[x, mean]);
        let y = self.apply(name.into(), Operation::Binary(Binary::Divide), &[y, std]);
        let y = self.apply(name.into(), Operation::Binary(Binary::Multiply), &[y, gamma]);
        self.apply(name.into(), Operation::Binary(Binary::Add), &[y, beta])
    }

    pub fn relu(&mut self, name: &str, x: Value) -> Value {
        self.apply(name.into(), Operation::Unary(Unary::Relu), &[x])
    }
}

/// Returns the graph of ResNet-`6 n + 2` for images `[3, size, size]`.
pub fn resnet(rng: &mut Rng, n: usize, size: usize, zeros: f32) -> Graph {
    let graph = Graph::new([3, size, size]).unwrap();
    let mut b = Builder { graph, rng, zeros };
    let x = b.graph.input();
    let mut x = b.convolution("stem", x, [3, 16], 3, 1);
    x = b.norm("norm", x, 16);
    x = b.relu("norm", x);
    let mut channels = 16;
    for (stage, outputs) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..n {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = |layer: &str| format!("blocks.{}.{layer}", stage * n + block);
            let y = b.convolution(&name("conv1"), x, [channels, outputs], 3, stride);
            let y = b.norm(&name("norm1"), y, outputs);
            let y = b.relu(&name("norm1"), y);
            let y = b.convolution(&name("conv2"), y, [outputs, outputs], 3, 1);
            let y = b.norm(&name("norm2"), y, outputs);
            if stride != 1 {
                x = b.convolution(&name("shortcut"), x, [channels, outputs], 1, stride);
            }
            let y = b.apply(name("add"), Operation::Binary(Binary::Add), &[y, x]);
            x = b.relu(&name("add"), y);
            channels = outputs;
        }
    }
    let x = b.apply("pool".into(), Operation::AdaptiveAveragePool([1, 1]), &[x]);
    let x = b.apply("flatten".into(), Operation::Reshape(vec![channels]), &[x]);
    let values = floats(b.rng, 10 * channels);
    let weight = b.constant("classes.weight".into(), &[channels, 10], values);
    let values = floats(b.rng, 10);
    let bias = b.constant("classes.bias".into(), &[10], values);
    let x = b.apply("classes".into(), Operation::Linear, &[x, weight, bias]);
    b.graph.set_output(x).unwrap();
    b.graph
}
