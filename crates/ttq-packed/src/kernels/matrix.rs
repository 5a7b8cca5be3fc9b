//! Products of activations with a packed matrix.

use super::epilogue::{Epilogue, Finish};
use super::level::Kernel;
use super::memory::{Output, Scratch, Words};
use super::panels::{Group, Panels};
use super::product::{
    BuildByteTables, BuildTables, FloatProduct, IntegerProduct, LOOKUP_ROWS, LookUp, Product, Quantize,
};
use super::{Activations, CodesView, Cost, KernelError, Level, Scales, byte_tables, lookup, workers};

/// Number of rows of activations per task.
const ROWS_PER_TASK: usize = 64;
/// Maximum number of rows of activations for which lookup tables are faster than products on any level.
const MAX_LOOKUP_ROWS: usize = 2;
/// Minimum number of rows of weights for which building tables of floats pays off for more rows of activations.
const MIN_TABLE_ROWS: usize = 256;
/// Minimum number of rows of weights for which building tables of bytes pays off.
const MIN_BYTE_TABLE_ROWS: usize = 1024;

/// A packed ternary matrix `[rows, columns]` = `[out, in]`, with an affine map and an activation function after the
/// product.
///
/// With the codes `t` and the activations `x`, the output is
///
/// `y[m, r] = scale[r] (w_pos[r] Σ_{k: t[r,k] = +1} x[m, k] - w_neg[r] Σ_{k: t[r,k] = -1} x[m, k]) + shift[r]`,
///
/// followed by `max(y, 0)` after [`with_relu`](Self::with_relu). By default `scale` is 1 and `shift` is 0;
/// [`with_bias`](Self::with_bias) and [`with_affine`](Self::with_affine) change them. Sums do not depend on the number
/// of threads, and with [`Activations::Int8`] they do not depend on the instruction set.
///
/// ```
/// use ttq_packed::Codes;
/// use ttq_packed::kernels::{CodesView, PackedMatrix, Scales, Scratch};
///
/// let codes = Codes::pack(&[1, 0, -1, 0, 1, 1])?;
/// let scales = Scales::PerTensor { w_pos: 0.5, w_neg: 0.25 };
/// let matrix = PackedMatrix::new(CodesView::new(&codes, [2, 3])?, scales)?;
/// let mut y = [0.0; 2];
/// matrix.forward(&[1.0, 2.0, 4.0], &mut y, &mut Scratch::new())?;
/// assert_eq!(y, [0.5 * 1.0 - 0.25 * 4.0, 0.5 * (2.0 + 4.0)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    panels: Panels,
    epilogue: Epilogue,
    level: Level,
    activations: Activations,
}

impl PackedMatrix {
    /// Packs a matrix `[rows, columns]` = `[out, in]`.
    ///
    /// A matrix stored as `[in, out]` needs no transposed copy, see [`CodesView::with_strides`].
    ///
    /// # Errors
    /// - [`KernelError::Dimension`] if there are no rows, no columns, or more than 2²² columns;
    /// - [`KernelError::Length`] if the number of scales per row is not `rows`.
    pub fn new(codes: CodesView<'_, 2>, scales: Scales<'_>) -> Result<Self, KernelError> {
        let CodesView { codes, shape, strides: [down, right] } = codes;
        let panels = Panels::new(shape, codes, [0, down], |column| Some(column * right))?;
        let epilogue = Epilogue::new(&panels, scales)?;
        Ok(Self { panels, epilogue, level: Level::best(), activations: Activations::Float32 })
    }

    /// Appends a bias `[rows]` to the affine map: `y + bias[r]`.
    ///
    /// # Errors
    /// [`KernelError::Length`] if `bias` does not have one element per row.
    pub fn with_bias(mut self, bias: &[f32]) -> Result<Self, KernelError> {
        self.epilogue.append_affine(None, Some(bias))?;
        Ok(self)
    }

