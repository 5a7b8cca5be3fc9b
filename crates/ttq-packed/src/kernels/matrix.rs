//! The product of activations with a packed matrix.

use super::epilogue::Epilogue;
use super::level::Kernel;
use super::memory::{Output, Scratch, Words};
use super::panels::{Group, Panels};
use super::product::{BuildByteTables, BuildTables, FloatProduct, IntegerProduct, LookUp, Product, Quantize};
use super::{Activations, Cost, KernelError, Level, Scales, byte_tables, lookup, workers};

/// Columns of activations that one task multiplies.
const COLUMNS_OF_A_TASK: usize = 64;
/// Most rows of activations for which tables are quicker than products.
const LOOKUP_ROWS: usize = 2;
/// Fewest rows of weights that are worth building tables of bytes.
const BYTE_TABLE_ROWS: usize = 1024;

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
        let Self { panels, epilogue, .. } = self;
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
                let planes = if epilogue.shared.is_some() { 1 } else { 2 };
                let tables = input.reserve(lookup::table_len(columns, planes));
                for (row, x) in x.chunks_exact(columns).enumerate() {
                    self.run(BuildTables { epilogue, x, tables });
                    let tables = &*tables;
                    workers::run(panels.groups(), workers, |group, _| {
                        self.run(LookUp { panels, epilogue, tables, output, row, group: panels.group(group) });
                    });
                }
            }
            Activations::Float32 => self.tasks(m, workers, |group, from, to| {
                self.run(FloatProduct(Product { panels, epilogue, x, factors: &[], output, group }, from, to));
            }),
            Activations::Int8 => {
                let words = columns.div_ceil(4);
                let by_tables =
                    self.level.has_byte_tables() && !epilogue.symmetric && m <= LOOKUP_ROWS && rows >= BYTE_TABLE_ROWS;
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
