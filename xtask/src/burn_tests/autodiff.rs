#![recursion_limit = "256"]
#![allow(warnings)]

extern crate alloc;

macro_rules! suite {
    ($name:ident, $strategy:ident) => {
        #[path = "."]
        mod $name {
            burn_backend_tests::test_types!(
                burn_autodiff::Autodiff<burn_backend_tests::Inner, burn_autodiff::checkpoint::strategy::$strategy>
            );

            pub struct AutodiffDevice;

            impl AutodiffDevice {
                pub fn new() -> burn_flex::FlexDevice {
                    burn_flex::FlexDevice
                }
            }

            #[path = "burn/autodiff/mod.rs"]
            mod autodiff;
        }
    };
}

suite!(stored, NoCheckpointing);
suite!(checkpointed, BalancedCheckpointing);
