//! Compilation: the choice of algorithms, the layout of values, and the memory plan.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::arena::{Lifetime, place};
use super::fuse::{Affine, Constants, Fused, Kind, fuse};
use super::graph::Graph;
use super::layers::{
    Activation, Direct, Epilogue, Export, General, Import, Layer, Map, Operand, Order, Pool, PoolFunction, Product,
    Strided, Transposed, View, Winograd,
};
use super::layout::{Image, Quantization};
use super::operation::{Operation, Window, elements};
use super::quantize::Bytes;
use super::reference::adaptive_range;
use super::values::ValueMap;
use super::{CompileOptions, NetworkError, Value};
use crate::kernels::ConvolutionOptions;

/// Number of floats of the arena that go well with the L2 cache of most processors.
const CACHE: usize = 1 << 17;
/// Maximum number of items that go through a network together.
const MOST_ITEMS: usize = 16;

/// A compiled graph.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Layers, in the order of execution.
    pub(super) layers: Vec<CompiledLayer>,
    /// Number of items that go through the layers together.
    pub(super) items: usize,
    /// Number of elements of the arena for them.
    pub(super) elements: usize,
    /// Values that are stored, and where.
    pub(super) values: Vec<(Value, Image)>,
}

/// A layer, and what it computes.
#[derive(Debug)]
pub(super) struct CompiledLayer {
    pub(super) name: String,
    pub(super) layer: Box<dyn Layer>,
    /// Multiply-adds of the definition for an item.
    pub(super) multiply_adds: usize,
}

/// A layer before its values have places in the arena.
struct Step<'a> {
    name: String,
    multiply_adds: usize,
    reads: Vec<usize>,
    writes: Option<usize>,
    /// A value whose memory the result may take over.
    in_place: Option<usize>,
    build: Build<'a>,
}

/// Builds a layer, or a part of it, when its values have places.
type Build<'a, T = Box<dyn Layer>> = Box<dyn FnOnce(&[Image]) -> T + 'a>;

/// Compiles a graph.
pub(super) fn compile(graph: &Graph, options: &CompileOptions) -> Result<Compiled, NetworkError> {
    options.int8.check(graph)?;
    let (nodes, constants) = fuse(graph, options)?;
    let bytes = Bytes::new(graph, &nodes, &constants, options);
    let mut plan = Plan {
        graph,
        options,
        constants: &constants,
        bytes,
        images: Vec::new(),
        slots: ValueMap::new(),
        views: ValueMap::new(),
        steps: Vec::new(),
    };
    plan.check_sizes(&nodes)?;
    plan.import();
    for node in &nodes {
        plan.node(node)?;
    }
    plan.export();
    plan.finish()
}

struct Plan<'a> {
    graph: &'a Graph,
    options: &'a CompileOptions,
    constants: &'a Constants,
    bytes: Bytes,
    /// Values in the arena.
    images: Vec<Image>,
    /// Index into `images`, and the order of the dimensions.
    slots: ValueMap<(usize, Order)>,
    /// Values that are others with different dimensions: the value that is stored, and the view of it.
    views: ValueMap<(Value, View)>,
    steps: Vec<Step<'a>>,
}

