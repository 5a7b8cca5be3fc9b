//! The product of activations with a packed matrix.

use super::epilogue::Epilogue;
use super::level::Kernel;
use super::memory::{Output, Scratch, Words};
use super::panels::{GROUP, Group, Panels, STEP};
use super::simd::Simd;
use super::tile::{self, Codes, Contiguous, Decode, Own, Shared, Tile, clamped, cover};
use super::{Activations, Cost, KernelError, Level, Scales, lookup, quantize, workers};

/// Columns of activations that one task multiplies.
const COLUMNS_OF_A_TASK: usize = 64;
/// Most rows of activations for which tables are quicker than products.
const LOOKUP_ROWS: usize = 2;

/// A ternary matrix, packed, with what follows the product:
///
/// `y[m, r] = scale[r] (w_pos[r] Σ_{k: t[r,k] = +1} x[m, k] - w_neg[r] Σ_{k: t[r,k] = -1} x[m, k]) + shift[r]`,
///
/// then `max(y, 0)` if asked for. Without further calls `scale` is 1 and `shift` is 0. Sums do not depend on the number of threads,
/// and with [`Activations::Int8`] not on the instruction set either.
///
/// ```
/// use ttq_packed::kernels::{PackedMatrix, Scales, Scratch};
///
/// let t = [[1, 0, -1], [0, 1, 1]];
/// let scales = Scales::PerTensor { w_pos: 0.5, w_neg: 0.25 };
/// let matrix = PackedMatrix::new(2, 3, scales, |row, column| t[row][column])?;
/// let mut y = [0.0; 2];
/// matrix.forward(&[1.0, 2.0, 4.0], &mut y, &mut Scratch::new())?;
/// assert_eq!(y, [0.5 * 1.0 - 0.25 * 4.0, 0.5 * (2.0 + 4.0)]);
/// # Ok::<(), ttq_packed::kernels::KernelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    panels: Panels,
    epilogue: Epilogue,
    level: Level,
    activations: Activations,
}

impl PackedMatrix {
    /// Packs the matrix `[rows, columns]` = `[out, in]` of the values -1, 0, +1 that `value(row, column)` returns. A matrix stored
    /// as `[in, out]` needs no copy: the closure transposes.
    ///
    /// # Errors
    /// [`KernelError::NotTernary`]; [`KernelError::Dimension`] for no rows or columns, or more than 2²² columns;
    /// [`KernelError::Length`] for scales of another number of rows.
    pub fn new(
        rows: usize,
        columns: usize,
        scales: Scales<'_>,
        value: impl FnMut(usize, usize) -> i8,
    ) -> Result<Self, KernelError> {
        let panels = Panels::new(rows, columns, value)?;
        let epilogue = Epilogue::new(&panels, scales)?;
        Ok(Self { panels, epilogue, level: Level::best(), activations: Activations::Float32 })
    }

    /// Adds a bias to each row, after all that is there: `y + bias[r]`.
    ///
    /// # Errors
    /// [`KernelError::Length`]
    pub fn with_bias(mut self, bias: &[f32]) -> Result<Self, KernelError> {
        self.epilogue.then(None, Some(bias))?;
        Ok(self)
    }

    /// Another affine map after all that is there, `scale[r] y + shift[r]`: a batch normalization, folded. Signs do not matter.
    ///
    /// # Errors
    /// [`KernelError::Length`]
    pub fn with_affine(mut self, scale: &[f32], shift: &[f32]) -> Result<Self, KernelError> {
        self.epilogue.then(Some(scale), Some(shift))?;
        Ok(self)
    }

    /// `max(y, 0)` at the very end.
    pub fn with_relu(mut self) -> Self {
        self.epilogue.relu = true;
        self
    }

    /// Chooses the precision of activations; it is [`Activations::Float32`] at first.
    pub fn with_activations(mut self, activations: Activations) -> Self {
        self.activations = activations;
        self
    }

    /// Chooses an instruction set; it is [`Level::best`] at first.
    ///
    /// # Errors
    /// [`KernelError::Unavailable`]
    pub fn with_level(mut self, level: Level) -> Result<Self, KernelError> {
        self.level = level.checked()?;
        Ok(self)
    }

    /// Rows: outputs.
    pub fn rows(&self) -> usize {
        self.panels.rows()
    }

    /// Columns: inputs.
    pub fn columns(&self) -> usize {
        self.panels.columns()
    }

