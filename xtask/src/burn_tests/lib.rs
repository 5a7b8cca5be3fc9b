//! What Burn's tests take from their own crate, and the backend under test.

pub use burn_tensor_testgen::might_panic;

#[cfg(not(feature = "ttq"))]
pub type Inner = burn_flex::Flex;
#[cfg(feature = "ttq")]
pub type Inner = ttq_cpu::Cpu;

/// Replaces a method of Burn's dispatching backend.
pub fn default_quant_scheme() -> burn_tensor::quantization::QuantScheme {
    <burn_flex::FlexQTensor as burn_tensor::quantization::QTensorPrimitive>::default_scheme()
}

/// The backend-dependent types that Burn's tests use.
#[macro_export]
macro_rules! test_types {
    ($backend:ty) => {
        pub type TestBackend = $backend;
        pub type TestTensor<const D: usize> = burn_tensor::Tensor<TestBackend, D>;
        pub type TestTensorInt<const D: usize> = burn_tensor::Tensor<TestBackend, D, burn_tensor::Int>;
        pub type TestTensorBool<const D: usize> = burn_tensor::Tensor<TestBackend, D, burn_tensor::Bool>;
        pub type FloatElem = f32;
        pub type IntElem = i32;

        #[ctor::ctor(unsafe)]
        fn set_default_dtypes() {
            let (float, int) = (burn_tensor::DType::F32, burn_tensor::DType::I32);
            let _ = burn_tensor::set_default_dtypes::<TestBackend>(&Default::default(), float, int);
        }
    };
}