impl<'a> Plan<'a> {
    fn dims(&self, value: Value) -> &'a [usize] {
        &self.graph.shape(value).dims
    }

    fn add(&mut self, value: Value, order: Order) -> usize {
        let image = order.image(self.dims(value));
        self.images.push(self.bytes.values.get(&value).map_or(image, |quantization| image.quantized(*quantization)));
        self.slots.insert(value, (self.images.len() - 1, order));
        self.images.len() - 1
    }

    /// Returns the maximum number of elements: that of the options, but kernels address the elements of an item by 32 bits.
    fn limit(&self) -> usize {
        self.options.max_elements.min(u32::MAX as usize)
    }

    /// Checks the sizes of values before anything of their size is allocated.
    fn check_sizes(&self, nodes: &[Fused]) -> Result<(), NetworkError> {
        let (mut total, limit) = (0_usize, self.limit());
        for value in nodes.iter().map(|node| node.value).chain([self.graph.input()]) {
            total = total.saturating_add(elements(self.dims(value)).unwrap_or(usize::MAX));
            if total > limit {
                let node = self.graph.name(value).to_string();
                return Err(NetworkError::TooLarge { node, elements: total, limit });
            }
        }
        Ok(())
    }

    fn import(&mut self) {
        let input = self.graph.input();
        let order = Order::of_input(self.dims(input));
        let to = self.add(input, order);
        let build = move |images: &[Image]| Box::new(Import { order, to: images[to] }) as Box<dyn Layer>;
        self.push("input", 0, [None; 2], Some(to), None, Box::new(build));
    }

    fn export(&mut self) {
        let output = self.graph.output;
        let order = self.slots[&output].1;
        let from = self.in_order("output", output, order);
        let build = move |images: &[Image]| Box::new(Export { order, from: images[from] }) as Box<dyn Layer>;
        self.push("output", 0, [Some(from), None], None, None, Box::new(build));
    }

    fn node(&mut self, node: &Fused) -> Result<(), NetworkError> {
        let (operand, order) = (node.operands[0], node.order);
        let residual = node.residual.map(|value| self.in_order(&node.name, value, order));
        let order = match &node.kind {
            Kind::Linear { image: false, .. } => Order::ChannelsLast,
            Kind::Map(_) => order,
            Kind::Product => return self.matrix_product(node, residual),
            Kind::Other(operation) if General::supports(operation) => {
                self.general(node, operation);
                return Ok(());
            }
            _ => Order::ChannelsFirst,
        };
        let mut x = self.in_order(&node.name, operand, order);
        if let Some(quantization) = self.bytes.products.get(&node.value) {
            x = self.quantize(node, x, *quantization);
        }
        match &node.kind {
            Kind::Convolution { options, weight } => {
                let shape = self.constants[weight].dims();
                let (inner, kernel) = (shape[1], [shape[2], shape[3]]);
                let weights = self
                    .weights(*weight, &node.affine, move |[o, c, y, x], [kh, kw]| ((o * inner + c) * kh + y) * kw + x);
                self.convolution(node, x, residual, kernel, *options, weights);
            }
            Kind::Transposed { options, weight, .. } => {
                let shape = self.constants[weight].dims();
                let (inner, outputs, kernel) = (shape[0] / options.groups, shape[1], [shape[2], shape[3]]);
                let weights = self.weights(*weight, &node.affine, move |[o, c, y, x], [kh, kw]| {
                    (((o / outputs * inner + c) * outputs + o % outputs) * kh + y) * kw + x
                });
                self.transposed(node, x, residual, kernel, *options, weights)?;
            }
            Kind::Linear { weight, image } => {
                let outputs = self.constants[weight].dims()[1];
                // The kernel is as large as the image.
                let Image { height, width, .. } = self.images[x];
                let kernel = if *image { [height, width] } else { [1, 1] };
                let weights = self.weights(*weight, &node.affine, move |[o, c, y, x], [kh, kw]| {
                    ((c * kh + y) * kw + x) * outputs + o
                });
                self.convolution(node, x, residual, kernel, ConvolutionOptions::default(), weights);
            }
            Kind::Map(function) => {
                let y = self.add(node.value, node.order);
                let (function, Fused { affine: Affine { scale, shift }, activation, .. }) = (*function, node.clone());
                let build = move |images: &[Image]| {
                    let epilogue = Epilogue::new(&shift, activation, residual.map(|slot| images[slot]), &images[y]);
                    Box::new(Map::new([images[x], images[y]], function, &scale, epilogue)) as Box<dyn Layer>
                };
                self.push(&node.name, 0, [Some(x), residual], Some(y), Some(x), Box::new(build));
            }
            // Has returned above.
            Kind::Product => {}
            Kind::Other(operation) => match operation {
                Operation::MaxPool(window) => self.pool(node, x, windows(window, self.images[x]), PoolFunction::Max),
                Operation::AveragePool { window, count_padding } => {
                    let area = window.size[0] * window.size[1];
                    let function = if *count_padding { PoolFunction::Divide(area) } else { PoolFunction::Mean };
                    self.pool(node, x, windows(window, self.images[x]), function);
                }
                Operation::AdaptiveAveragePool(size) => {
                    let Image { height, width, .. } = self.images[x];
                    let ranges = [(height, size[0]), (width, size[1])]
                        .map(|(len, n)| (0..n).map(|i| adaptive_range(i, n, len)).collect());
                    self.pool(node, x, ranges, PoolFunction::Mean);
                }
                operation => {
                    let (node, reason) = (node.name.clone(), "no layer computes it".to_string());
                    return Err(NetworkError::Unsupported { node, operation: operation.name(), reason });
                }
            },
        }
        Ok(())
    }

    /// Converts a value to bytes if it is not stored as such.
    fn quantize(&mut self, node: &Fused, x: usize, quantization: Quantization) -> usize {
        if self.images[x].quantization.is_some() {
            return x;
        }
        let Image { height, width, channels, .. } = self.images[x];
        self.images.push(Image::new(height, width, channels).quantized(quantization));
        let y = self.images.len() - 1;
        let build = move |images: &[Image]| {
            let epilogue = Epilogue::new(&vec![0.0; channels], Activation::None, None, &images[y]);
            Box::new(Map::new([images[x], images[y]], None, &vec![1.0; channels], epilogue)) as Box<dyn Layer>
        };
        self.push(&node.name, 0, [Some(x), None], Some(y), None, Box::new(build));
        y
    }

    /// Adds a layer that computes elements wherever they are stored.
    fn general(&mut self, node: &Fused, operation: &Operation) {
        if self.is_view(node, operation) {
            return;
        }
        let y = self.add(node.value, node.order);
        let (order, dims) = (node.order, self.dims(node.value));
        let reads: Vec<_> = node.operands.iter().map(|value| self.slots.get(value).map(|(slot, _)| *slot)).collect();
        let operands: Vec<_> = node.operands.iter().map(|value| self.operand(*value)).collect();
        let operation = operation.clone();
        let build = move |images: &[Image]| {
            let operands = operands.into_iter().map(|operand| operand(images)).collect();
            let output = Strided::new(&images[y], order, dims);
            Box::new(General::new(&operation, operands, &output, images[y])) as Box<dyn Layer>
        };
        self.push(&node.name, 0, reads, Some(y), None, Box::new(build));
    }

    /// Records a value that needs no copy of its operand. Returns `false` if it does.
    fn is_view(&mut self, node: &Fused, operation: &Operation) -> bool {
        let operand = node.operands[0];
        let Some((x, order)) = self.slots.get(&operand).copied() else { return false };
        let view = self.views.get(&operand);
        if matches!(operation, Operation::Reshape(_)) && view.is_none() && self.is_row(node, x, order) {
            self.slots.insert(node.value, (x, Order::ChannelsLast));
            return true;
        }
        let (stored, view) = view.cloned().unwrap_or_else(|| (operand, View::new(self.dims(operand))));
        let view = match operation {
            Operation::Permute(axes) => Some(view.permuted(axes)),
            Operation::Reshape(dims) => view.reshaped(dims),
            _ => None,
        };
        let Some(view) = view else { return false };
        self.slots.insert(node.value, (x, node.order));
        self.views.insert(node.value, (stored, view));
        true
    }

    /// Checks that the memory of a layer, in floats, is within the limit.
    fn check(&self, node: &Fused, elements: usize) -> Result<(), NetworkError> {
        let limit = self.limit();
        match elements > limit {
            true => Err(NetworkError::TooLarge { node: node.name.clone(), elements, limit }),
            false => Ok(()),
        }
    }

    /// Adds a product of two values.
    fn matrix_product(&mut self, node: &Fused, residual: Option<usize>) -> Result<(), NetworkError> {
        let [a, b] = [node.operands[0], node.operands[1]];
        let k = self.dims(a).last().copied().unwrap_or(1);
        self.check(node, Product::panels(k))?;
        let y = self.add(node.value, node.order);
        let dims = self.dims(node.value);
        let [a_slot, b_slot] = [a, b].map(|value| self.slots.get(&value).map(|(slot, _)| *slot));
        let operands = [a, b].map(|value| self.operand(value));
        let Fused { affine: Affine { scale, shift }, activation, .. } = node.clone();
        let build = move |images: &[Image]| {
            let epilogue = Epilogue::new(&shift, activation, residual.map(|slot| images[slot]), &images[y]);
            let operands = operands.map(|operand| operand(images));
            Box::new(Product::new(operands, dims, images[y], &scale, epilogue)) as Box<dyn Layer>
        };
        let multiply_adds = elements(dims).unwrap_or(usize::MAX).saturating_mul(k);
        // Rows are read after others are written.
        let in_place = residual.filter(|residual| ![a_slot, b_slot].contains(&Some(*residual)));
        self.push(&node.name, multiply_adds, [a_slot, b_slot, residual], Some(y), in_place, Box::new(build));
        Ok(())
    }

    /// Returns what finds the elements of a value when all values have places.
    fn operand(&self, value: Value) -> Build<'a, Operand> {
        let dims = self.dims(value);
        let slot = self.slots.get(&value).copied();
        match (slot, self.views.get(&value)) {
            (Some((slot, _)), Some((stored, view))) => {
                let (dims, order, view) = (self.dims(*stored), self.slots[stored].1, view.clone());
                Box::new(move |images| Operand::Value(Strided::new(&images[slot], order, dims).viewed(&view)))
            }
            (Some((slot, order)), None) => {
                Box::new(move |images| Operand::Value(Strided::new(&images[slot], order, dims)))
            }
            (None, _) => {
                let values = self.constants[&value].values();
                Box::new(move |_| Operand::Constant { values, at: Strided::row_major(dims) })
            }
        }
    }

    /// Returns a value whose dimensions are stored in an order, and copies it for an operation if they are not.
    fn in_order(&mut self, name: &str, value: Value, order: Order) -> usize {
        let (x, found) = self.slots[&value];
        if found == order && !self.views.contains_key(&value) {
            return x;
        }
        let (dims, operand) = (self.dims(value), self.operand(value));
        self.images.push(order.image(dims));
        let y = self.images.len() - 1;
        let build = move |images: &[Image]| {
            let output = Strided::new(&images[y], order, dims);
            let operation = Operation::Reshape(dims.into());
            Box::new(General::new(&operation, [operand(images)].into(), &output, images[y])) as Box<dyn Layer>
        };
        self.push(name, 0, [Some(x), None], Some(y), None, Box::new(build));
        if self.views.remove(&value).is_some() {
            // The copy serves the operations after this one, too.
            self.slots.insert(value, (y, order));
        }
        y
    }

    /// Returns `true` if the elements of a value are in row-major order, and those of the result have the same rows.
    fn is_row(&self, node: &Fused, x: usize, order: Order) -> bool {
        let image = self.images[x];
        let rows = Order::ChannelsLast.image(self.dims(node.value));
        (order == Order::ChannelsLast || image.height * image.width == 1)
            && [image.height * image.width, image.channels] == [rows.width, rows.channels]
    }

    /// Returns the weights `(o, c, y, x)` with the scales of the epilogue.
    fn weights(
        &self,
        weight: Value,
        affine: &Affine,
        index: impl Fn([usize; 4], [usize; 2]) -> usize + 'static,
    ) -> Weights {
        let (values, scale) = (self.constants[&weight].values(), affine.scale.clone());
        Box::new(move |at, kernel| f64::from(values[index(at, kernel)]) * scale[at[0]])
    }

    fn convolution(
        &mut self,
        node: &Fused,
        x: usize,
        residual: Option<usize>,
        kernel: [usize; 2],
        options: ConvolutionOptions,
        weights: Weights,
    ) {
        let y = self.add(node.value, node.order);
        let [input, output] = [self.images[x], self.images[y]];
        let (shift, activation) = (node.affine.shift.clone(), node.activation);
        let winograd = self.options.winograd && Winograd::suits(kernel, &options, &input, &output);
        let padding = options.padding.map(|[before, _]| before);
        let size = |image: &Image| [image.height, image.width];
        let border = match winograd {
            true => Winograd::border(kernel[0], size(&input), size(&output), padding),
            false => [0, 1].map(|i| {
                let end = (size(&output)[i] - 1) * options.stride[i] + options.dilation[i] * (kernel[i] - 1) + 1;
                [padding[i], end.saturating_sub(padding[i] + size(&input)[i])]
            }),
        };
        self.images[x].require_border(border);
        let build = move |images: &[Image]| -> Box<dyn Layer> {
            let epilogue = Epilogue::new(&shift, activation, residual.map(|slot| images[slot]), &images[y]);
            let weight = |o, c, y, x| weights([o, c, y, x], kernel);
            match winograd {
                true => Box::new(Winograd::new([images[x], images[y]], kernel[0], padding, epilogue, weight)),
                false => Box::new(Direct::new([images[x], images[y]], kernel, &options, epilogue, weight)),
            }
        };
        // Neighbours of a pixel are read after it is written, so that the operand keeps its memory.
        let in_place = residual.filter(|residual| *residual != x);
        let weights = kernel[0] * kernel[1] * (input.channels / options.groups);
        let multiply_adds = (output.height * output.width * output.channels).saturating_mul(weights);
        self.push(&node.name, multiply_adds, [Some(x), residual], Some(y), in_place, Box::new(build));
    }

    fn transposed(
        &mut self,
        node: &Fused,
        x: usize,
        residual: Option<usize>,
        kernel: [usize; 2],
        options: ConvolutionOptions,
        weights: Weights,
    ) -> Result<(), NetworkError> {
        let y = self.add(node.value, node.order);
        let [input, output] = [self.images[x], self.images[y]];
        self.check(node, Transposed::phases(&output, options.stride))?;
        let (shift, activation) = (node.affine.shift.clone(), node.activation);
        self.images[x].require_border(Transposed::border([&input, &output], kernel, &options));
        let build = move |images: &[Image]| {
            let epilogue = Epilogue::new(&shift, activation, residual.map(|slot| images[slot]), &images[y]);
            let weight = |o, c, y, x| weights([o, c, y, x], kernel);
            Box::new(Transposed::new([images[x], images[y]], kernel, &options, epilogue, weight)) as Box<dyn Layer>
        };
        let in_place = residual.filter(|residual| *residual != x);
        let weights = kernel[0] * kernel[1] * (output.channels / options.groups);
        let multiply_adds = (input.height * input.width * input.channels).saturating_mul(weights);
        self.push(&node.name, multiply_adds, [Some(x), residual], Some(y), in_place, Box::new(build));
        Ok(())
    }

    fn pool(&mut self, node: &Fused, x: usize, ranges: [Vec<Range<usize>>; 2], function: PoolFunction) {
        let y = self.add(node.value, node.order);
        let build = move |images: &[Image]| {
            Box::new(Pool { input: images[x], output: images[y], ranges, function }) as Box<dyn Layer>
        };
        self.push(&node.name, 0, [Some(x), None], Some(y), None, Box::new(build));
    }

    fn push(
        &mut self,
        name: &str,
        multiply_adds: usize,
        reads: impl IntoIterator<Item = Option<usize>>,
        writes: Option<usize>,
        in_place: Option<usize>,
        build: Build<'a>,
    ) {
        let reads = reads.into_iter().flatten().collect();
        self.steps.push(Step { name: name.to_string(), multiply_adds, reads, writes, in_place, build });
    }

    /// Places all values, and builds the layers.
    fn finish(self) -> Result<Compiled, NetworkError> {
        self.check_padding()?;
        let items = match self.options.items {
            Some(items) => items.max(1),
            None => (CACHE / self.arrange(1).0.max(1)).clamp(1, MOST_ITEMS),
        };
        let (elements, offsets) = self.arrange(items);
        let Self { mut images, steps, slots, .. } = self;
        images.iter_mut().zip(offsets).for_each(|(image, offset)| image.place(offset));
        let layer =
            |Step { name, multiply_adds, build, .. }| CompiledLayer { name, layer: build(&images), multiply_adds };
        let layers = steps.into_iter().map(layer).collect();
        let values = slots.iter().map(|(value, (slot, _))| (value, images[*slot])).collect();
        Ok(Compiled { layers, items, elements, values })
    }

    /// Checks the sizes of values once more: padding can enlarge them.
    fn check_padding(&self) -> Result<(), NetworkError> {
        let (mut total, limit) = (0_usize, self.limit());
        for step in &self.steps {
            let len = step.writes.map_or(Some(0), |slot| self.images[slot].checked_item());
            total = total.saturating_add(len.unwrap_or(usize::MAX));
            if total > limit {
                return Err(NetworkError::TooLarge { node: step.name.clone(), elements: total, limit });
            }
        }
        Ok(())
    }

    /// Returns the size of an arena for some items, and the place of each value in it.
    fn arrange(&self, items: usize) -> (usize, Vec<usize>) {
        let Self { options, images, steps, .. } = self;
        let mut lifetimes = vec![Lifetime { len: 0, first: 0, last: 0 }; images.len()];
        for (i, step) in steps.iter().enumerate() {
            step.reads.iter().for_each(|slot| lifetimes[*slot].last = i);
            if let Some(slot) = step.writes {
                lifetimes[slot] = Lifetime { len: images[slot].floats(items), first: i, last: i };
            }
        }
        // The value whose memory each value shares.
        let mut owners: Vec<usize> = (0..images.len()).collect();
        if options.reuse_memory {
            for (i, step) in steps.iter().enumerate() {
                if let (Some(from), Some(to)) = (step.in_place, step.writes)
                    && lifetimes[from].last == i
                    && images[from].same_strides(&images[to])
                {
                    owners[to] = owners[from];
                    lifetimes[owners[from]].last = lifetimes[to].last;
                    // A later value in place compares with the end of this one.
                }
            }
        } else {
            lifetimes.iter_mut().for_each(|lifetime| lifetime.last = steps.len());
        }
        let roots: Vec<usize> = (0..images.len()).filter(|slot| owners[*slot] == *slot).collect();
        let (offsets, elements) = place(&roots.iter().map(|slot| lifetimes[*slot]).collect::<Vec<_>>());
        let mut places = vec![0; owners.len()];
        roots.into_iter().zip(offsets).for_each(|(slot, offset)| places[slot] = offset);
        (elements, owners.iter().map(|owner| places[*owner]).collect())
    }
}

/// Returns a weight, at `[o, c, y, x]` of a kernel of some height and width.
type Weights = Box<dyn Fn([usize; 4], [usize; 2]) -> f64>;

/// Returns the input rows of each window, and the input columns.
fn windows(window: &Window, input: Image) -> [Vec<Range<usize>>; 2] {
    [0, 1].map(|i| {
        let ([before, after], size) = (window.padding[i], window.size[i]);
        let len = [input.height, input.width][i];
        let count = (len + before + after - size) / window.stride[i] + 1;
        let range = |k: usize| {
            let start = k * window.stride[i];
            start.saturating_sub(before)..(start + size).saturating_sub(before).min(len)
        };
        (0..count).map(range).collect()
    })
}