    /// The instruction set.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The precision of activations.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// A ternary value.
    ///
    /// # Panics
    /// Where there is no such row or column.
    pub fn value(&self, row: usize, column: usize) -> i8 {
        assert!(
            row < self.rows() && column < self.columns(),
            "[{row}, {column}] of [{}, {}]",
            self.rows(),
            self.columns()
        );
        self.panels.get(row, column)
    }

    /// What a product with `m` rows of activations reads, writes and computes at least.
    pub fn cost(&self, m: usize) -> Cost {
        Cost {
            weight_bytes: self.panels.bytes() + self.epilogue.bytes(),
            input_bytes: 4 * m * self.columns(),
            output_bytes: 4 * m * self.rows(),
            multiply_accumulates: m * self.rows() * self.columns(),
        }
    }

    /// Multiplies: `x` is `[m, columns]`, `y` is `[m, rows]`, both row-major; `m` follows from their lengths and may be zero.
    ///
    /// # Errors
    /// [`KernelError::Length`]
    pub fn forward(&self, x: &[f32], y: &mut [f32], scratch: &mut Scratch) -> Result<(), KernelError> {
        let (rows, columns) = (self.rows(), self.columns());
        let m = x.len() / columns;
        KernelError::check_length("x", m * columns, x.len())?;
        KernelError::check_length("y", m * rows, y.len())?;
        let threads = workers::worthwhile(m * rows * columns);
        let Scratch { input, factors, workers, .. } = scratch;
        workers.resize_with(workers.len().max(threads), Words::default);
        let workers = &mut workers[..threads];
        let output = Output::new(y);
        match self.activations {
            Activations::Float32 if self.level.permutes() && m <= LOOKUP_ROWS => {
                let planes = if self.epilogue.shared.is_some() { 1 } else { 2 };
                let tables = input.reserve(lookup::table_len(columns, planes));
                for (row, x) in x.chunks_exact(columns).enumerate() {
                    self.run(BuildTables { matrix: self, x, tables });
                    let tables = &*tables;
                    workers::run(self.panels.groups(), workers, |group, _| {
                        self.run(LookUp { matrix: self, tables, output, row, group: self.panels.group(group) });
                    });
                }
            }
            Activations::Float32 => self.tasks(m, workers, |group, from, to| {
                self.run(FloatProduct(Product { matrix: self, x, factors: &[], output, group }, from, to));
            }),
            Activations::Int8 => {
                let words = columns.div_ceil(4);
                let (bytes, factors) = (input.reserve(m * words), factors.reserve(m));
                self.run(Quantize { x, columns, bytes, factors });
                let (x, factors) = (&*bytes, &*factors);
                self.tasks(m, workers, |group, from, to| {
                    self.run(IntegerProduct(Product { matrix: self, x, factors, output, group }, from, to));
                });
            }
        }
        Ok(())
    }

    /// Runs a kernel at the matrix's level.
    fn run(&self, kernel: impl Kernel) {
        // SAFETY: `with_level` and `Level::best` let in only levels that the machine has.
        unsafe { self.level.run(kernel) }
    }

    /// Cuts the output into tasks: a group of rows and the activations `from..to`.
    fn tasks(&self, m: usize, workers: &mut [Words], task: impl Fn(Group, usize, usize) + Sync) {
        let groups = self.panels.groups();
        workers::run(groups * m.div_ceil(COLUMNS_OF_A_TASK), workers, |index, _| {
            let from = index / groups * COLUMNS_OF_A_TASK;
            task(self.panels.group(index % groups), from, m.min(from + COLUMNS_OF_A_TASK));
        });
    }
}

struct Quantize<'a> {
    x: &'a [f32],
    columns: usize,
    bytes: &'a mut [u32],
    factors: &'a mut [f32],
}

impl Kernel for Quantize<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        quantize::rows(self.x, self.columns, self.bytes, self.factors);
    }
}

struct BuildTables<'a> {
    matrix: &'a PackedMatrix,
    x: &'a [f32],
    tables: &'a mut [f32],
}

impl Kernel for BuildTables<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        // SAFETY: the trait's contract.
        unsafe {
            match self.matrix.epilogue.shared {
                Some([w_pos, w_neg]) => lookup::build::<V, 1>(self.x, [[w_pos, -w_neg]], self.tables),
                None => lookup::build::<V, 2>(self.x, [[1.0, 0.0], [0.0, 1.0]], self.tables),
            }
        }
    }
}

