//! The graph of one item from the records of two runs, which differ in the size of the batch.
//!
//! The *batch axis* of a value is the dimension that differs: `n` in a run on `n` items, or `n k` if it was joined with `k`
//! elements of an item. An item has the other dimensions, and in the second case `k` at the place of the batch axis.

use std::collections::BTreeMap;

use ttq_packed::network::{Constant, Graph, Operation, Value};

use crate::CaptureError;
use crate::capture::BATCHES;
use crate::tape::{NamedConstant, Operand, Record, Records, Step};

pub(crate) fn read((operation, module): (&'static str, String)) -> CaptureError {
    CaptureError::Read { operation: operation.into(), module }
}

/// Builds the graph. `outputs` are the indices of the output in the two runs.
pub(crate) fn graph(first: &Records, second: &Records, outputs: [usize; 2]) -> Result<Graph, CaptureError> {
    if let Some(leak) = first.leak.clone().or_else(|| second.leak.clone()) {
        return Err(read(leak));
    }
    let mut builder = Builder {
        graph: Graph::new(first.values[0].dims[1..].to_vec())?,
        records: first,
        placed: Vec::new(),
        constants: Vec::new(),
        names: BTreeMap::new(),
    };
    let needed = needed(first, outputs[0]);
    let mut output = None;
    for (index, record) in first.values.iter().enumerate() {
        let Some(other) = second.values.get(index) else {
            return Err(Site { record, other: record }.fails("runs for some sizes of the batch only"));
        };
        let site = Site { record, other };
        let placed = if needed[index] { Some(builder.value(&site)?) } else { None };
        if index == outputs[0] {
            output = placed;
        }
        builder.placed.push(placed);
    }
    match output {
        Some(Placed { value, axis: 0, .. }) if outputs[0] == outputs[1] => {
            builder.graph.set_output(value)?;
            Ok(builder.graph)
        }
        _ => Err(Site { record: &first.values[outputs[0]], other: &second.values[outputs[0].min(outputs[1])] }
            .fails("is the output, whose first dimension is not the batch")),
    }
}

/// Returns the values on which the output depends.
fn needed(records: &Records, output: usize) -> Vec<bool> {
    let mut needed = vec![false; records.values.len()];
    needed[output] = true;
    for index in (0..=output).rev() {
        if needed[index] {
            for operand in &records.values[index].operands {
                if let Operand::Value(operand) = operand {
                    needed[*operand] = true;
                }
            }
        }
    }
    needed
}

/// A value in both runs.
struct Site<'a> {
    record: &'a Record,
    other: &'a Record,
}

/// A value of the graph.
#[derive(Debug, Clone, Copy)]
struct Placed {
    value: Value,
    /// The batch axis.
    axis: usize,
    /// Number of elements of an item with which the batch axis is joined; 1 if it is not.
    parts: usize,
}

impl Placed {
    /// Returns the dimensions of an item.
    fn item(&self, dims: &[usize]) -> Vec<usize> {
        let mut dims = dims.to_vec();
        match self.parts {
            1 => drop(dims.remove(self.axis)),
            parts => dims[self.axis] = parts,
        }
        dims
    }

    /// Returns the axis of an item that is an axis of the batch.
    fn axis_of_item(&self, axis: usize, site: &Site<'_>) -> Result<usize, CaptureError> {
        match axis {
            axis if axis == self.axis => Err(site.fails("works across the items of a batch")),
            axis => Ok(axis - usize::from(self.parts == 1 && axis > self.axis)),
        }
    }

    fn place(&self) -> (usize, usize) {
        (self.axis, self.parts)
    }
}

impl Site<'_> {
    fn fails(&self, reason: impl Into<String>) -> CaptureError {
        let operation = match &self.record.step {
            Step::Input => "input".into(),
            Step::Known(operation) => operation.name().into(),
            Step::Unknown(name) => (*name).into(),
        };
        CaptureError::Batch { operation, module: self.record.module.clone(), reason: reason.into() }
    }

    /// Returns the batch axis and the number of elements with which it is joined.
    fn place(&self) -> Result<(usize, usize), CaptureError> {
        let (dims, other) = (&self.record.dims, &self.other.dims);
        let differ = |axis: &usize| dims[*axis] != other[*axis];
        let axes: Vec<usize> = (0..dims.len().min(other.len())).filter(differ).collect();
        if let [axis] = *axes
            && dims.len() == other.len()
        {
            let parts = dims[axis] / BATCHES[0];
            if parts * BATCHES[0] == dims[axis] && parts * BATCHES[1] == other[axis] {
                return Ok((axis, parts));
            }
        }
        Err(self.fails(format!(
            "works across the items of a batch: its result has the shape {dims:?} for {} items and {other:?} for {}",
            BATCHES[0], BATCHES[1]
        )))
    }

    /// Returns the operands of both runs.
    fn operands(&self) -> impl Iterator<Item = (&Operand, &Operand)> {
        self.record.operands.iter().zip(&self.other.operands)
    }
}

