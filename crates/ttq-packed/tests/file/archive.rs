//! Tests of the entropy coder: size relative to the entropy, and round trips.

use fastrand::Rng;
use ttq_packed::Codes;
use ttq_packed::archive::{decode, encode, entropy};

use crate::random;

#[test]
fn archives_are_within_two_percent_of_the_entropy() {
    let mut rng = Rng::with_seed(1);
    for len in [10_000, 100_000, 1_000_000] {
        for sparsity in [0.30, 0.5, 0.7, 0.9, 0.95] {
            let codes = Codes::pack(&random::values(&mut rng, len, sparsity)).unwrap();
            let archive = encode(&codes);
            let (bits, entropy) = (archive.len() as f64 * 8.0 / len as f64, entropy(codes.counts()));
            println!("{len:9} values, {sparsity} zeros: {bits:.4} bits, entropy {entropy:.4}, {:.4}", bits / entropy);
            assert!(bits <= 1.02 * entropy, "{len} values, {sparsity} zeros: {bits} bits, entropy {entropy}");
            assert!(bits >= entropy, "{bits} bits are less than the entropy {entropy}");
            assert_eq!(decode(&archive, len).unwrap(), codes);
        }
    }
}

#[test]
fn the_entropy_matches_known_values() {
    for (zeros, expected) in [(500, 1.5), (900, 0.569), (950, 0.336)] {
        let sign = (1000 - zeros) / 2;
        assert!((entropy([sign, zeros, sign]) - expected).abs() < 5e-4);
    }
    assert!((entropy([7, 7, 7]) - 3f64.log2()).abs() < 1e-12);
    assert_eq!(entropy([0, 5, 0]), 0.0);
    assert_eq!(entropy([0, 0, 0]), 0.0);
}

#[test]
fn archives_round_trip_at_every_length() {
    let mut rng = Rng::with_seed(2);
    for len in 0..2000 {
        // The fractions of -1 and +1 differ.
        let (negative, zero) = (rng.f64(), rng.f64());
        let value = |_| match rng.f64() < zero {
            true => 0,
            false => 1 - 2 * i8::from(rng.f64() < negative),
        };
        let codes = Codes::pack(&(0..len).map(value).collect::<Vec<_>>()).unwrap();
        assert_eq!(decode(&encode(&codes), len).unwrap(), codes);
    }
}
