//! Exported models: their structure, and their outputs in ONNX Runtime.

mod graphs;
mod python;
#[allow(unreachable_pub, reason = "the networks of the tests of `ttq-packed`")]
#[path = "../../../ttq-packed/tests/network/resnet.rs"]
mod resnet;
mod structure;