    /// Appends an affine map, `scale[r] y + shift[r]`, such as a folded batch normalization.
    ///
    /// `scale` and `shift` are `[rows]`, with elements of any sign.
    ///
    /// # Errors
    /// [`KernelError::Length`] if `scale` or `shift` does not have one element per row.
    pub fn with_affine(mut self, scale: &[f32], shift: &[f32]) -> Result<Self, KernelError> {
        self.epilogue.append_affine(Some(scale), Some(shift))?;
        Ok(self)
    }

    /// Applies `max(y, 0)` after the affine map, independent of the order of calls.
    pub fn with_relu(mut self) -> Self {
        self.epilogue.relu = true;
        self
    }

    /// Sets the precision of activations. The default is [`Activations::Float32`].
    pub fn with_activations(mut self, activations: Activations) -> Self {
        self.activations = activations;
        if activations == Activations::Int8 {
            self.epilogue.use_integers(self.panels.columns());
        }
        self
    }

    /// Sets the instruction set. The default is [`Level::best`].
    ///
    /// # Errors
    /// [`KernelError::Unavailable`] if this machine does not support it.
    pub fn with_level(mut self, level: Level) -> Result<Self, KernelError> {
        self.level = level.checked()?;
        Ok(self)
    }

    /// Returns the number of rows (outputs).
    pub fn rows(&self) -> usize {
        self.panels.rows()
    }

    /// Returns the number of columns (inputs).
    pub fn columns(&self) -> usize {
        self.panels.columns()
    }

    /// Returns the instruction set.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Returns the precision of activations.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// Returns the ternary value (-1, 0, +1) at a row and column.
    ///
    /// # Panics
    /// If the row or column is out of range.
    pub fn value(&self, row: usize, column: usize) -> i8 {
        assert!(
            row < self.rows() && column < self.columns(),
            "index [{row}, {column}] is out of range for a matrix [{}, {}]",
            self.rows(),
            self.columns()
        );
        self.panels.get(row, column)
    }

    /// Returns the minimum memory traffic and the arithmetic of a product with `m` rows of activations.
    pub fn cost(&self, m: usize) -> Cost {
        Cost {
            weight_bytes: self.panels.bytes() + self.epilogue.size(),
            input_bytes: 4 * m * self.columns(),
            output_bytes: 4 * m * self.rows(),
            multiply_accumulates: m * self.rows() * self.columns(),
        }
    }

    /// Computes the outputs `y` of the activations `x`.
    ///
    /// # Shapes
    /// - `x`: `[m, columns]`, row-major
    /// - `y`: `[m, rows]`, row-major; it is overwritten
    ///
    /// `m` follows from the length of `x` and may be zero.
    ///
    /// # Errors
    /// [`KernelError::Length`] if the length of `x` is not a multiple of the number of columns, or if `y` does not
    /// match it.
    pub fn forward(&self, x: &[f32], y: &mut [f32], scratch: &mut Scratch) -> Result<(), KernelError> {
        self.forward_with_bias(x, None, y, scratch)
    }

