//! Calls of the inner backend that a graph does not have.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use burn_backend::ops::{
    DeformConv2dBackward, InterpolateBackward, MaxPool1dBackward, MaxPool1dWithIndices, MaxPool2dBackward,
    MaxPool2dWithIndices, TransactionPrimitive,
};
use burn_backend::quantization::QuantizationParametersPrimitive;
use burn_backend::{Backend, TensorMetadata, TensorPrimitive};

use crate::Capture;
use crate::tape::{Operand, Origin, Step, Tape, Tracked, dims};

/// A call of the inner backend. Its results depend on the input if one of its arguments does.
pub(crate) struct Call {
    operation: &'static str,
    tape: RefCell<Option<Tape>>,
    values: RefCell<Vec<Operand>>,
    path: Cell<Option<Arc<str>>>,
}

impl Call {
    pub(crate) fn new(operation: &'static str) -> Self {
        Self { operation, tape: RefCell::default(), values: RefCell::default(), path: Cell::default() }
    }

    /// Returns the argument for the inner backend.
    pub(crate) fn argument<A: Argument<I>, I>(&self, argument: A) -> I {
        argument.argument(self)
    }

    /// Returns the result for the outer backend.
    pub(crate) fn result<R: Outcome<O>, O>(&self, result: R) -> O {
        result.outcome(self)
    }

    /// Returns a result that is no tensor: elements leave the backend.
    pub(crate) fn leaves<R>(&self, result: R) -> R {
        if let Some(tape) = &*self.tape.borrow() {
            tape.leak(self.operation);
        }
        result
    }

    /// Returns the tensor of the inner backend, which leaves this one.
    pub(crate) fn taken<T>(&self, tensor: Tracked<T>) -> T {
        let inner = self.argument(tensor);
        self.leaves(inner)
    }

    fn note(&self, origin: Origin) {
        match origin {
            Origin::Value(tape, index) => {
                self.tape.borrow_mut().get_or_insert_with(|| tape.clone()).check(&tape);
                self.values.borrow_mut().push(Operand::Value(index));
            }
            Origin::Constant(path) => {
                let first = self.path.take();
                self.path.set(first.or(path));
            }
        }
    }

    fn origin(&self, dims: Vec<usize>) -> Origin {
        let path = self.path.take();
        self.path.set(path.clone());
        match &*self.tape.borrow() {
            Some(tape) => {
                if let Some(path) = path {
                    tape.enter(&path);
                }
                tape.push(Step::Unknown(self.operation), self.values.borrow().clone(), dims)
            }
            None => Origin::Constant(path),
        }
    }
}

/// An argument, as the inner backend takes it.
pub(crate) trait Argument<I> {
    fn argument(self, call: &Call) -> I;
}

impl<T> Argument<T> for Tracked<T> {
    fn argument(self, call: &Call) -> T {
        call.note(self.origin);
        self.inner
    }
}

impl<A: Argument<I>, I> Argument<Option<I>> for Option<A> {
    fn argument(self, call: &Call) -> Option<I> {
        self.map(|argument| argument.argument(call))
    }
}

impl<A: Argument<I>, I> Argument<Vec<I>> for Vec<A> {
    fn argument(self, call: &Call) -> Vec<I> {
        self.into_iter().map(|argument| argument.argument(call)).collect()
    }
}

impl<B: Backend> Argument<TensorPrimitive<B>> for TensorPrimitive<Capture<B>> {
    fn argument(self, call: &Call) -> TensorPrimitive<B> {
        match self {
            Self::Float(tensor) => TensorPrimitive::Float(tensor.argument(call)),
            Self::QFloat(tensor) => TensorPrimitive::QFloat(tensor.argument(call)),
        }
    }
}

impl<B: Backend> Argument<QuantizationParametersPrimitive<B>> for QuantizationParametersPrimitive<Capture<B>> {
    fn argument(self, call: &Call) -> QuantizationParametersPrimitive<B> {
        QuantizationParametersPrimitive { scales: self.scales.argument(call) }
    }
}

impl<B: Backend> Argument<TransactionPrimitive<B>> for TransactionPrimitive<Capture<B>> {
    fn argument(self, call: &Call) -> TransactionPrimitive<B> {
        TransactionPrimitive::new(
            self.read_floats.argument(call),
            self.read_qfloats.argument(call),
            self.read_ints.argument(call),
            self.read_bools.argument(call),
        )
    }
}

/// A result, as the outer backend gives it.
pub(crate) trait Outcome<O> {
    fn outcome(self, call: &Call) -> O;
}

impl<T: TensorMetadata> Outcome<Tracked<T>> for T {
    fn outcome(self, call: &Call) -> Tracked<T> {
        Tracked { origin: call.origin(dims(&self)), inner: self }
    }
}

impl<T: TensorMetadata, U: TensorMetadata> Outcome<(Tracked<T>, Tracked<U>)> for (T, U) {
    fn outcome(self, call: &Call) -> (Tracked<T>, Tracked<U>) {
        (self.0.outcome(call), self.1.outcome(call))
    }
}

impl<T: TensorMetadata, U: TensorMetadata, V: TensorMetadata> Outcome<(Tracked<T>, Tracked<U>, Tracked<V>)>
    for (T, U, V)
{
    fn outcome(self, call: &Call) -> (Tracked<T>, Tracked<U>, Tracked<V>) {
        (self.0.outcome(call), self.1.outcome(call), self.2.outcome(call))
    }
}

impl<T: TensorMetadata> Outcome<Vec<Tracked<T>>> for Vec<T> {
    fn outcome(self, call: &Call) -> Vec<Tracked<T>> {
        self.into_iter().map(|tensor| tensor.outcome(call)).collect()
    }
}

impl<B: Backend> Outcome<TensorPrimitive<Capture<B>>> for TensorPrimitive<B> {
    fn outcome(self, call: &Call) -> TensorPrimitive<Capture<B>> {
        match self {
            Self::Float(tensor) => TensorPrimitive::Float(tensor.outcome(call)),
            Self::QFloat(tensor) => TensorPrimitive::QFloat(tensor.outcome(call)),
        }
    }
}

/// Implements [`Outcome`] for structs of tensors.
macro_rules! outcomes {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl<B: Backend> Outcome<$name<Capture<B>>> for $name<B> {
            fn outcome(self, call: &Call) -> $name<Capture<B>> {
                $name { $($field: self.$field.outcome(call),)* }
            }
        }
    )*};
}

outcomes! {
    InterpolateBackward { x_grad }
    MaxPool1dBackward { x_grad }
    MaxPool1dWithIndices { output, indices }
    MaxPool2dBackward { x_grad }
    MaxPool2dWithIndices { output, indices }
}

impl<B: Backend> Outcome<DeformConv2dBackward<Capture<B>>> for DeformConv2dBackward<B> {
    fn outcome(self, call: &Call) -> DeformConv2dBackward<Capture<B>> {
        DeformConv2dBackward {
            x_grad: self.x_grad.outcome(call),
            offset_grad: self.offset_grad.outcome(call),
            weight_grad: self.weight_grad.outcome(call),
            mask_grad: self.mask_grad.map(|tensor| tensor.outcome(call)),
            bias_grad: self.bias_grad.map(|tensor| tensor.outcome(call)),
        }
    }
}