/// A row of activations times a group of rows, by [tables](lookup).
struct LookUp<'a> {
    matrix: &'a PackedMatrix,
    tables: &'a [f32],
    output: Output<'a>,
    row: usize,
    group: Group,
}

impl Kernel for LookUp<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        if const { V::PERMUTES } {
            // SAFETY: the trait's contract.
            unsafe {
                match self.matrix.epilogue.shared {
                    Some(_) => self.rows::<V, 1>(),
                    None => self.rows::<V, 2>(),
                }
            }
        }
    }
}

impl LookUp<'_> {
    #[inline(always)]
    unsafe fn rows<V: Simd, const PLANES: usize>(&self) {
        let mut row = 0;
        // SAFETY: groups have whole panels, and the vectors of a machine that permutes are panels.
        unsafe {
            while row + 4 * V::LANES <= self.group.rows {
                self.vectors::<V, PLANES, 4>(row);
                row += 4 * V::LANES;
            }
            while row < self.group.rows {
                self.vectors::<V, PLANES, 1>(row);
                row += V::LANES;
            }
        }
    }

    #[inline(always)]
    unsafe fn vectors<V: Simd, const PLANES: usize, const R: usize>(&self, row: usize) {
        let Self { matrix: PackedMatrix { panels, epilogue, .. }, group, output, .. } = self;
        let steps = panels.columns().div_ceil(STEP);
        let first = group.first + row;
        let mut y = [0.0; GROUP];
        // SAFETY: the caller vouches for the rows; tables were built for all steps.
        unsafe {
            let sums = lookup::sums::<V, PLANES, R>(*group, row, steps, self.tables.as_ptr());
            for (r, sums) in sums.into_iter().enumerate() {
                let sum = if PLANES == 1 {
                    sums[0]
                } else {
                    let neg = V::load(epilogue.w_neg.as_ptr().add(first + r * V::LANES));
                    let neg = V::mul(V::mul(neg, V::splat(-1.0)), sums[PLANES - 1]);
                    V::mul_add(V::load(epilogue.w_pos.as_ptr().add(first + r * V::LANES)), sums[0], neg)
                };
                V::store(y[r * V::LANES..][..V::LANES].as_mut_ptr(), sum);
            }
            let y = &mut y[..R * V::LANES];
            epilogue.floats(first, y);
            store(*output, panels.rows(), self.row, first, y);
        }
    }
}

/// A group of rows times rows of activations.
#[derive(Clone, Copy)]
struct Product<'a, T> {
    matrix: &'a PackedMatrix,
    x: &'a [T],
    factors: &'a [f32],
    output: Output<'a>,
    group: Group,
}

impl<T> Product<'_, T> {
    fn codes(&self, row: usize) -> Codes {
        // SAFETY: the row is in the group.
        let words = unsafe { self.group.words.add(row) };
        Codes { words, step: self.group.rows, columns: self.matrix.columns() }
    }

    /// Stores the rows from `row` of the group on for an activation row.
    #[inline(always)]
    unsafe fn store(&self, row: usize, column: usize, y: &[f32]) {
        // SAFETY: tasks differ in their rows or their columns.
        unsafe { store(self.output, self.matrix.rows(), column, self.group.first + row, y) }
    }
}

/// Stores what there is of `y`, the rows from `first` on, for an activation row; the others fill up a panel.
///
/// # Safety
/// Nobody else writes these places.
#[inline(always)]
unsafe fn store(output: Output<'_>, rows: usize, column: usize, first: usize, y: &[f32]) {
    let count = y.len().min(rows.saturating_sub(first));
    // SAFETY: the caller's vow.
    unsafe { output.slice(column * rows + first.min(rows), count).copy_from_slice(&y[..count]) }
}

/// The columns `.1 .. .2` with exact activations.
struct FloatProduct<'a>(Product<'a, f32>, usize, usize);

struct FloatTile<'a, D>(Product<'a, f32>, D);

impl Kernel for FloatProduct<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self(product, from, to) = self;
        let epilogue = &product.matrix.epilogue;
        // SAFETY: the trait's contract.
        unsafe {
            match epilogue.shared {
                Some(pair) => FloatTile(product, Shared(pair)).cover::<V>(from, to),
                None => {
                    let own = Own([epilogue.w_pos.as_ptr(), epilogue.w_neg.as_ptr()]);
                    FloatTile(product, own).cover::<V>(from, to);
                }
            }
        }
    }
}