    /// Computes [`forward`](Self::forward) with a `bias` `[rows]` of this call, which the affine map adds.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward), and [`KernelError::Length`] if `bias` does not have one element per row.
    pub fn forward_with_bias(
        &self,
        x: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), KernelError> {
        let Self { panels, epilogue, .. } = self;
        let (rows, columns) = (self.rows(), self.columns());
        let m = x.len() / columns;
        KernelError::check_length("x", m * columns, x.len())?;
        KernelError::check_length("y", m * rows, y.len())?;
        let threads = workers::count(m * rows * columns);
        let Scratch { input, factors, shifts, workers, .. } = scratch;
        let mut epilogue = Finish { epilogue, shift: &epilogue.shift };
        if let Some(bias) = bias {
            KernelError::check_length("bias", rows, bias.len())?;
            let shifts = shifts.reserve(panels.padded_rows());
            epilogue.add_bias(bias, shifts);
            epilogue.shift = shifts;
        }
        workers.resize_with(workers.len().max(threads), Words::default);
        let workers = &mut workers[..threads];
        let output = Output::new(y);
        match self.activations {
            Activations::Float32 if self.looks_up(m) => {
                let tables_len = LOOKUP_ROWS.min(m) * lookup::table_len(columns);
                let blocks = x.chunks(LOOKUP_ROWS * columns).len();
                let build = |block: usize, tables: &mut [f32]| {
                    let x = &x[block * LOOKUP_ROWS * columns..];
                    let x = &x[..x.len().min(LOOKUP_ROWS * columns)];
                    self.run(BuildTables { x, columns, tables });
                };
                let look_up = |block: usize, tables: &[f32], group: usize| {
                    let (row, group) = (block * LOOKUP_ROWS, panels.group(group));
                    let count = LOOKUP_ROWS.min(m - row);
                    self.run(LookUp { panels, epilogue, tables, output, row, count, group });
                };
                // Whole blocks for each thread, unless some threads would have nothing to do for long.
                if blocks.is_multiple_of(workers.len()) || blocks >= 4 * workers.len() {
                    workers::run(blocks, workers, |block, buffer| {
                        let tables = buffer.reserve(tables_len);
                        build(block, tables);
                        (0..panels.groups()).for_each(|group| look_up(block, tables, group));
                    });
                } else {
                    let tables = input.reserve(tables_len);
                    for block in 0..blocks {
                        build(block, tables);
                        let tables = &*tables;
                        workers::run(panels.groups(), workers, |group, _| look_up(block, tables, group));
                    }
                }
            }
            Activations::Float32 => self.tasks(m, workers, |group, from, to| {
                self.run(FloatProduct(Product { panels, epilogue, x, factors: &[], output, group }, from, to));
            }),
            Activations::Int8 => {
                let words = columns.div_ceil(4);
                let by_tables = m > 0
                    && self.level.has_byte_tables()
                    && epilogue.bytes.sums(self.level.has_any_bytes()) == 2
                    && m <= MAX_LOOKUP_ROWS
                    && rows >= MIN_BYTE_TABLE_ROWS;
                let tables = if by_tables { m * byte_tables::table_len(columns) } else { 0 };
                let (tables, bytes) = input.reserve(tables + m * words).split_at_mut(tables);
                let factors = factors.reserve(m);
                self.run(Quantize { x, columns, bytes, factors });
                if by_tables {
                    self.run(BuildByteTables { x: bytes, rows: m, tables });
                }
                let (x, factors, tables) = (&*bytes, &*factors, &*tables);
                self.tasks(m, workers, |group, from, to| {
                    let product = Product { panels, epilogue, x, factors, output, group };
                    self.run(IntegerProduct { product, from, to, tables });
                });
            }
        }
        Ok(())
    }

    /// Returns `true` if products of `m` rows of float32 activations use lookup tables.
    fn looks_up(&self, m: usize) -> bool {
        let many = self.level.looks_up_many() && self.rows() >= MIN_TABLE_ROWS;
        self.level.permutes() && (m <= MAX_LOOKUP_ROWS || many)
    }

    /// Runs a kernel at the level of the matrix.
    fn run(&self, kernel: impl Kernel) {
        // SAFETY: `with_level` and `Level::best` ensure that the machine supports the level.
        unsafe { self.level.run(kernel) }
    }

    /// Divides the output into tasks of one group of weight rows and the rows `from..to` of the activations.
    fn tasks(&self, m: usize, workers: &mut [Words], task: impl Fn(Group, usize, usize) + Sync) {
        let groups = self.panels.groups();
        workers::run(groups * m.div_ceil(ROWS_PER_TASK), workers, |index, _| {
            let from = index / groups * ROWS_PER_TASK;
            task(self.panels.group(index % groups), from, m.min(from + ROWS_PER_TASK));
        });
    }
}