struct Builder<'a> {
    graph: Graph,
    records: &'a Records,
    /// For each record, the value of the graph, if the output depends on it.
    placed: Vec<Option<Placed>>,
    constants: Vec<(Constant, Value)>,
    /// Number of constants with the same path.
    names: BTreeMap<String, usize>,
}

impl Builder<'_> {
    fn value(&mut self, site: &Site<'_>) -> Result<Placed, CaptureError> {
        let Record { step, operands, module, .. } = site.record;
        if let Step::Unknown(name) = step {
            return Err(CaptureError::Unsupported { operation: (*name).into(), module: module.clone() });
        }
        if *step != site.other.step || operands.len() != site.other.operands.len() {
            return Err(site.fails("depends on the size of the batch"));
        }
        let (axis, parts) = site.place()?;
        let mut result = Placed { value: self.graph.input(), axis, parts };
        if let Step::Known(operation) = step {
            result.value = self.apply(operation, result, site)?;
        }
        Ok(result)
    }

    /// Adds an operation to the graph.
    fn apply(&mut self, operation: &Operation, result: Placed, site: &Site<'_>) -> Result<Value, CaptureError> {
        let name = match site.record.module.as_str() {
            "" => operation.name(),
            module => module,
        };
        let same_place = |placed: Placed| match placed.place() == result.place() {
            true => Ok(placed.value),
            false => Err(site.fails("has the batch in another dimension of its operand than of its result")),
        };
        let dims = &site.record.dims;
        let rank = dims.len();
        match operation {
            Operation::Unary(_) => {
                let x = self.only(site)?;
                self.add(name, operation.clone(), &[same_place(x)?])
            }
            Operation::Binary(_) | Operation::Where | Operation::MatrixProduct | Operation::Concatenate(_) => {
                let operation = match operation {
                    Operation::Concatenate(axis) => Operation::Concatenate(result.axis_of_item(*axis, site)?),
                    Operation::MatrixProduct if result.axis + 2 >= rank => {
                        return self.product_of_items(name, result, site);
                    }
                    other => other.clone(),
                };
                let mut operands = Vec::new();
                for (operand, other) in site.operands() {
                    operands.push(match self.operand(operand, other, site)? {
                        Ok(placed) => same_place(placed)?,
                        Err(constants) => {
                            let constant = of_item(constants, result, rank, site)?;
                            self.constant(constants[0].path.as_deref(), constant)?
                        }
                    });
                }
                self.add(name, operation, &operands)
            }
            Operation::Linear
            | Operation::Convolution(_)
            | Operation::TransposedConvolution { .. }
            | Operation::Gather => {
                let mut operands = Vec::new();
                for (index, (operand, other)) in site.operands().enumerate() {
                    let is_rows = matches!(operation, Operation::Gather) && index == 0;
                    operands.push(match self.operand(operand, other, site)? {
                        Ok(placed) if is_rows && placed.axis == 0 => {
                            return Err(site.fails("works across the items of a batch"));
                        }
                        Ok(placed) => same_place(placed)?,
                        Err(constants) => self.fixed(constants, site)?,
                    });
                }
                if matches!(operation, Operation::Convolution(_) | Operation::TransposedConvolution { .. }) {
                    image(result, site)?;
                }
                self.add(name, operation.clone(), &operands)
            }
            Operation::MaxPool(_) | Operation::AveragePool { .. } | Operation::AdaptiveAveragePool(_) => {
                image(result, site)?;
                let x = self.only(site)?;
                self.add(name, operation.clone(), &[same_place(x)?])
            }
            Operation::Softmax(axis) => {
                let x = self.only(site)?;
                self.add(name, Operation::Softmax(result.axis_of_item(*axis, site)?), &[same_place(x)?])
            }
            Operation::Reduce { function, axes } => {
                let x = self.only(site)?;
                let axes = axes.iter().map(|axis| result.axis_of_item(*axis, site)).collect::<Result<_, _>>()?;
                self.add(name, Operation::Reduce { function: *function, axes }, &[same_place(x)?])
            }
            Operation::Slice { axis, start, end, step } => {
                let x = self.only(site)?;
                let axis = result.axis_of_item(*axis, site)?;
                self.add(name, Operation::Slice { axis, start: *start, end: *end, step: *step }, &[same_place(x)?])
            }
            Operation::Pad { padding, value } => {
                let x = self.only(site)?;
                let mut padding = padding.clone();
                if padding[result.axis] != [0, 0] {
                    return Err(site.fails("adds items to a batch"));
                }
                if result.parts == 1 {
                    padding.remove(result.axis);
                }
                self.add(name, Operation::Pad { padding, value: *value }, &[same_place(x)?])
            }
            Operation::Permute(axes) => {
                let x = self.only(site)?;
                if axes.get(result.axis) != Some(&x.axis) || x.parts != result.parts {
                    return Err(site.fails("has the batch in an unexpected dimension of its result"));
                }
                let others = axes.iter().filter(|axis| x.parts > 1 || **axis != x.axis);
                let of_item = |axis: &usize| axis - usize::from(x.parts == 1 && *axis > x.axis);
                let axes: Vec<usize> = others.map(of_item).collect();
                if axes.is_sorted() {
                    return Ok(x.value);
                }
                self.add(name, Operation::Permute(axes), &[x.value])
            }
            Operation::Reshape(_) => {
                let x = self.only(site)?;
                let before = match site.record.operands.first() {
                    Some(Operand::Value(index)) => &*self.records.values[*index].dims,
                    _ => &[],
                };
                let leading = |dims: &[usize], axis: usize| dims[..axis].iter().product::<usize>();
                if leading(before, x.axis) != leading(dims, result.axis) {
                    return Err(site.fails("mixes the items of a batch"));
                }
                self.reshape(name, x.value, result.item(dims))
            }
            other => {
                Err(CaptureError::Unsupported { operation: other.name().into(), module: site.record.module.clone() })
            }
        }
    }

    /// Adds a matrix product of a constant with a matrix whose rows, or columns if it is the second one, belong to the items
    /// of a batch.
    fn product_of_items(&mut self, name: &str, result: Placed, site: &Site<'_>) -> Result<Value, CaptureError> {
        let dims = &site.record.dims;
        let of_items = result.axis + 2 - dims.len();
        let mut operands = Vec::new();
        for (index, (operand, other)) in site.operands().enumerate() {
            operands.push(match (operand, self.operand(operand, other, site)?) {
                (Operand::Value(record), Ok(placed)) if index == of_items && placed.place() == result.place() => {
                    let mut dims = self.records.values[*record].dims.clone();
                    dims[placed.axis] = placed.parts;
                    self.reshape(name, placed.value, dims)?
                }
                (_, Err(constants)) => self.fixed(constants, site)?,
                _ => return Err(site.fails("has the items of a batch in the rows or columns of a matrix")),
            });
        }
        let product = self.add(name, Operation::MatrixProduct, &operands)?;
        self.reshape(name, product, result.item(dims))
    }

    /// Adds an operation for other dimensions, unless the value has them.
    fn reshape(&mut self, name: &str, value: Value, dims: Vec<usize>) -> Result<Value, CaptureError> {
        if self.graph.shape(value).dims == dims {
            return Ok(value);
        }
        self.add(name, Operation::Reshape(dims), &[value])
    }

    /// Adds a constant that must be the same in both runs.
    fn fixed(&mut self, [first, second]: [&NamedConstant; 2], site: &Site<'_>) -> Result<Value, CaptureError> {
        if !is_same(&first.constant, &second.constant) {
            return Err(site.fails("has a constant that depends on the size of the batch"));
        }
        self.constant(first.path.as_deref(), first.constant.clone())
    }

    fn add(&mut self, name: &str, operation: Operation, operands: &[Value]) -> Result<Value, CaptureError> {
        Ok(self.graph.apply(name, operation, operands)?)
    }

    /// Returns the first operand, which depends on the input.
    fn only(&self, site: &Site<'_>) -> Result<Placed, CaptureError> {
        match site.record.operands.first() {
            Some(Operand::Value(index)) => self.placed(*index, site),
            _ => Err(site.fails("has a constant operand")),
        }
    }

    fn placed(&self, index: usize, site: &Site<'_>) -> Result<Placed, CaptureError> {
        self.placed.get(index).copied().flatten().ok_or_else(|| site.fails("reads a value of another run"))
    }

    /// Returns the value of an operand, or the constants of both runs.
    fn operand<'a>(
        &self,
        first: &'a Operand,
        second: &'a Operand,
        site: &Site<'_>,
    ) -> Result<Result<Placed, [&'a NamedConstant; 2]>, CaptureError> {
        match (first, second) {
            (Operand::Value(index), Operand::Value(other)) if index == other => Ok(Ok(self.placed(*index, site)?)),
            (Operand::Constant(first), Operand::Constant(second)) => Ok(Err([first, second])),
            _ => Err(site.fails("depends on the size of the batch")),
        }
    }

    /// Adds a constant, unless the graph has it. Names are unique.
    fn constant(&mut self, path: Option<&str>, constant: Constant) -> Result<Value, CaptureError> {
        if let Some((_, value)) = self.constants.iter().find(|(known, _)| is_same(known, &constant)) {
            return Ok(*value);
        }
        let path = path.unwrap_or("constant");
        let number = self.names.entry(path.to_owned()).and_modify(|number| *number += 1).or_insert(1);
        let name = if *number == 1 && path != "constant" { path.to_owned() } else { format!("{path}#{number}") };
        let value = self.graph.constant(name, constant.clone())?;
        self.constants.push((constant, value));
        Ok(value)
    }
}