impl<D: Decode> FloatTile<'_, D> {
    #[inline(always)]
    unsafe fn cover<V: Simd>(&self, from: usize, to: usize) {
        let rows = self.0.group.rows;
        // SAFETY: the caller's vows.
        unsafe {
            if const { V::LANES == 16 } {
                cover::<V, _, 2, 8, 4>(self, rows, from..to);
            } else if to - from == 1 {
                cover::<V, _, 4, 1, 1>(self, rows, from..to);
            } else {
                cover::<V, _, 2, 4, 4>(self, rows, from..to);
            }
        }
    }
}

impl<V: Simd, D: Decode> Tile<V> for FloatTile<'_, D> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const C: usize>(&self, row: usize, column: usize, count: usize) {
        let product = &self.0;
        let columns = product.matrix.columns();
        let x = clamped::<_, C>(count, |c| product.x[(column + c) * columns..].as_ptr());
        // SAFETY: the caller's vows.
        unsafe {
            let sums =
                tile::floats::<V, D, _, R, C>(product.codes(row), self.1, product.group.first + row, &x, Contiguous);
            for c in 0..count {
                for r in 0..R {
                    let mut y = [0.0; 16];
                    V::store(y.as_mut_ptr(), sums[r][c]);
                    let y = &mut y[..V::LANES];
                    let row = row + r * V::LANES;
                    product.matrix.epilogue.floats(product.group.first + row, y);
                    product.store(row, column + c, y);
                }
            }
        }
    }
}

/// The columns `.1 .. .2` with activations of 8 bits.
struct IntegerProduct<'a>(Product<'a, u32>, usize, usize);

struct IntegerTile<'a, const PLANES: usize>(Product<'a, u32>);

impl Kernel for IntegerProduct<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self(product, from, to) = self;
        let rows = product.group.rows;
        let one = IntegerTile::<1>(product);
        let two = IntegerTile::<2>(product);
        // SAFETY: the trait's contract.
        unsafe {
            if const { V::LANES == 16 } {
                match (product.matrix.epilogue.symmetric, to - from) {
                    (true, 1) => cover::<V, _, 4, 1, 1>(&one, rows, from..to),
                    (false, 1) => cover::<V, _, 4, 1, 1>(&two, rows, from..to),
                    (true, _) => cover::<V, _, 2, 8, 4>(&one, rows, from..to),
                    (false, _) => cover::<V, _, 2, 4, 4>(&two, rows, from..to),
                }
            } else if const { V::LANES == 4 } {
                match (product.matrix.epilogue.symmetric, to - from) {
                    (true, 1) => cover::<V, _, 2, 1, 1>(&one, rows, from..to),
                    (false, 1) => cover::<V, _, 2, 1, 1>(&two, rows, from..to),
                    (true, _) => cover::<V, _, 1, 4, 4>(&one, rows, from..to),
                    (false, _) => cover::<V, _, 1, 4, 4>(&two, rows, from..to),
                }
            } else if product.matrix.epilogue.symmetric {
                cover::<V, _, 2, 2, 2>(&one, rows, from..to);
            } else {
                cover::<V, _, 2, 1, 1>(&two, rows, from..to);
            }
        }
    }
}

impl<V: Simd, const PLANES: usize> Tile<V> for IntegerTile<'_, PLANES> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const C: usize>(&self, row: usize, column: usize, count: usize) {
        let product = &self.0;
        let words = product.matrix.columns().div_ceil(4);
        let x = clamped::<_, C>(count, |c| product.x[(column + c) * words..].as_ptr());
        // SAFETY: the caller's vows.
        unsafe {
            let sums = tile::integers::<V, _, PLANES, R, C>(product.codes(row), &x, Contiguous);
            for c in 0..count {
                for r in 0..R {
                    let (mut stored, mut y) = ([[0; 16]; 2], [0.0; 16]);
                    for p in 0..PLANES {
                        V::store_dots(stored[p].as_mut_ptr(), sums[r][c][p]);
                    }
                    let y = &mut y[..V::LANES];
                    let (row, factor) = (row + r * V::LANES, product.factors[column + c]);
                    let [first, second] = &stored;
                    product.matrix.epilogue.integers(product.group.first + row, factor, [first, second], y);
                    product.store(row, column + c, y);
                }
            }
        }
    }
}
