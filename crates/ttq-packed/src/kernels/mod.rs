//! Kernels over packed weights: slices in, slices out. They know no files.