/// Returns whether two constants have the same bits. (NaN differs from itself, and zeros of both signs are equal.)
fn is_same(first: &Constant, second: &Constant) -> bool {
    match (first, second) {
        (Constant::Float { dims, values }, Constant::Float { dims: other_dims, values: others }) => {
            dims == other_dims && bits(values).eq(bits(others))
        }
        _ => first == second,
    }
}

fn bits(values: &[f32]) -> impl Iterator<Item = u32> {
    values.iter().map(|value| value.to_bits())
}

/// Checks that the operand is a batch of images.
fn image(placed: Placed, site: &Site<'_>) -> Result<(), CaptureError> {
    match placed.place() {
        (0, 1) => Ok(()),
        _ => Err(site.fails("has several images for each item of a batch")),
    }
}

/// Returns the part of a constant that belongs to an item of a value with this batch axis: along this axis, its elements are
/// the same for all items.
fn of_item(
    constants: [&NamedConstant; 2],
    placed: Placed,
    rank: usize,
    site: &Site<'_>,
) -> Result<Constant, CaptureError> {
    let [first, second] = constants.map(|constant| (constant.constant.dims(), &constant.constant));
    let depends = || site.fails("has a constant that depends on the size of the batch");
    if first.0.is_empty() && second.0.is_empty() {
        return if is_same(first.1, second.1) { Ok(first.1.clone()) } else { Err(depends()) };
    }
    if first.0.len() != rank || second.0.len() != rank {
        return Err(site.fails("has operands with different numbers of dimensions"));
    }
    let axis = placed.axis;
    let parts = |dims: &[usize], batch: usize| match dims[axis] {
        1 => Some((1, 1)),
        size if size.is_multiple_of(batch) => Some((batch, size / batch)),
        _ => None,
    };
    let (Some(copies), Some(others)) = (parts(first.0, BATCHES[0]), parts(second.0, BATCHES[1])) else {
        return Err(depends());
    };
    let mut items = Vec::new();
    for ((dims, constant), (copies, parts)) in [(first, copies), (second, others)] {
        let values = constant.values();
        let run = parts * dims[axis + 1..].iter().product::<usize>();
        let mut item = Vec::with_capacity(values.len() / copies);
        for group in values.chunks(copies * run) {
            if group.chunks(run).any(|copy| bits(copy).ne(bits(&group[..run]))) {
                return Err(site.fails("has a constant that differs between the items of a batch"));
            }
            item.extend_from_slice(&group[..run]);
        }
        let mut dims = dims.to_vec();
        dims[axis] = parts;
        items.push((dims, item));
    }
    let [(dims, item), (other_dims, other)] = [&items[0], &items[1]];
    if dims != other_dims || bits(item).ne(bits(other)) {
        return Err(depends());
    }
    let (mut dims, values) = items.swap_remove(0);
    if placed.parts == 1 {
        dims.remove(axis);
    }
    Ok(Constant::float(dims, values))
}
